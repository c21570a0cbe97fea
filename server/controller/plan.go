package controller

import (
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

// planner decides when to schedule. One plan is in flight at a time, and the next pass
// runs only on a state that shows the last one.
type planner struct {
	lane    lane
	wanted  bool            // something changed since the last pass
	last    *scheduler.Plan // for Explain
	refused map[string]*refusal
}

// refusal keeps a job whose placement the ledger refuses again and again from taking the
// place of others in every pass.
type refusal struct {
	count int
	until time.Duration // it is not scheduled before
	text  string
}

// After refusalsFree refusals in a row a job pauses.
const (
	refusalsFree    = 2
	refusalPauseMin = time.Second
	refusalPauseMax = time.Minute
)

// plan runs a pass if one is wanted and possible, and proposes what it places.
func (c *Controller) plan() {
	p := &c.planning
	if wake := p.nextRetry(); wake > 0 && wake <= c.now {
		p.wanted = true
	}
	if !p.wanted || !p.lane.ready(c, true) {
		return
	}
	p.wanted = false
	p.forgetRefusals(c.world)
	pending := c.pendingJobs()
	if len(pending) == 0 {
		p.last = nil
		return
	}
	plan := scheduler.Schedule(scheduler.Snapshot{Nodes: c.world.snapshot(), Pending: pending}, c.cfg.Policy)
	p.last = plan
	p.wanted = plan.Truncated
	if len(plan.Placements) == 0 {
		return
	}
	apply := &pb.ApplyPlan{Gangs: make([]*pb.GangPlacement, 0, len(plan.Placements))}
	for i := range plan.Placements {
		apply.Gangs = append(apply.Gangs, c.gang(&plan.Placements[i]))
	}
	c.propose(&p.lane, []*pb.Command{{Op: &pb.Command_ApplyPlan{ApplyPlan: apply}}})
}

// pendingJobs gives the pending jobs that may be scheduled now, with their wait.
func (c *Controller) pendingJobs() []scheduler.Job {
	nowMS := c.wallMS()
	jobs := make([]scheduler.Job, 0, len(c.world.pending))
	for _, e := range c.world.pending {
		if r := c.planning.refused[e.job.Id]; r != nil {
			if r.until > c.now {
				continue
			}
			r.until = 0
		}
		job := e.value
		job.WaitedMS = max(0, nowMS-e.job.SubmittedMs)
		jobs = append(jobs, job)
	}
	return jobs
}

func (c *Controller) gang(p *scheduler.Placement) *pb.GangPlacement {
	g := &pb.GangPlacement{JobId: p.JobID, Epoch: c.world.jobs[p.JobID].job.Epoch + 1,
		Tasks: make([]*pb.TaskPlacement, 0, len(p.Tasks))}
	for i := range p.Tasks {
		task := &pb.TaskPlacement{NodeId: p.Tasks[i].NodeID, Ports: p.Tasks[i].Ports}
		for _, d := range p.Tasks[i].Devices {
			task.Devices = append(task.Devices, &pb.DeviceGrant{DeviceId: d.DeviceID, ShareMilli: d.Share, MemoryBytes: d.Memory})
		}
		g.Tasks = append(g.Tasks, task)
	}
	return g
}

// planDone counts refusals. A refused gang is planned again on the next state.
func (c *Controller) planDone(results []*pb.Result) {
	for _, r := range results {
		for _, g := range r.GetGangs() {
			if g.Fault == nil {
				delete(c.planning.refused, g.JobId)
				continue
			}
			c.planning.wanted = true
			ref := c.planning.refused[g.JobId]
			if ref == nil {
				ref = &refusal{}
				c.planning.refused[g.JobId] = ref
			}
			ref.count++
			ref.text = g.Fault.Message
			if ref.count > refusalsFree {
				ref.until = c.now + min(refusalPauseMax, refusalPauseMin<<min(ref.count-refusalsFree-1, 10))
			}
		}
		if r.GetFault() != nil {
			c.planning.wanted = true
			c.planning.lane.retryAt = c.now + retryPauseMax
		}
	}
}

// forgetRefusals drops those of jobs that are no longer pending.
func (p *planner) forgetRefusals(w *projection) {
	for id := range p.refused { // unordered: each entry is judged by itself
		if e := w.jobs[id]; e == nil || e.job.State != pb.JobState_JOB_STATE_PENDING {
			delete(p.refused, id)
		}
	}
}

// nextRetry gives the time at which the next paused job may be scheduled again; 0: none is.
func (p *planner) nextRetry() time.Duration {
	var at time.Duration
	for _, r := range p.refused { // unordered: the minimum is the same in any order
		if r.until > 0 && (at == 0 || r.until < at) {
			at = r.until
		}
	}
	return at
}
