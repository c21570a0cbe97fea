package controller

import (
	"cmp"
	"hash/fnv"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// copies decides which node holds a copy of which checkpoint, and who may read it there. Nothing is
// remembered: it follows from the state and from who is connected, and every leader decides alike.
// Nodes are told all that they should hold, as they are told what to run.
//
// An agent drops what it has reported and is not told to hold. What it is told therefore comes from a
// state that shows what it has reported: after an acknowledgement of checkpoints its holdings are sent
// again, even when they are the same.
type copies struct {
	lane  lane
	stale bool          // something may have changed
	rest  time.Duration // not worked out again before
	seen  *state.State  // from which it was worked out
	by    map[string][]*pb.Holding
	due   bool // somebody may have to be told
}

const (
	copiesWanted = 2 // of each checkpoint, the first one included
	copiesEvery  = 100 * time.Millisecond
	prunesMax    = 64 // jobs of one proposal
	pruneSlack   = 2  // good steps beyond those kept that wait for the copies of the newest
)

// next is when it is to be worked out again; 0: not by time.
func (k *copies) next() time.Duration {
	if k.stale {
		return k.rest
	}
	return 0
}

// savedReports gives what a cluster of this state version can take of reports of checkpoints.
func (c *Controller) savedReports(reports []*pb.CheckpointReport) []*pb.CheckpointReport {
	if c.st.Cluster().GetStateVersion() < checkpointsVersion {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(reports), func(r *pb.CheckpointReport) bool { return r.GetCheckpoint() == nil })
}

// checkpointsVersion is the state version that knows checkpoints.
const checkpointsVersion = 3

func savedCommand(node string, r *pb.CheckpointReport) *pb.Command {
	if r.Lost {
		return &pb.Command{Op: &pb.Command_LoseCheckpoint{LoseCheckpoint: &pb.LoseCheckpoint{NodeId: node, Checkpoint: r.Checkpoint, Reason: r.Reason}}}
	}
	return &pb.Command{Op: &pb.Command_RegisterCheckpoint{RegisterCheckpoint: &pb.RegisterCheckpoint{NodeId: node, Checkpoint: r.Checkpoint}}}
}

// checkpointSpec is how a job saves itself; nil when it says nothing of it.
func checkpointSpec(spec *pb.JobSpec) *pb.CheckpointSpec {
	if spec.GetCheckpoint() == nil && spec.GetCheckpointEveryMs() > 0 {
		return &pb.CheckpointSpec{} // what its tasks announce
	}
	return spec.GetCheckpoint()
}

// resumeOf gives what a task goes on from, with the nodes that hold it; nil: it begins anew. A step
// of which nothing is known any more is given without content: the agent refuses it, and the next
// attempt has another.
func (c *Controller) resumeOf(t *pb.Task, a *pb.Attempt) *pb.Holding {
	at := a.GetResume()
	if at == nil {
		return nil
	}
	step := c.st.SavedStep(t.JobId, at)
	if step == nil {
		return &pb.Holding{Checkpoint: &pb.Checkpoint{JobId: t.JobId, Epoch: at.Epoch, Step: at.Step, Rank: t.Rank}}
	}
	part := step.Part(t.Rank)
	return &pb.Holding{Checkpoint: part, Held: slices.Contains(part.NodeIds, t.NodeId), Sources: c.sources(part, t.NodeId)}
}

// sources gives the nodes other than one that hold a checkpoint and answer.
func (c *Controller) sources(k *pb.Checkpoint, except string) (out []*pb.CheckpointSource) {
	for _, id := range k.NodeIds {
		if n := c.st.Node(id); id != except && n.GetState() == pb.NodeState_NODE_STATE_READY {
			out = append(out, &pb.CheckpointSource{NodeId: id, Addr: n.Addr})
		}
	}
	return out
}

// keepCopies works out what every node should hold, tells those for which that has changed, and
// proposes to forget what the jobs' policies do not keep.
func (c *Controller) keepCopies() {
	k := &c.copies
	if k.stale && !c.st.AnyCheckpoints() && len(k.by) == 0 {
		k.stale, k.seen = false, c.st
	}
	if k.seen == nil || !k.seen.SameCheckpoints(c.st) {
		k.stale = true
	}
	if k.stale && c.now >= k.rest {
		c.workOutCopies()
	}
	if !k.due {
		return
	}
	k.due = false
	for _, e := range c.world.order {
		if s := c.sessions[e.id]; s != nil && s.phase == phaseLive {
			c.sendHoldings(s)
		}
	}
}

// heldBy gives what a node holds by the state alone: what a session begins with, until what is to be
// copied and read is worked out.
func (c *Controller) heldBy(node string) *pb.Holdings {
	held := &pb.Holdings{}
	for part := range c.st.NodeCheckpoints(node) {
		held.Holdings = append(held.Holdings, &pb.Holding{Checkpoint: part, Held: true, Sources: c.sources(part, node)})
	}
	return held
}

func (c *Controller) sendHoldings(s *session) {
	k := &c.copies
	if s.holdingsDue && k.seen.Index() < s.after {
		k.stale, k.due = true, true // the state that shows what it reported may be the same but for its index
		return
	}
	mine := &pb.Holdings{Holdings: k.by[s.node]}
	if proto.Equal(s.holdings, mine) && !s.holdingsDue {
		return
	}
	s.holdings, s.holdingsDue = mine, false
	c.send(s, &pb.ServerMessage{Message: &pb.ServerMessage_Desired{Desired: &pb.Desired{Index: c.st.Index(), Holdings: mine}}})
}

func (c *Controller) workOutCopies() {
	k := &c.copies
	k.stale, k.due, k.seen, k.rest = false, true, c.st, c.now+copiesEvery
	k.by = map[string][]*pb.Holding{}
	var able nodesAble
	var prunes []*pb.Command
	last := ""
	for one := range c.st.Checkpoints() {
		if one.JobId == last {
			continue
		}
		if last == "" {
			able = c.ableNodes()
		}
		last = one.JobId
		steps := c.st.SavedSteps(last)
		for i := range steps {
			readers := c.readers(last, &steps[i])
			for _, part := range steps[i].Ranks {
				c.copyPart(part, able, readers)
			}
		}
		if len(prunes) < prunesMax && c.prunes(last, steps, able) {
			prunes = append(prunes, &pb.Command{Op: &pb.Command_PruneCheckpoints{PruneCheckpoints: &pb.PruneCheckpoints{JobId: last}}})
		}
	}
	if len(prunes) > 0 && k.lane.ready(c, true) {
		c.propose(&k.lane, prunes)
	}
}

// nodesAble are the nodes that matter to copies now, ascending by ID.
type nodesAble struct {
	give []string // that answer
	hold []string // that answer and are not drained: copies that count are there
}

func (c *Controller) ableNodes() (able nodesAble) {
	for n := range c.st.Nodes() {
		if s := c.sessions[n.Id]; n.State == pb.NodeState_NODE_STATE_READY && s != nil && s.phase == phaseLive {
			able.give = append(able.give, n.Id)
			if n.Drain == nil {
				able.hold = append(able.hold, n.Id)
			}
		}
	}
	return able
}

// enough reports whether a checkpoint has as many copies as it should, or as there can be.
func (n nodesAble) enough(part *pb.Checkpoint) bool {
	return holders(part, n.hold) >= min(copiesWanted, len(n.hold))
}

// readers gives the nodes with tasks that go on from a step, ascending.
func (c *Controller) readers(jobID string, step *state.SavedStep) (nodes []string) {
	a := c.st.Attempt(jobID, c.st.Job(jobID).GetEpoch())
	if a.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE || a.Resume == nil || a.Resume.Epoch != step.Epoch || a.Resume.Step != step.Step {
		return nil
	}
	for t := range c.st.JobTasks(jobID, a.Epoch) {
		if t.State == pb.TaskState_TASK_STATE_ASSIGNED {
			nodes = append(nodes, t.NodeId)
		}
	}
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// copyPart adds what a checkpoint means to the nodes that hold it, and to the one that is to hold
// another copy.
func (c *Controller) copyPart(part *pb.Checkpoint, able nodesAble, readers []string) {
	k := &c.copies
	target := copyTarget(part, able)
	if target != "" {
		if at, known := slices.BinarySearch(readers, target); !known {
			readers = slices.Insert(slices.Clone(readers), at, target)
		}
		k.by[target] = append(k.by[target], &pb.Holding{Checkpoint: part, Sources: c.sources(part, target)})
	}
	for _, id := range part.NodeIds {
		k.by[id] = append(k.by[id], &pb.Holding{Checkpoint: part, Held: true, Sources: c.sources(part, id), Readers: readers})
	}
}

// copyTarget chooses the node that is to hold one more copy of a checkpoint; empty when there are
// enough, nobody to copy from, or nobody to copy to. Every node has a rank for every content that
// depends on nothing else, so that the choice moves only when the chosen node goes.
func copyTarget(part *pb.Checkpoint, able nodesAble) (target string) {
	if part.Fault != "" || holders(part, able.give) == 0 || able.enough(part) {
		return ""
	}
	best := uint64(0)
	for _, id := range able.hold {
		if slices.Contains(part.NodeIds, id) {
			continue
		}
		h := fnv.New64a()
		_, _ = h.Write(part.ManifestSha256)
		_, _ = h.Write([]byte(id))
		if rank := h.Sum64(); target == "" || cmp.Compare(rank, best) > 0 {
			target, best = id, rank
		}
	}
	return target
}

// holders counts those among some nodes that hold a checkpoint.
func holders(part *pb.Checkpoint, nodes []string) (n int) {
	for _, id := range part.NodeIds {
		if _, is := slices.BinarySearch(nodes, id); is {
			n++
		}
	}
	return n
}

// prunes reports whether checkpoints of a job are to be forgotten now. Older steps wait until the
// newest good one has its copies, but not for ever.
func (c *Controller) prunes(jobID string, steps []state.SavedStep, able nodesAble) bool {
	j := c.st.Job(jobID)
	over := state.Prunable(j, c.st.Attempt(jobID, j.GetEpoch()), steps)
	if len(over) == 0 {
		return false
	}
	if good := state.NewestGood(steps); good != nil && len(over) <= pruneSlack {
		for _, part := range good.NeededParts() {
			if !able.enough(part) {
				return false
			}
		}
	}
	return true
}
