package server

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"llmos/fsm"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// quorum is a Raft whose answers a test scripts.
type quorum struct {
	leader   atomic.Bool
	term     atomic.Uint64
	commit   atomic.Uint64
	command  atomic.Uint64 // newest index whose entry is a command
	verifies atomic.Int32
	verify   func() error
}

func (q *quorum) IsLeader() bool      { return q.leader.Load() }
func (q *quorum) Term() uint64        { return q.term.Load() }
func (q *quorum) CommitIndex() uint64 { return q.commit.Load() }
func (q *quorum) Verify() error {
	q.verifies.Add(1)
	if q.verify != nil {
		return q.verify()
	}
	return nil
}
func (q *quorum) commandAtOrBelow(high, low uint64) (uint64, error) {
	return max(low, min(high, q.command.Load())), nil
}

func newReader() (*quorum, *fsm.FSM, *reader) {
	q, f := &quorum{}, fsm.New()
	q.leader.Store(true)
	q.term.Store(4)
	r := &reader{raft: q, fsm: f, notLeader: func() error { return fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "no") }}
	r.readyTerm.Store(4)
	return q, f, r
}

func apply(f *fsm.FSM, index uint64) {
	f.Apply(index, &pb.Entry{TimeMs: int64(index), Commands: []*pb.Command{{Op: &pb.Command_Collect{Collect: &pb.Collect{}}}}})
}

func TestReadRecipe(t *testing.T) {
	for _, row := range []struct {
		name string
		do   func(q *quorum, r *reader)
		want pb.ErrorKind
	}{
		{"all is well", func(*quorum, *reader) {}, pb.ErrorKind_ERROR_KIND_UNSPECIFIED},
		{"not the leader", func(q *quorum, _ *reader) { q.leader.Store(false) }, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
		{"no barrier in this term", func(_ *quorum, r *reader) { r.readyTerm.Store(3) }, pb.ErrorKind_ERROR_KIND_UNAVAILABLE},
		{"the quorum says no", func(q *quorum, _ *reader) { q.verify = func() error { return errors.New("no") } }, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
		{"another term meanwhile", func(q *quorum, _ *reader) { q.verify = func() error { q.term.Add(1); return nil } }, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
		{"lost meanwhile", func(q *quorum, _ *reader) { q.verify = func() error { q.leader.Store(false); return nil } }, pb.ErrorKind_ERROR_KIND_NOT_LEADER},
	} {
		q, f, r := newReader()
		apply(f, 1)
		q.commit.Store(1)
		row.do(q, r)
		s, err := r.Read(context.Background())
		if fault.Kind(err) != row.want || (err == nil) != (s != nil) {
			t.Errorf("%s: %v, want %v", row.name, err, row.want)
		}
	}
}

// TestReadWaitsForTheState has entries committed that the state machine has not applied.
func TestReadWaitsForTheState(t *testing.T) {
	q, f, r := newReader()
	apply(f, 1)
	q.commit.Store(5)
	q.command.Store(4) // 5 is a no-op, which the state never sees
	got := make(chan uint64, 1)
	go func() {
		s, err := r.Read(context.Background())
		if err != nil {
			t.Error(err)
			got <- 0
			return
		}
		got <- s.Index()
	}()
	for i := uint64(2); i <= 3; i++ {
		apply(f, i)
		select {
		case index := <-got:
			t.Fatalf("a read was answered from index %d, before 4", index)
		case <-time.After(5 * time.Millisecond):
		}
	}
	apply(f, 4)
	if index := <-got; index != 4 {
		t.Fatalf("the read was answered from index %d, want 4", index)
	}
	ctx, cancel := context.WithCancel(context.Background())
	q.commit.Store(9)
	q.command.Store(9)
	cancel()
	if _, err := r.Read(ctx); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_TIMEOUT {
		t.Errorf("a read that is given up: %v", err)
	}
}

// TestReadersShareQuestions holds the first question; all who come meanwhile share the second.
func TestReadersShareQuestions(t *testing.T) {
	const readers = 100
	q, f, r := newReader()
	apply(f, 1)
	q.commit.Store(1)
	hold := make(chan struct{})
	q.verify = func() error { <-hold; return nil }
	var wg sync.WaitGroup
	read := func() {
		defer wg.Done()
		if _, err := r.Read(context.Background()); err != nil {
			t.Error(err)
		}
	}
	wg.Add(1)
	go read()
	waitFor(t, func() bool { return q.verifies.Load() == 1 })
	var begun atomic.Int32
	for range readers {
		wg.Add(1)
		go func() { begun.Add(1); read() }()
	}
	waitFor(t, func() bool { return begun.Load() == readers })
	close(hold)
	wg.Wait()
	if n := q.verifies.Load(); n > 5 {
		t.Errorf("%d readers asked the quorum %d times", readers, n)
	}
}
