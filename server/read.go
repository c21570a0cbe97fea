package server

import (
	"context"
	"sync"
	"sync/atomic"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// readRaft is what a linearizable read needs of Raft.
type readRaft interface {
	IsLeader() bool
	Term() uint64
	CommitIndex() uint64
	Verify() error
	commandAtOrBelow(high, low uint64) (uint64, error)
}

// readState is what it needs of the state machine.
type readState interface {
	State() *state.State
	Changed() <-chan struct{}
}

// reader gives linearizable reads. Asking a quorum alone is not enough: a new leader may
// not have applied what earlier leaders committed, and what was handed to the state
// machine may not be applied yet. The full recipe: this term's barrier is done; the read
// index is the commit index; a quorum confirms the leadership after that; the state has
// applied the read index; the term is still the same. Readers that come while a quorum is
// being asked share the next question.
type reader struct {
	raft      readRaft
	fsm       readState
	notLeader func() error
	readyTerm atomic.Uint64 // term whose barrier is done on this leader; 0: none
	drained   atomic.Uint64 // commit index up to which the state machine is known to be done

	mu      sync.Mutex
	running bool
	next    *readRound // readers that wait for the next question
}

// readRound is one question to the quorum, shared by every reader that came before it.
type readRound struct {
	done  chan struct{}
	term  uint64
	index uint64 // commit index when the question began
	err   error
}

// Read gives a state that holds every write acknowledged before the call.
func (r *reader) Read(ctx context.Context) (*state.State, error) {
	round := r.join()
	select {
	case <-round.done:
	case <-ctx.Done():
		return nil, readFault(ctx)
	}
	if round.err != nil {
		return nil, round.err
	}
	s, err := r.await(ctx, round.index)
	if err != nil {
		return nil, err
	}
	if r.raft.Term() != round.term || !r.raft.IsLeader() {
		return nil, r.notLeader()
	}
	return s, nil
}

// join enters the next round and starts it when none is running.
func (r *reader) join() *readRound {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.next == nil {
		r.next = &readRound{done: make(chan struct{})}
	}
	round := r.next
	if !r.running {
		r.running = true
		go r.rounds()
	}
	return round
}

// rounds runs rounds until nobody waits.
func (r *reader) rounds() {
	for {
		r.mu.Lock()
		round := r.next
		r.next = nil
		if round == nil {
			r.running = false
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.ask(round)
		close(round.done)
	}
}

func (r *reader) ask(round *readRound) {
	round.term = r.raft.Term()
	if !r.raft.IsLeader() {
		round.err = r.notLeader()
		return
	}
	if r.readyTerm.Load() != round.term {
		round.err = fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "this server has just become the leader and is not ready to answer").Hint("try again in a moment")
		return
	}
	round.index = r.raft.CommitIndex()
	if err := r.raft.Verify(); err != nil {
		round.err = r.notLeader()
	}
}

// await waits until the state has applied every command up to the commit index.
func (r *reader) await(ctx context.Context, index uint64) (*state.State, error) {
	for {
		changed := r.fsm.Changed()
		s := r.fsm.State()
		if index <= r.drained.Load() || s.Index() >= index {
			return s, nil
		}
		target, err := r.raft.commandAtOrBelow(index, s.Index())
		if err != nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "read the log to wait for the state: %w", err)
		}
		if target <= s.Index() {
			raise(&r.drained, index)
			return s, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, readFault(ctx)
		}
	}
}

// raise sets v to at least to.
func raise(v *atomic.Uint64, to uint64) {
	for old := v.Load(); old < to; old = v.Load() {
		if v.CompareAndSwap(old, to) {
			return
		}
	}
}

func readFault(ctx context.Context) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_TIMEOUT, "the read was given up before the servers agreed: %w", context.Cause(ctx)).
		Hint("try again, or read a possibly older state with --stale")
}
