package fsm

import (
	"fmt"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// forOthers are the evictions that a job which may not be preempted is spared.
var forOthers = map[pb.EvictionKind]bool{
	pb.EvictionKind_EVICTION_KIND_PRIORITY: true,
	pb.EvictionKind_EVICTION_KIND_RECLAIM:  true,
	pb.EvictionKind_EVICTION_KIND_FAIR:     true,
}

// evictionWords say in a sentence why an attempt was ended.
var evictionWords = map[pb.EvictionKind]string{
	pb.EvictionKind_EVICTION_KIND_PRIORITY: "preempted by a higher priority",
	pb.EvictionKind_EVICTION_KIND_RECLAIM:  "preempted: a queue took back its quota",
	pb.EvictionKind_EVICTION_KIND_RESIZE:   "stopped to run with another number of tasks",
	pb.EvictionKind_EVICTION_KIND_DRAIN:    "stopped because its node is drained or reserved",
	pb.EvictionKind_EVICTION_KIND_FAIR:     "preempted: its turn was over",
	pb.EvictionKind_EVICTION_KIND_FORECAST: "stopped before it ran out of memory or disk",
}

// evict ends a live attempt whole. Its tasks are stopped with their grace; when the last has ended
// its job waits again.
func (a *applier) evict(e *pb.Eviction) *pb.Fault {
	job := a.txn.Job(e.GetJobId())
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "there is no job %q", cut(e.GetJobId()))
	}
	words := evictionWords[e.Kind]
	if words == "" {
		return invalid("kind", "%d is no reason to end an attempt", e.Kind)
	}
	attempt := a.txn.Attempt(job.Id, e.Epoch)
	if attempt == nil || e.Epoch != job.Epoch {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_STALE_EPOCH, "plan again",
			"the eviction is of attempt %d of job %s, and the newest is %d", e.Epoch, job.Id, job.Epoch)
	}
	if attempt.State != pb.AttemptState_ATTEMPT_STATE_LIVE {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "plan again", "attempt %d of job %s is %s already", e.Epoch, job.Id,
			state.Word(attempt.State))
	}
	if job.Spec.NoPreempt && forOthers[e.Kind] {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "choose another job", "job %s may not be stopped for another one", job.Id)
	}
	if e.ForJob != "" && e.ForJob != job.Id {
		if other := a.txn.Job(e.ForJob); other == nil || state.JobFinished(other.State) {
			return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "job %q, for which %s would be stopped, does not wait any more",
				cut(e.ForJob), job.Id)
		}
		words += " for job " + e.ForJob
	}
	if e.Reason != "" {
		words += ": " + e.Reason
	}
	if f := a.endAttempt(attempt, ending{cause: words, eviction: e}); f != nil {
		return f
	}
	kind := "job.preempted"
	if e.Kind == pb.EvictionKind_EVICTION_KIND_RESIZE {
		kind = "job.resized"
	}
	a.event(kind, job.Id, "", "", "attempt %d is %s", e.Epoch, cut(words))
	return nil
}

// requeueEvicted makes an evicted job wait at its old place, with all its retries; the job is the
// caller's own copy.
func (a *applier) requeueEvicted(job *pb.Job, attempt *pb.Attempt) *pb.Fault {
	if attempt.Eviction == pb.EvictionKind_EVICTION_KIND_RESIZE {
		job.Resizes++
	} else {
		job.Preemptions++
	}
	return a.requeue(job, attempt)
}

// setClaim keeps room for a job, or gives it up. A claim for a job that needs none, because it has
// ended or runs, is dropped: so is the one that goes with a refused eviction.
func (a *applier) setClaim(c *pb.SetClaim) *pb.Fault {
	job := a.txn.Job(c.GetJobId())
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "there is no job %q", cut(c.GetJobId()))
	}
	if c.Claim == nil {
		return a.putClaim(job, nil)
	}
	if f := a.checkClaim(job, c.Claim); f != nil {
		return f
	}
	claim := &pb.Claim{Kind: c.Claim.Kind, UntilMs: min(c.Claim.UntilMs, timeMSMax), Counts: c.Claim.Counts, Reason: cut(c.Claim.Reason)}
	for _, slot := range c.Claim.Slots {
		if a.txn.Node(slot.GetNodeId()) != nil {
			claim.Slots = append(claim.Slots, slot)
		}
	}
	if f := a.putClaim(job, claim); f != nil {
		return f
	}
	why := ""
	if claim.Reason != "" {
		why = ": " + claim.Reason
	}
	a.event("job.claimed", job.Id, "", "", "room for %s is kept %s%s", tasksPhrase(len(claim.Slots)), a.claimPhrase(claim), why)
	return nil
}

func (a *applier) checkClaim(job *pb.Job, c *pb.Claim) *pb.Fault {
	if f := a.mayClaim(job); f != nil {
		return f
	}
	switch {
	case c.Kind < pb.ClaimKind_CLAIM_KIND_REPAIR || c.Kind > pb.ClaimKind_CLAIM_KIND_RESIZE:
		return invalid("claim.kind", "%d is no kind of claim", c.Kind)
	case c.UntilMs <= a.txn.TimeMS():
		return invalid("claim.until_ms", "the claim would have lapsed before it was made")
	case len(c.Slots) == 0 || len(c.Slots) > tasksMax:
		return invalid("claim.slots", "room for %d tasks cannot be kept, for 1 to %d it can", len(c.Slots), tasksMax)
	case job.Claim == nil && a.txn.ClaimCount() >= claimsMax:
		return limit("wait until some have lapsed", "room is kept for %d jobs already", a.txn.ClaimCount())
	}
	for i, slot := range c.Slots {
		field := fmt.Sprintf("claim.slots[%d]", i)
		if !quantity(slot.GetCpuMilli()) || !quantity(slot.GetMemoryBytes()) || len(slot.GetDevices()) > devicesMax {
			return invalid(field, "%d millicores, %d bytes and %d devices cannot be kept", slot.GetCpuMilli(), slot.GetMemoryBytes(), len(slot.GetDevices()))
		}
	}
	if len(c.Counts) > 0 {
		_, f := countsOf(job, c.Counts)
		return f
	}
	return nil
}

// mayClaim says whether room can be kept for a job: it waits, or its attempt was evicted or lost.
func (a *applier) mayClaim(job *pb.Job) *pb.Fault {
	if job.State == pb.JobState_JOB_STATE_PENDING && len(job.BlockedBy) == 0 {
		return nil
	}
	attempt := a.txn.Attempt(job.Id, job.Epoch)
	if job.State == pb.JobState_JOB_STATE_RUNNING && attempt.GetState() == pb.AttemptState_ATTEMPT_STATE_ENDING && (attempt.Preempted || attempt.Lost) {
		return nil
	}
	return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "plan again", "job %s does not wait for a placement: it is %s", job.Id, state.Word(job.State))
}

// putClaim writes what is kept for a job; nil: nothing.
func (a *applier) putClaim(job *pb.Job, claim *pb.Claim) *pb.Fault {
	if job.Claim == nil && claim == nil {
		return nil
	}
	next := state.CopyJob(job)
	next.Claim = claim
	return a.txn.PutJob(next)
}

func (a *applier) claimPhrase(c *pb.Claim) string {
	names := make([]string, 0, namesShown)
	last := ""
	for _, slot := range c.Slots {
		if slot.NodeId == last {
			continue
		}
		if len(names) == namesShown {
			return "on " + strings.Join(names, ", ") + " and others"
		}
		last = slot.NodeId
		names = append(names, a.txn.Node(last).GetName())
	}
	return "on " + strings.Join(names, ", ")
}
