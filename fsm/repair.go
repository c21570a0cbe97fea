package fsm

import (
	"slices"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// repairMSDefault is how long the room of the tasks that survive the loss of a node is kept for
// their gang, when the job does not say.
const repairMSDefault = 120_000

// keepSurvivors keeps the room that the tasks of an attempt still hold on nodes that answer, so
// that the gang can go on there once the lost part is replaced. Room that was kept on a node which
// does not answer any more is given up.
func (a *applier) keepSurvivors(jobID string, epoch uint64) *pb.Fault {
	job, attempt := a.txn.Job(jobID), a.txn.Attempt(jobID, epoch)
	repairMS := job.GetSpec().GetRepairMs()
	if !a.keepsTimes() || repairMS < 0 || job.Epoch != epoch || attempt.Preempted || job.StopRequested || state.JobFinished(job.State) {
		return nil
	}
	if repairMS == 0 {
		repairMS = repairMSDefault
	}
	claim := &pb.Claim{Kind: pb.ClaimKind_CLAIM_KIND_REPAIR, UntilMs: min(a.txn.TimeMS()+repairMS, timeMSMax), Reason: "its gang lost a node"}
	if elastic(job.Spec) {
		claim.Counts = attempt.Counts
	}
	for _, task := range a.txn.JobTasks(jobID, epoch) {
		if !state.TaskLive(task.State) || !a.answers(task.NodeId) {
			continue
		}
		if held := a.txn.Allocation(task.Id); held != nil {
			claim.Slots = append(claim.Slots, &pb.ClaimSlot{NodeId: held.NodeId, CpuMilli: held.CpuMilli, MemoryBytes: held.MemoryBytes, Devices: held.Devices})
		}
	}
	if job.Claim.GetKind() == pb.ClaimKind_CLAIM_KIND_REPAIR { // what tasks that have ended since held
		kept := slices.DeleteFunc(slices.Clone(job.Claim.Slots), func(s *pb.ClaimSlot) bool { return !a.answers(s.NodeId) })
		if len(kept) > len(claim.Slots) {
			claim.Slots = kept
		}
	}
	if len(claim.Slots) == 0 {
		return a.putClaim(job, nil)
	}
	if job.Claim == nil && a.txn.ClaimCount() >= claimsMax {
		return nil
	}
	if f := a.putClaim(job, claim); f != nil {
		return f
	}
	if len(claim.Slots) == len(job.Claim.GetSlots()) && job.Claim.Kind == claim.Kind {
		return nil // it is told already
	}
	a.event("job.claimed", jobID, "", "", "room for %s is kept %s: %s", tasksPhrase(len(claim.Slots)), a.claimPhrase(claim), claim.Reason)
	return nil
}

func (a *applier) answers(nodeID string) bool {
	return a.txn.Node(nodeID).GetState() == pb.NodeState_NODE_STATE_READY
}

func elastic(spec *pb.JobSpec) bool {
	return slices.ContainsFunc(spec.Roles, func(r *pb.RoleSpec) bool { return r.CountMin > 0 && r.CountMin < r.Count })
}

// missesNode reports whether a live task of an attempt is on a node that does not answer: then
// what its peers say is most likely for the loss of it.
func (a *applier) missesNode(jobID string, epoch uint64) bool {
	return slices.ContainsFunc(a.txn.JobTasks(jobID, epoch), func(k *pb.Task) bool {
		return state.TaskLive(k.State) && !a.answers(k.NodeId)
	})
}

// repaired tells that a gang that had lost a node runs again, and how much of its room it kept.
// The job is as it was before the placement.
func (a *applier) repaired(job *pb.Job, g *pb.GangPlacement) {
	if job.Claim.GetKind() != pb.ClaimKind_CLAIM_KIND_REPAIR {
		return
	}
	left := map[string]int{}
	for _, slot := range job.Claim.Slots {
		left[slot.NodeId]++
	}
	kept := 0
	for _, p := range g.Tasks {
		if left[p.GetNodeId()] > 0 {
			left[p.NodeId]--
			kept++
		}
	}
	a.event("job.repaired", job.Id, "", "", "attempt %d keeps the room of %d of %s, and has %d elsewhere", g.Epoch, kept,
		tasksPhrase(len(job.Claim.Slots)), len(g.Tasks)-kept)
}

// lapseClaims gives up what was kept for jobs longer than it was to be.
func (a *applier) lapseClaims(c *pb.LapseClaims) *pb.Fault {
	if len(c.JobIds) > claimsMax {
		return limit("lapse in parts", "%d claims came at once, at most %d", len(c.JobIds), claimsMax)
	}
	for _, id := range c.JobIds {
		job := a.txn.Job(id)
		if job.GetClaim() == nil || job.Claim.UntilMs > a.txn.TimeMS() {
			continue
		}
		if f := a.putClaim(job, nil); f != nil {
			return f
		}
		a.event("job.claim_lapsed", id, "", "", "the room that was kept for %s is given up", tasksPhrase(len(job.Claim.Slots)))
	}
	return nil
}

// dropSlots gives up what is kept on a node that is removed.
func (a *applier) dropSlots(nodeID string) *pb.Fault {
	onNode := func(s *pb.ClaimSlot) bool { return s.NodeId == nodeID }
	for _, id := range a.txn.ClaimedJobs() {
		job := a.txn.Job(id)
		if !slices.ContainsFunc(job.Claim.Slots, onNode) {
			continue
		}
		c := job.Claim
		kept := &pb.Claim{Kind: c.Kind, UntilMs: c.UntilMs, Slots: slices.DeleteFunc(slices.Clone(c.Slots), onNode), Counts: c.Counts, Reason: c.Reason}
		if len(kept.Slots) == 0 {
			kept = nil
		}
		if f := a.putClaim(job, kept); f != nil {
			return f
		}
	}
	return nil
}
