package state

import (
	"slices"

	pb "llmos/proto/llmos/v1"
)

// CheckpointsKept is how many good steps of a job are kept when it does not say.
const CheckpointsKept = 3

// partialKept is how many of the newest steps that some rank has not saved yet are kept.
const partialKept = 4

// Reachable reports whether of each needed part of a step a node that answers holds a copy.
func (s *SavedStep) Reachable(node func(id string) *pb.Node) bool {
	for _, c := range s.NeededParts() {
		if !slices.ContainsFunc(c.NodeIds, func(id string) bool { return node(id).GetState() == pb.NodeState_NODE_STATE_READY }) {
			return false
		}
	}
	return true
}

// Prunable gives the steps of a job, which are newest first, that its policy does not keep: good
// ones beyond its number, and others that are older than a good one. What its newest attempt goes
// on from stays while that attempt has not ended.
func Prunable(job *pb.Job, newest *pb.Attempt, steps []SavedStep) (out []SavedStep) {
	keep := int(job.GetSpec().GetCheckpoint().GetKeep())
	if keep == 0 {
		keep = CheckpointsKept
	}
	resume := newest.GetResume()
	if newest.GetState() == pb.AttemptState_ATTEMPT_STATE_ENDED {
		resume = nil
	}
	good, partial := 0, 0
	for _, s := range steps {
		var keeps bool
		if s.Good {
			good++
			keeps = good <= keep
		} else {
			partial++
			keeps = good == 0 && partial <= partialKept
		}
		if !keeps && !(resume != nil && resume.Epoch == s.Epoch && resume.Step == s.Step) {
			out = append(out, s)
		}
	}
	return out
}
