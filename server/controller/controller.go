// Package controller is the leader's control loop as a step machine: events and ticks go
// in by Step and Tick, and Ready gives the effects to carry out, which are proposals for
// the log and messages to agents. It turns the replicated state into a scheduler snapshot,
// proposes the plan, tells each agent what should run on it, commits what agents report,
// and decides when a node is silent and when its tasks are lost.
//
// It does no I/O, starts no goroutine, reads no clock and does not log. Durations given as
// now are the leader's own monotonic time from any fixed origin. It is not safe for
// concurrent use: one goroutine of package server drives it while this server leads, and
// throws it away afterwards. Everything that must survive is in the state; the rest (who is
// connected, when a node was last heard) is learned anew by the next leader.
//
// At most one proposal of each lane is in flight: plans, reports, liveness, times, copies,
// housekeeping.
// A proposal that failed is made again after a pause from the state as it is then, so that
// it does not matter whether the failed one was applied.
package controller

import (
	"time"

	pb "llmos/proto/llmos/v1"

	"llmos/fsm/state"
	"llmos/server/scheduler"
	"llmos/server/scheduler/predict"
	"llmos/server/scheduler/rank"
)

// Config says how the control loop behaves. A zero field means its default.
type Config struct {
	LeaderID         string           // ID of this server
	ServerAddrs      func() []string  // addresses for agents to fall back to; nil: none
	HeartbeatEvery   time.Duration    // asked of agents; 1 s
	SilentAfter      time.Duration    // without a word from a node it gets no new work; 5 s
	DefaultLostAfter time.Duration    // for jobs that do not say; 60 s
	RetainJobs       time.Duration    // finished jobs are kept so long; 7 days
	RetainJobsMax    int              // and at most so many; 10,000
	RetainRequests   time.Duration    // idempotency keys are kept so long; 24 h
	CollectEvery     time.Duration    // between looks for what may be forgotten; 10 s
	VerifyEvery      time.Duration    // between comparisons of state hashes, while the log moves; 60 s
	PlanEvery        time.Duration    // between passes while jobs wait and nothing changes; 5 s
	VerifyEntries    uint64           // entries after which one is due at once; 1,000
	Policy           scheduler.Policy // what the replicated policy leaves open

	// Location finds a time zone by its IANA name. nil: cron jobs run by UTC.
	Location func(name string) (*time.Location, error)

	// AttemptKey derives the 32 bytes that the ranks of one attempt share. It must be a
	// pure function of its arguments and the cluster's secret. nil: no keys.
	AttemptKey func(jobID string, epoch uint64) []byte
}

func (c Config) withDefaults() Config {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.HeartbeatEvery, time.Second}, {&c.SilentAfter, 5 * time.Second}, {&c.DefaultLostAfter, time.Minute},
		{&c.RetainJobs, 7 * 24 * time.Hour}, {&c.RetainRequests, 24 * time.Hour},
		{&c.CollectEvery, 10 * time.Second}, {&c.VerifyEvery, time.Minute}, {&c.PlanEvery, 5 * time.Second},
	} {
		if *d.field <= 0 {
			*d.field = d.value
		}
	}
	if c.RetainJobsMax <= 0 {
		c.RetainJobsMax = 10_000
	}
	if c.VerifyEntries == 0 {
		c.VerifyEntries = 1000
	}
	return c
}

// Controller is the state of the loop. See New.
type Controller struct {
	cfg     Config
	st      *state.State
	stAt    time.Duration // when st arrived
	now     time.Duration
	fresh   bool // st has not been swept yet
	effects []Effect
	lastID  uint64

	world    *projection
	sessions map[string]*session // by node ID
	opening  []string            // node IDs of sessions that are not live yet, in order of arrival
	dirty    []string            // node IDs of sessions marked dirty

	planning  planner
	reports   reporter
	liveness  liveness
	house     housekeeping
	times     timekeeper
	copies    copies
	past      past
	sizing    sizing
	history   *predict.History  // of run times
	newcomers newcomers         // what it says of jobs that have not run
	ranks     rank.Ranker       // likewise, for the order by index
	learner   scheduler.Learner // of the mix of tasks
}

// New starts a control loop on a state of this server's term. Nodes count as heard at now:
// a new leader grants everyone SilentAfter to find it.
func New(cfg Config, st *state.State, now time.Duration) *Controller {
	c := &Controller{cfg: cfg.withDefaults(), st: st, stAt: now, now: now, fresh: true,
		world: newProjection(), sessions: map[string]*session{}, history: &predict.History{}}
	c.recall(st)
	c.planning.refused = map[string]*refusal{}
	c.liveness = liveness{started: now, scanAt: now, heard: map[string]time.Duration{}}
	c.house = housekeeping{verifiedAt: now, verified: st.Index(), quiet: st.Index(), collectAt: now + c.cfg.CollectEvery}
	return c
}

// Step takes one event in. Nothing is decided before Ready.
func (c *Controller) Step(ev Event, now time.Duration) {
	c.Tick(now)
	switch ev := ev.(type) {
	case StateChanged:
		if ev.State.Index() >= c.st.Index() && ev.State != c.st {
			c.st, c.stAt, c.fresh = ev.State, now, true
		}
	case SessionOpened:
		c.openSession(ev)
	case SessionClosed:
		if s := c.sessions[ev.NodeID]; s != nil && s.id == ev.Session {
			c.dropSession(s)
		}
	case Heard:
		c.hear(ev.NodeID)
	case InventoryChanged:
		c.hear(ev.NodeID)
		if s := c.sessions[ev.NodeID]; s != nil {
			c.reports.add(&report{node: ev.NodeID, session: s.id, kind: reportInventory, register: c.told(ev.Node)})
		}
	case ReportsArrived:
		c.hear(ev.NodeID)
		c.reportsArrived(ev)
	case PassTook:
		c.passTook(ev)
	case ProgressArrived:
		c.hear(ev.NodeID)
		c.observe(ev)
	case ProposalDone:
		c.proposalDone(ev)
	}
}

// Tick moves the loop's time. It never goes back. NextTick asks for one at least every
// SilentAfter, so that a gap well above that means that this process stood still.
func (c *Controller) Tick(now time.Duration) {
	if gap := now - c.now; gap > c.cfg.SilentAfter*3/2 {
		c.liveness.forgive(gap)
	}
	c.now = max(c.now, now)
}

// Ready decides what follows from everything taken in so far and gives the effects, in the
// order in which to carry them out. The caller owns the slice; records inside the messages
// belong to the state and must not be modified.
func (c *Controller) Ready() []Effect {
	c.catchUp()
	c.advanceSessions()
	c.dispatchDirty()
	c.keepCopies()
	c.plan()
	c.proposeReports()
	c.watchLiveness()
	c.keepTime()
	c.keepHouse()
	effects := c.effects
	c.effects = nil
	return effects
}

// catchUp brings what is kept beside the state up to it. Questions need it too: they may
// come between a state and Ready.
func (c *Controller) catchUp() {
	if c.fresh {
		c.fresh = false
		c.absorb(c.world.sweep(c.st))
	}
}

// NextTick gives the next time at which Tick and Ready are wanted even if nothing happens
// before; call it after Ready. What is due already waits for a proposal in flight, and its
// outcome is an event. ok is false when there is no such time.
func (c *Controller) NextTick() (at time.Duration, ok bool) {
	due := []time.Duration{c.liveness.scanAt, c.house.collectAt, c.planning.nextRetry(), c.planning.at,
		c.times.at, c.copies.next(),
		c.planning.lane.retryAt, c.reports.lane.retryAt, c.liveness.lane.retryAt, c.house.lane.retryAt, c.times.lane.retryAt, c.copies.lane.retryAt}
	if c.planning.wanted {
		due = append(due, c.planning.rest)
	}
	for _, t := range due {
		if t > c.now && (!ok || t < at) {
			at, ok = t, true
		}
	}
	return at, ok
}

// absorb marks what a sweep found changed.
func (c *Controller) absorb(found changes) {
	for _, id := range found.nodes {
		if s := c.sessions[id]; s != nil {
			c.markDirty(s)
		}
	}
	for _, id := range found.records {
		if c.st.Node(id) == nil {
			delete(c.liveness.heard, id)
		}
		c.liveness.scanAt = c.now
	}
	for _, e := range found.arrived {
		if e.job.State != pb.JobState_JOB_STATE_SCHEDULED && e.job.GetSpec().GetArray() == nil { // copies count, not what makes them
			c.learner.Arrive(&e.value)
		}
	}
	for _, id := range found.gone {
		j := c.st.Job(id)
		c.teach(j)
		if spec := j.GetSpec(); spec.GetArray() == nil && spec.GetCron() == nil { // as with what arrived
			c.learner.Leave(worldOf(spec))
		}
	}
	c.copies.stale = c.copies.stale || found.jobs || len(found.nodes) > 0
	switch {
	case found.opens || (found.jobs && c.world.nearsWait()):
		c.planning.wanted = true
	case found.jobs: // what has started since may be what time is to look at
		c.planning.at = earlier(c.planning.at, c.nextPass(len(c.world.pending) > 0))
	}
}

func worldOf(spec *pb.JobSpec) int {
	tasks := 0
	for _, r := range spec.GetRoles() {
		tasks += int(r.Count)
	}
	return tasks
}

func (c *Controller) send(s *session, m *pb.ServerMessage) {
	c.effects = append(c.effects, Send{NodeID: s.node, Session: s.id, Message: m})
}

// propose puts a proposal of the lane in flight.
func (c *Controller) propose(l *lane, commands []*pb.Command) {
	c.lastID++
	l.id = c.lastID
	c.effects = append(c.effects, Propose{ID: l.id, Commands: commands})
}

func (c *Controller) proposalDone(ev ProposalDone) {
	switch ev.ID {
	case c.planning.lane.id:
		if c.planning.lane.done(ev, c.now) {
			c.planDone(ev.Results)
			return
		}
		c.planning.wanted = true
	case c.reports.lane.id:
		c.reportsDone(ev, c.reports.lane.done(ev, c.now) && len(ev.Results) == c.reports.commands)
	case c.liveness.lane.id:
		c.liveness.lane.done(ev, c.now)
		c.liveness.scanAt = c.now
	case c.times.lane.id:
		c.times.done(c.times.lane.done(ev, c.now), ev.Results, c.now)
	case c.copies.lane.id:
		c.copies.lane.done(ev, c.now)
		c.copies.stale = true
	case c.house.lane.id:
		c.house.lane.done(ev, c.now)
		c.house.quiet = max(c.house.quiet, c.house.lane.after)
	}
}

// lane keeps one kind of proposal to one in flight.
type lane struct {
	id      uint64        // of the proposal in flight; 0: none
	after   uint64        // index of the last one that was applied
	retryAt time.Duration // none before this time
	fails   int           // in a row
}

// Pauses after a failed proposal.
const (
	retryPauseMin = 50 * time.Millisecond
	retryPauseMax = 2 * time.Second
)

// done ends the flight and says whether the proposal is known to have been applied.
func (l *lane) done(ev ProposalDone, now time.Duration) bool {
	l.id = 0
	if ev.Err != nil {
		l.retryAt = now + min(retryPauseMax, retryPauseMin<<min(l.fails, 10))
		l.fails++
		return false
	}
	l.fails, l.retryAt = 0, 0
	for _, r := range ev.Results {
		l.after = max(l.after, r.GetIndex())
	}
	return true
}

// ready says whether the lane may propose; with seen, only once the state shows the last
// proposal, for decisions that would otherwise be made twice.
func (l *lane) ready(c *Controller, seen bool) bool {
	return l.id == 0 && c.now >= l.retryAt && (!seen || c.st.Index() >= l.after)
}
