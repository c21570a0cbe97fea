package server

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"sync"
	"time"

	"llmos/fsm"
	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// Limits of leading.
const (
	tenureEventsMax  = 1024 // sessions' events that wait for the controller
	tenureDoneMax    = 1024 // outcomes of its proposals that wait
	dryRunsMax       = 1    // at a time: one takes as long as a pass over the whole cluster
	stepsMax         = 256  // events taken in before effects are carried out
	barrierWait      = 10 * time.Second
	barrierRetry     = 50 * time.Millisecond
	refusedDelay     = 20 * time.Millisecond // before the controller hears that a proposal was not even queued
	initClusterLimit = 10 * time.Second
	initClusterRetry = 200 * time.Millisecond
)

// tenure is one leadership of this server: from this term's barrier to its end. Its
// controller is used by one goroutine alone.
type tenure struct {
	server *Server
	term   uint64
	ctx    context.Context // ends with the leadership
	hub    *hub
	events chan controller.Event
	done   chan controller.ProposalDone
	asks   chan func(*controller.Controller)
	drying chan struct{} // holds one while a dry run works
	begun  time.Time

	ctl  *controller.Controller
	seen *state.State // newest that the controller was given
}

// leadership is the newest word of Raft, kept apart from the work it causes so that
// Raft's notifications are always drained.
type leadership struct {
	mu      sync.Mutex
	leading bool
	changes uint64
	wake    chan struct{}
}

// drain takes in Raft's notifications until ctx ends.
func (l *leadership) drain(ctx context.Context, notify <-chan bool) {
	for {
		select {
		case leading := <-notify:
			l.mu.Lock()
			l.leading = leading
			l.changes++
			l.mu.Unlock()
			select {
			case l.wake <- struct{}{}:
			default:
			}
		case <-ctx.Done():
			return
		}
	}
}

func (l *leadership) get() (leading bool, changes uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.leading, l.changes
}

// follow begins and ends tenures as Raft says. A leadership lost and regained while an
// old tenure was ending still gives a new tenure, with a new barrier.
func (s *Server) follow(ctx context.Context) {
	l := &leadership{wake: make(chan struct{}, 1)}
	var gone sync.WaitGroup
	gone.Add(1)
	go func() {
		defer gone.Done()
		l.drain(ctx, s.raft.notify)
	}()
	defer gone.Wait()
	var stop func()
	handled := uint64(0)
	for {
		leading, changes := l.get()
		if changes != handled {
			handled = changes
			if stop != nil {
				stop()
				stop = nil
			}
			if leading {
				stop = s.beginTenure(ctx)
			}
		}
		select {
		case <-l.wake:
		case <-ctx.Done():
			if stop != nil {
				stop()
			}
			return
		}
	}
}

// beginTenure starts leading in the background; the function it gives ends that and waits.
func (s *Server) beginTenure(parent context.Context) (stop func()) {
	ctx, cancel := context.WithCancel(parent)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		s.lead(ctx)
	}()
	return func() {
		cancel()
		<-ended
	}
}

// lead is one leadership: barrier, the cluster's first record, then the control loop.
func (s *Server) lead(ctx context.Context) {
	term := s.raft.Term()
	// The barrier comes first: until it, commands of earlier terms may not be applied here,
	// and nothing may be read or decided from the state.
	for s.raft.Barrier(barrierWait) != nil {
		if !s.raft.IsLeader() || !pause(ctx, barrierRetry) {
			return
		}
	}
	if s.raft.Term() != term || ctx.Err() != nil {
		return // lost, and perhaps regained: the notification that follows begins anew
	}
	for {
		err := s.initCluster(ctx)
		if err == nil {
			break
		}
		s.log.Error("the cluster's first record was not written", "err", err)
		if !s.raft.IsLeader() || !pause(ctx, initClusterRetry) {
			return
		}
	}
	t := &tenure{server: s, term: term, ctx: ctx, hub: newHub(), begun: time.Now(),
		events: make(chan controller.Event, tenureEventsMax), done: make(chan controller.ProposalDone, tenureDoneMax),
		asks: make(chan func(*controller.Controller)), drying: make(chan struct{}, dryRunsMax)}
	t.seen = s.fsm.State()
	t.ctl = controller.New(s.controllerConfig(), t.seen, 0)
	s.reads.readyTerm.Store(term)
	s.tenure.Store(t)
	s.log.Info("this server leads", "term", term, "index", t.seen.Index())
	t.loop()
	s.tenure.CompareAndSwap(t, nil)
	s.reads.readyTerm.CompareAndSwap(term, 0)
	s.log.Info("this server no longer leads", "term", term)
}

// initCluster writes the cluster's record when the state has none, after a bootstrap. A
// server that is alone raises the version of an older state to its own; one of several must
// not, since it does not know what the others can follow.
func (s *Server) initCluster(ctx context.Context) error {
	if cluster := s.fsm.State().Cluster(); cluster != nil {
		members, _, err := s.raft.Members()
		if err != nil || len(members) > 1 || cluster.StateVersion >= fsm.StateVersion {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, initClusterLimit)
	defer cancel()
	meta := &pb.ClusterMeta{ClusterId: s.home.id.ClusterID, Name: s.cfg.ClusterName, CreatedMs: time.Now().UnixMilli(), StateVersion: fsm.StateVersion}
	results, err := s.proposer.Propose(ctx, &pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{Meta: meta}}})
	if err != nil {
		return err
	}
	return fault.Of(results[0].Fault)
}

// attemptKey derives the secret that the ranks of one attempt share. Every leader derives
// the same, so it is in no log and no snapshot.
func (s *Server) attemptKey(jobID string, epoch uint64) []byte {
	mac := hmac.New(sha256.New, s.home.taskSecret)
	mac.Write([]byte(jobID))
	mac.Write([]byte{0})
	mac.Write(binary.LittleEndian.AppendUint64(nil, epoch))
	return mac.Sum(nil)
}

// loop runs the controller until the leadership ends. It waits for nothing but news: a
// submit's commit wakes it, and the plan is proposed in the same round.
func (t *tenure) loop() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		changed := t.server.fsm.Changed()
		t.refresh()
		t.perform(t.decide())
		var tick <-chan time.Time
		if at, ok := t.ctl.NextTick(); ok {
			timer.Reset(max(at-t.now(), 0))
			tick = timer.C
		}
		select {
		case <-changed:
		case ev := <-t.events:
			t.step(ev)
		case d := <-t.done:
			t.step(d)
		case ask := <-t.asks:
			t.refresh() // who asks has seen the newest state
			t.ctl.Tick(t.now())
			ask(t.ctl)
		case <-tick:
			t.ctl.Tick(t.now())
		case <-t.ctx.Done():
			return
		}
		t.stepWaiting()
	}
}

// decide runs the controller and tells it what a pass of the scheduler cost.
func (t *tenure) decide() []controller.Effect {
	began := time.Now()
	effects := t.ctl.Ready()
	if gangs, ran := t.ctl.Passed(); ran {
		t.ctl.Step(controller.PassTook{Gangs: gangs, Took: time.Since(began)}, t.now())
	}
	return effects
}

// stepWaiting takes in what else has come, up to a bound.
func (t *tenure) stepWaiting() {
	for range stepsMax {
		select {
		case ev := <-t.events:
			t.step(ev)
		case d := <-t.done:
			t.step(d)
		default:
			return
		}
	}
}

// now is the leader's own monotonic clock.
func (t *tenure) now() time.Duration { return time.Since(t.begun) }

// step gives the controller one event, and before it the state that the event followed.
func (t *tenure) step(ev controller.Event) {
	t.refresh()
	t.ctl.Step(ev, t.now())
}

// refresh gives the controller the newest state; many commits since the last time are one change.
func (t *tenure) refresh() {
	s := t.server.fsm.State()
	if s == t.seen {
		return
	}
	t.seen = s
	t.ctl.Step(controller.StateChanged{State: s}, t.now())
}

// perform carries out the controller's effects in order. It never blocks.
func (t *tenure) perform(effects []controller.Effect) {
	for _, e := range effects {
		switch e := e.(type) {
		case controller.Propose:
			t.propose(e)
		case controller.Send:
			t.hub.send(e.NodeID, e.Session, e.Message)
		case controller.CloseSession:
			t.hub.end(e.NodeID, e.Session, fault.Of(e.Fault))
		}
	}
}

func (t *tenure) propose(e controller.Propose) {
	report := func(results []*pb.Result, err error) {
		select {
		case t.done <- controller.ProposalDone{ID: e.ID, Results: results, Err: err}:
		case <-t.ctx.Done():
		}
	}
	if _, err := t.server.proposer.Enqueue(e.Commands, report); err != nil {
		// Not at once: a controller that tries again would otherwise spin.
		time.AfterFunc(refusedDelay, func() { report(nil, err) })
	}
}

// post gives the controller an event; false when the leadership or ctx ended first.
func (t *tenure) post(ctx context.Context, ev controller.Event) bool {
	select {
	case t.events <- ev:
		return true
	case <-t.ctx.Done():
	case <-ctx.Done():
	}
	return false
}

// ask runs f on the controller's goroutine and waits; false when the leadership ended first.
func (t *tenure) ask(f func(*controller.Controller)) bool {
	done := make(chan struct{})
	select {
	case t.asks <- func(c *controller.Controller) { f(c); close(done) }:
		<-done
		return true
	case <-t.ctx.Done():
		return false
	}
}

// pause waits for d; false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
