package controller

import (
	"slices"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/forecast"
	"llmos/server/scheduler"
)

// planner decides when to schedule. One plan is in flight at a time, and the next pass
// runs only on a state that shows the last one.
type planner struct {
	lane     lane
	wanted   bool          // something changed since the last pass
	at       time.Duration // when time alone asks for a pass; 0: never
	cache    scheduler.Cache
	last     *scheduler.Plan // for Explain
	refused  map[string]*refusal
	refusals int           // plans in a row of which an eviction was refused
	work     forecast.Work // R = R0 + g*W: the time of a pass by the gangs it places
	passed   int           // gangs placed since Passed was asked
	ran      bool          // a pass ran since Passed was asked
	rest     time.Duration // no pass before: half of the time is for everything else
}

// passTarget bounds what one pass may hold up: submits and reports wait for it.
const passTarget = 50 * time.Millisecond

// gangsMax bounds the gangs of one plan before anything is known of their cost. gangsLeast
// is a plan's size however long a pass takes: where the part of it that does not grow with
// the plan is above the target by itself, smaller plans would only mean more passes.
const (
	gangsMax   = 1024
	gangsLeast = 256
)

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
	if p.at > 0 && p.at <= c.now {
		p.wanted = true
	}
	if !p.wanted || c.now < p.rest || !p.lane.ready(c, true) {
		return
	}
	p.wanted = false
	p.forgetRefusals(c.world, c.now)
	pending := c.pendingJobs()
	p.at = c.nextPass(len(pending) > 0)
	if len(pending) == 0 && !c.tends() {
		p.last = nil
		return
	}
	s := c.snapshot(pending)
	s.Sizes = c.sizes(s.Nodes, pending)
	plan := p.cache.Schedule(s, c.policy())
	p.ran = true
	p.last = plan
	p.passed += len(plan.Placements)
	p.wanted = plan.Truncated || (plan.Limited && plan.Changes())
	if apply := c.applyPlan(plan); apply != nil {
		c.propose(&p.lane, []*pb.Command{{Op: &pb.Command_ApplyPlan{ApplyPlan: apply}}})
	}
}

// tends says whether a pass has something to do though no job waits: elastic jobs that may
// grow, and reservations that somebody may be in the way of.
func (c *Controller) tends() bool {
	for range c.st.Reservations() {
		return true
	}
	return c.runsElastic()
}

func (c *Controller) runsElastic() bool {
	return slices.ContainsFunc(c.world.running, func(e *jobEntry) bool { return elasticSpec(e.job.GetSpec()) })
}

// nextPass gives when time alone calls for another pass: while jobs wait, since waits, run
// times and predictions grow; and when a reservation begins or ends. 0: it does not.
func (c *Controller) nextPass(waiting bool) (at time.Duration) {
	if waiting {
		at = c.now + c.cfg.PlanEvery
	}
	if every := c.elasticEvery(); every > 0 && c.runsElastic() {
		at = earlier(at, c.now+every)
	}
	nowMS := c.wallMS()
	for r := range c.st.Reservations() {
		for _, ms := range []int64{r.StartMs, r.EndMs} {
			if ms > nowMS {
				at = earlier(at, c.now+time.Duration(ms-nowMS)*time.Millisecond)
			}
		}
	}
	return at
}

// earlier gives the earlier of two times, of which 0 is never.
func earlier(a, b time.Duration) time.Duration {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// Passed says whether a pass ran since it was last asked, and how many gangs passes have
// placed. The caller times Ready and answers with PassTook, from which the size of a plan is
// fitted.
func (c *Controller) Passed() (gangs int, ran bool) {
	gangs, ran = c.planning.passed, c.planning.ran
	c.planning.passed, c.planning.ran = 0, false
	return gangs, ran
}

// Passes that take longer than restLeast are followed by as long a rest, up to restMost: on
// a busy cluster every change wants one, and reports and sessions must get their turn.
const (
	restLeast = 5 * time.Millisecond
	restMost  = time.Second
)

func (c *Controller) passTook(ev PassTook) {
	if ev.Gangs > 0 {
		c.planning.work.Observe(float64(ev.Gangs), ev.Took.Seconds())
	}
	if ev.Took > restLeast {
		c.planning.rest = c.now + min(ev.Took, restMost)
	}
}

// snapshot gives the scheduler everything that the state and this leader know.
func (c *Controller) snapshot(pending []scheduler.Job) scheduler.Snapshot {
	s := scheduler.Snapshot{NowMS: c.wallMS(), Nodes: c.world.snapshot(), Pending: pending,
		Running: make([]scheduler.Running, 0, len(c.world.running))}
	for _, e := range c.world.running {
		s.Running = append(s.Running, c.runningAt(e, s.NowMS))
	}
	for q := range c.st.Queues() {
		s.Queues = append(s.Queues, queueValue(q))
	}
	for r := range c.st.Reservations() {
		s.Reservations = append(s.Reservations, reservationValue(r))
	}
	s.Past = c.pastUsage(s.Nodes)
	s.Packing = c.learner.Prices(s.Nodes)
	c.rankJobs(&s)
	return s
}

// runningAt gives a live attempt as it stands at a time.
func (c *Controller) runningAt(e *jobEntry, nowMS int64) scheduler.Running {
	if e.stale {
		e.running, e.stale = runningValue(c.st, e.job, e.attempt), false
	}
	r := e.running
	r.CheckpointMS = e.job.SavedMs
	// Until a checkpoint is known, a job that promises one every so often is believed.
	if every := e.job.GetSpec().GetCheckpointEveryMs(); r.CheckpointMS == 0 && every > 0 && e.attempt.GetRunningMs() > 0 {
		since := nowMS - e.attempt.RunningMs
		r.CheckpointMS = e.attempt.RunningMs + since/every*every
	}
	c.predictRunning(e, &r, nowMS)
	return r
}

// applyPlan turns a plan into the command that commits it; nil when it changes nothing.
func (c *Controller) applyPlan(plan *scheduler.Plan) *pb.ApplyPlan {
	if !plan.Changes() {
		return nil
	}
	apply := &pb.ApplyPlan{Gangs: make([]*pb.GangPlacement, 0, len(plan.Placements))}
	for _, e := range plan.Evictions {
		apply.Evictions = append(apply.Evictions, &pb.Eviction{JobId: e.JobID, Epoch: e.Epoch, Kind: pb.EvictionKind(e.Kind),
			ForJob: e.For, Reason: e.Reason})
	}
	for _, n := range plan.Claims {
		apply.Claims = append(apply.Claims, &pb.SetClaim{JobId: n.JobID, Claim: claimRecord(n)})
	}
	for i := range plan.Placements {
		apply.Gangs = append(apply.Gangs, c.gang(&plan.Placements[i]))
	}
	return apply
}

func claimRecord(n scheduler.NewClaim) *pb.Claim {
	if n.Claim == nil {
		return nil
	}
	record := &pb.Claim{Kind: pb.ClaimKind(n.Claim.Kind), UntilMs: n.Claim.UntilMS, Counts: n.Claim.Counts, Reason: n.Reason}
	for _, s := range n.Claim.Slots {
		record.Slots = append(record.Slots, &pb.ClaimSlot{NodeId: s.NodeID, CpuMilli: s.CPU, MemoryBytes: s.Memory, Devices: grantRecords(s.Devices)})
	}
	return record
}

func grantRecords(grants []scheduler.Grant) []*pb.DeviceGrant {
	var records []*pb.DeviceGrant
	for _, d := range grants {
		records = append(records, &pb.DeviceGrant{DeviceId: d.DeviceID, ShareMilli: d.Share, MemoryBytes: d.Memory})
	}
	return records
}

// pendingJobs gives the pending jobs that may be scheduled now, with their wait.
func (c *Controller) pendingJobs() []scheduler.Job {
	nowMS := c.wallMS()
	jobs := make([]scheduler.Job, 0, len(c.world.pending))
	for _, e := range c.world.pending {
		if len(e.job.BlockedBy) > 0 {
			continue
		}
		if r := c.planning.refused[e.job.Id]; r != nil {
			if r.until > c.now {
				continue
			}
		}
		job := e.value
		job.Avoid = avoided(e.job, nowMS)
		job.WaitedMS = max(0, nowMS-max(e.job.SubmittedMs, e.job.ReadyMs))
		c.predictPending(e, &job)
		jobs = append(jobs, job)
	}
	return jobs
}

func (c *Controller) gang(p *scheduler.Placement) *pb.GangPlacement {
	g := &pb.GangPlacement{JobId: p.JobID, Epoch: c.world.jobs[p.JobID].job.Epoch + 1,
		Counts: p.Counts, Reason: p.Reason, Tasks: make([]*pb.TaskPlacement, 0, len(p.Tasks))}
	for i := range p.Tasks {
		g.Tasks = append(g.Tasks, &pb.TaskPlacement{NodeId: p.Tasks[i].NodeID, Ports: p.Tasks[i].Ports, Devices: grantRecords(p.Tasks[i].Devices)})
	}
	return g
}

// planDone counts refusals. A refused gang is planned again on the next state.
func (c *Controller) planDone(results []*pb.Result) {
	refused := false
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
		for _, f := range r.GetEvictions() {
			if f.GetKind() != pb.ErrorKind_ERROR_KIND_UNSPECIFIED {
				refused = true
			}
		}
	}
	if !refused {
		c.planning.refusals = 0
		return
	}
	// At once the first times. When it goes on, with the next change or when time asks: each
	// pass would propose the same.
	c.planning.refusals++
	c.planning.wanted = c.planning.wanted || c.planning.refusals <= refusalsFree
}

// forgetRefusals drops those of jobs that are no longer pending, and ends pauses.
func (p *planner) forgetRefusals(w *projection, now time.Duration) {
	for id, r := range p.refused { // unordered: each entry is judged by itself
		if r.until <= now {
			r.until = 0
		}
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
