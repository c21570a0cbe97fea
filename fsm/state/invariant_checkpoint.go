package state

import (
	"slices"

	pb "llmos/proto/llmos/v1"
)

func checkCheckpoints(c *checker) {
	for k := range c.s.Checkpoints() {
		j := c.s.Job(k.JobId)
		if j == nil || k.Epoch > j.Epoch || k.Epoch == 0 && j.Spec.GetResume() == nil {
			c.fail("a checkpoint is of attempt %d of job %q, which is at %d", k.Epoch, k.JobId, j.GetEpoch())
			continue
		}
		if k.Step < 0 || k.Rank < 0 || k.Rank >= k.WorldSize || k.SizeBytes < 0 || len(k.ManifestSha256) == 0 || k.RegisteredMs > c.s.timeMS {
			c.fail("checkpoint %d.%d of rank %d of %d of job %s has %d bytes and was registered at %d", k.Epoch, k.Step, k.Rank, k.WorldSize,
				k.JobId, k.SizeBytes, k.RegisteredMs)
		}
		if _, known := slices.BinarySearch(j.SavingRanks, k.Rank); !known {
			c.fail("rank %d of job %s has saved step %d, and is not known to save", k.Rank, k.JobId, k.Step)
		}
		if len(k.NodeIds) == 0 || !slices.IsSorted(k.NodeIds) || len(slices.Compact(slices.Clone(k.NodeIds))) != len(k.NodeIds) {
			c.fail("checkpoint %d.%d of rank %d of job %s is held by %v", k.Epoch, k.Step, k.Rank, k.JobId, k.NodeIds)
		}
		for _, id := range k.NodeIds {
			if c.s.Node(id) == nil {
				c.fail("checkpoint %d.%d of job %s is on node %q, which does not exist", k.Epoch, k.Step, k.JobId, id)
			}
		}
	}
	for j := range c.s.Jobs() {
		checkSaved(c, j)
	}
}

// checkSaved holds what a job's record says of its checkpoints against them.
func checkSaved(c *checker, j *pb.Job) {
	if !slices.IsSorted(j.SavingRanks) {
		c.fail("ranks %v of job %s save", j.SavingRanks, j.Id)
	}
	steps := c.s.SavedSteps(j.Id)
	wantMS, wantStep := int64(0), int64(0)
	if good := NewestGood(steps); good != nil {
		wantMS, wantStep = good.RegisteredMS(), good.Step
	}
	if j.SavedMs != wantMS || j.SavedStep != wantStep {
		c.fail("job %s saved step %d at %d, and its newest good step is %d of %d", j.Id, j.SavedStep, j.SavedMs, wantStep, wantMS)
	}
	for _, s := range steps {
		for _, k := range s.Ranks {
			if (k.Fault == "") != (s.Fault() == "") || k.WorldSize != s.Ranks[0].WorldSize {
				c.fail("the ranks of step %d.%d of job %s do not agree", s.Epoch, s.Step, j.Id)
			}
		}
	}
	if a := c.s.Attempt(j.Id, j.Epoch); a.GetState() == pb.AttemptState_ATTEMPT_STATE_LIVE && a.Resume != nil && a.Resume.Epoch >= a.Epoch {
		c.fail("attempt %d of job %s goes on from attempt %d", a.Epoch, j.Id, a.Resume.Epoch)
	}
}
