package controller

import (
	pb "llmos/proto/llmos/v1"
)

// heardOf is what the leader remembers of what a job's tasks said. It is telemetry: a new
// leader learns it anew.
type heardOf struct {
	epoch       uint64
	rank        int32 // whose steps count: the lowest rank that reports any
	step, steps int64
	stepMS      int64 // agent's clock at step
	firstStep   int64 // of this attempt, and when
	firstMS     int64
	measured    int64 // step up to which step times are in the job's profile, and when
	measuredMS  int64
}

// observe takes in what a node's tasks said.
func (c *Controller) observe(ev ProgressArrived) {
	for _, p := range ev.Progress {
		task := c.st.Task(p.GetTaskId())
		if task == nil || task.NodeId != ev.NodeID {
			continue
		}
		e := c.world.jobs[task.JobId]
		if e == nil || e.job.Epoch != task.Epoch {
			continue
		}
		e.heard.note(task, p)
		if elasticSpec(e.job.GetSpec()) {
			c.measure(e)
		}
		c.sampled(e, task, p.Sample)
	}
}

func (h *heardOf) note(task *pb.Task, p *pb.Progress) {
	if p.Step <= 0 || p.TimeMs <= 0 {
		return
	}
	if h.epoch != task.Epoch || task.Rank < h.rank || h.firstMS == 0 || p.Step < h.step {
		*h = heardOf{epoch: task.Epoch, rank: task.Rank, firstStep: p.Step, firstMS: p.TimeMs}
	}
	if task.Rank == h.rank && p.Step >= h.step {
		h.step, h.steps, h.stepMS = p.Step, p.Steps, p.TimeMs
	}
}

// msPerStep is the mean time of a step in this attempt; 0 when it is not known yet.
func (h *heardOf) msPerStep() float64 {
	if h.step <= h.firstStep || h.stepMS <= h.firstMS {
		return 0
	}
	return float64(h.stepMS-h.firstMS) / float64(h.step-h.firstStep)
}

// leftMostMS bounds what a job may say it has left, 100 years: its numbers are its own.
const leftMostMS = 100 * 365 * float64(dayMS)

// leftMS is how long the steps that are left will take at the rate of this attempt. ok is
// false when the job does not say how many there are, or no rate is known.
func (h *heardOf) leftMS(epoch uint64) (ms int64, ok bool) {
	each := h.msPerStep()
	if h.epoch != epoch || h.steps <= 0 || each == 0 {
		return 0, false
	}
	return int64(min(float64(max(0, h.steps-h.step))*each, leftMostMS)), true
}

func elasticSpec(spec *pb.JobSpec) bool {
	for _, r := range spec.GetRoles() {
		if r.CountMin > 0 && r.CountMin < r.Count {
			return true
		}
	}
	return false
}
