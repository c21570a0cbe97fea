package server

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// script is a Raft that answers as it is told.
type script struct {
	leader  atomic.Bool
	term    atomic.Uint64
	index   atomic.Uint64
	mu      sync.Mutex
	entries []*pb.Entry
	answer  func(e *pb.Entry) error // nil error: applied
	hold    chan struct{}           // when set, Wait blocks until it is closed
}

type scripted struct {
	s     *script
	entry *pb.Entry
	index uint64
}

func (s *script) IsLeader() bool { return s.leader.Load() }

func (s *script) Term() uint64 { return s.term.Load() }

func (s *script) Apply(data []byte) pendingApply {
	e := &pb.Entry{}
	if err := proto.Unmarshal(data, e); err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries = append(s.entries, e)
	return scripted{s, e, s.index.Add(1)}
}

func (p scripted) Wait() (applied, error) {
	if p.s.hold != nil {
		<-p.s.hold
	}
	if p.s.answer != nil {
		if err := p.s.answer(p.entry); err != nil {
			return applied{}, classify(err)
		}
	}
	out := applied{index: p.index}
	for _, c := range p.entry.Commands {
		out.results = append(out.results, &pb.Result{Index: p.index, JobId: c.GetStopJob().GetJobId()})
	}
	return out, nil
}

func stop(id string) *pb.Command {
	return &pb.Command{Op: &pb.Command_StopJob{StopJob: &pb.StopJob{JobId: id}}}
}

func newScript(t *testing.T) (*script, *proposer) {
	s := &script{}
	s.leader.Store(true)
	p := newProposer(s, "s-1", func() time.Time { return time.UnixMilli(1234) }, func() error {
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "not the leader")
	})
	t.Cleanup(func() { p.Stop(); p.Wait() })
	return s, p
}

// TestOutcomes is the table of RELIABILITY.md B1: only what is surely not in the log is
// told as not applied.
func TestOutcomes(t *testing.T) {
	for _, row := range []struct {
		err    error
		leader bool // afterwards
		want   pb.ErrorKind
	}{
		{nil, true, pb.ErrorKind_ERROR_KIND_UNSPECIFIED},
		{raft.ErrNotLeader, false, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
		{raft.ErrNotLeader, true, pb.ErrorKind_ERROR_KIND_UNAVAILABLE},
		{raft.ErrLeadershipTransferInProgress, true, pb.ErrorKind_ERROR_KIND_UNAVAILABLE},
		{raft.ErrLeadershipTransferInProgress, false, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
		{raft.ErrEnqueueTimeout, true, pb.ErrorKind_ERROR_KIND_UNAVAILABLE},
		{raft.ErrLeadershipLost, false, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{raft.ErrLeadershipLost, true, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{raft.ErrRaftShutdown, false, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{raft.ErrAbortedByRestore, true, pb.ErrorKind_ERROR_KIND_UNKNOWN},
		{errors.New("disk says no"), true, pb.ErrorKind_ERROR_KIND_UNKNOWN},
	} {
		t.Run(fmt.Sprintf("%v/leader=%v", row.err, row.leader), func(t *testing.T) {
			s, p := newScript(t)
			s.answer = func(*pb.Entry) error {
				s.leader.Store(row.leader)
				return row.err
			}
			results, err := p.Propose(context.Background(), stop("a"))
			if fault.Kind(err) != row.want {
				t.Fatalf("kind %v (%v), want %v", fault.Kind(err), err, row.want)
			}
			if err == nil && (len(results) != 1 || results[0].JobId != "a") {
				t.Fatalf("results %v", results)
			}
		})
	}
}

func TestManyProposalsShareEntries(t *testing.T) {
	const callers = 400
	s, p := newScript(t)
	s.hold = make(chan struct{})
	var wg sync.WaitGroup
	var queued sync.WaitGroup
	for i := range callers {
		wg.Add(1)
		queued.Add(1)
		go func() {
			defer wg.Done()
			ids := []string{fmt.Sprintf("a%d", i), fmt.Sprintf("b%d", i)}
			done := make(chan error, 1)
			_, err := p.Enqueue([]*pb.Command{stop(ids[0]), stop(ids[1])}, func(r []*pb.Result, err error) {
				if err == nil && (len(r) != 2 || r[0].JobId != ids[0] || r[1].JobId != ids[1] || r[0].Index != r[1].Index) {
					err = fmt.Errorf("results of %v are %v", ids, r)
				}
				done <- err
			})
			queued.Done()
			if err == nil {
				err = <-done
			}
			if err != nil {
				t.Error(err)
			}
		}()
	}
	queued.Wait()
	close(s.hold)
	wg.Wait()
	// While the first entries are held, the others gather: far fewer entries than callers.
	if n := len(s.entries); n > entriesInFlightMax+2*callers*2/entryCommandsMax+2 {
		t.Errorf("%d proposals made %d entries", callers, n)
	}
	total := 0
	for _, e := range s.entries {
		total += len(e.Commands)
		if len(e.Commands) > entryCommandsMax {
			t.Errorf("an entry has %d commands", len(e.Commands))
		}
		if e.TimeMs != 1234 || e.Proposer != "s-1" {
			t.Errorf("an entry is stamped %d by %q", e.TimeMs, e.Proposer)
		}
	}
	if total != 2*callers {
		t.Errorf("%d commands were proposed, want %d", total, 2*callers)
	}
}

func TestContextEnds(t *testing.T) {
	s, p := newScript(t)
	s.hold = make(chan struct{})
	ctx, cancel := context.WithCancel(context.Background())
	type outcome struct {
		i   int
		err error
	}
	ch := make(chan outcome)
	propose := func(i int) {
		_, err := p.Propose(ctx, stop("x"))
		ch <- outcome{i, err}
	}
	// These fill every slot, one entry each, because each waits for the one before to be handed over.
	for i := range entriesInFlightMax {
		go propose(i)
		waitFor(t, func() bool { s.mu.Lock(); defer s.mu.Unlock(); return len(s.entries) == i+1 })
	}
	go propose(100)
	waitFor(t, func() bool { return len(p.queue) == 1 })
	cancel()
	for range entriesInFlightMax + 1 {
		o := <-ch
		want := pb.ErrorKind_ERROR_KIND_UNKNOWN
		if o.i == 100 {
			want = pb.ErrorKind_ERROR_KIND_UNAVAILABLE
		}
		if fault.Kind(o.err) != want {
			t.Errorf("proposal %d: %v, want %v", o.i, o.err, want)
		}
	}
	close(s.hold)
	if _, err := p.Propose(context.Background(), stop("last")); err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.entries); n != entriesInFlightMax+1 {
		t.Errorf("%d entries were proposed: the one given up in the queue must not be", n)
	}
}

func TestProposalBounds(t *testing.T) {
	s, p := newScript(t)
	big := stop(strings.Repeat("x", proposalBytesMax))
	for name, row := range map[string]struct {
		cmds []*pb.Command
		want pb.ErrorKind
	}{
		"none":      {nil, pb.ErrorKind_ERROR_KIND_LIMIT},
		"too large": {[]*pb.Command{big}, pb.ErrorKind_ERROR_KIND_LIMIT},
		"empty":     {[]*pb.Command{{}}, pb.ErrorKind_ERROR_KIND_INVALID},
		"no text":   {[]*pb.Command{stop("\xff")}, pb.ErrorKind_ERROR_KIND_INVALID},
	} {
		if _, err := p.Propose(context.Background(), row.cmds...); fault.Kind(err) != row.want {
			t.Errorf("%s: %v, want %v", name, err, row.want)
		}
	}
	s.hold = make(chan struct{})
	refused := false
	for range proposalsQueuedMax + 2*entryCommandsMax*(entriesInFlightMax+2) {
		if _, err := p.Enqueue([]*pb.Command{stop("a")}, func([]*pb.Result, error) {}); err != nil {
			refused = fault.Kind(err) == pb.ErrorKind_ERROR_KIND_LIMIT
			break
		}
	}
	if !refused {
		t.Error("the queue has no end")
	}
	close(s.hold)
	p.Stop()
	if _, err := p.Propose(context.Background(), stop("a")); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
		t.Errorf("after Stop: %v", err)
	}
}

// waitFor polls a condition that another goroutine brings about.
func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(20 * time.Second)
	for !condition() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal("waited too long")
		}
	}
}

// TestQueueDoesNotOutliveTheTerm keeps a proposal waiting while another leadership comes
// and goes. What was decided before it must not be proposed after it.
func TestQueueDoesNotOutliveTheTerm(t *testing.T) {
	s, p := newScript(t)
	s.hold = make(chan struct{})
	first := make(chan error, entriesInFlightMax)
	for i := range entriesInFlightMax {
		if _, err := p.Enqueue([]*pb.Command{stop("a")}, func(_ []*pb.Result, err error) { first <- err }); err != nil {
			t.Fatal(err)
		}
		waitFor(t, func() bool { return s.index.Load() == uint64(i+1) })
	}
	late := make(chan error, 1)
	if _, err := p.Enqueue([]*pb.Command{stop("b")}, func(_ []*pb.Result, err error) { late <- err }); err != nil {
		t.Fatal(err)
	}
	s.term.Add(2) // lost, another's, and won again
	close(s.hold)
	for range entriesInFlightMax {
		if err := <-first; err != nil {
			t.Error(err)
		}
	}
	if err := <-late; fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_LEADER {
		t.Errorf("a command of an earlier term: %v", err)
	}
	if _, err := p.Propose(context.Background(), stop("c")); err != nil {
		t.Errorf("a command of this term: %v", err)
	}
}
