// Package fsm is the replicated state machine: Apply takes the next entry of the log and makes
// the next state. It is a pure function of the state and the entry: no clock, no randomness, no
// I/O. Time and identifiers come in with the command. It holds the life of jobs and their copies,
// attempts, tasks and nodes, who waits for whom, the queue tree, reservations, the scheduling policy
// and what was used; the tables and the ledger are package state's.
//
// It does not order entries, store them or send anything: server does, and wakes by Changed.
// Apply and Restore are called from one goroutine, Raft's; everything else from any.
package fsm

import (
	"errors"
	"fmt"
	"sync"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// HashRingLen is how many of the last applied indexes have their state hash kept.
const HashRingLen = 4096

// ErrDiverged is wrapped by everything that Diverged gives.
var ErrDiverged = errors.New("the state of this server cannot follow the log")

// FSM is the state machine with its present state.
type FSM struct {
	mu       sync.Mutex
	state    *state.State
	changed  chan struct{}
	diverged error
	ring     [HashRingLen]hashAt
}

type hashAt struct {
	index uint64
	hash  [32]byte
	set   bool
}

// New gives a state machine with the empty state.
func New() *FSM {
	f := &FSM{state: state.New(), changed: make(chan struct{})}
	f.remember(f.state)
	return f
}

// State gives the newest committed state.
func (f *FSM) State() *state.State {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.state
}

// Changed gives a channel that is closed when a later state than the present one is committed.
// To miss nothing, take the channel first and the state afterwards.
func (f *FSM) Changed() <-chan struct{} {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed
}

// HashAt gives the state hash after the entry at index, if it is among the last HashRingLen.
func (f *FSM) HashAt(index uint64) ([32]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := &f.ring[index%HashRingLen]
	if !at.set || at.index != index {
		return [32]byte{}, false
	}
	return at.hash, true
}

// Diverged gives why the state must not be used any more; nil while all is well. From the
// entry that caused it on, Apply applies nothing: the server ends, and keeps its data.
func (f *FSM) Diverged() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.diverged
}

// Apply applies the entry at index and gives one result for each command, in order. Each
// command is applied whole or refused with a fault, and a refused command leaves no trace.
// The new state is committed once, after the last command and a bounded part of what ends and
// stops of jobs have still to bring about for others. The entry belongs to the state
// afterwards and must not be modified.
//
// An entry that cannot be applied, because it holds a command that this version does not know
// or does not follow on the last one, is not skipped: see Diverged.
func (f *FSM) Apply(index uint64, entry *pb.Entry) []*pb.Result {
	now := f.State()
	err := f.Diverged()
	if err == nil {
		err = applicable(now, index, entry)
	}
	if err != nil {
		return f.halt(index, entry, err)
	}
	txn := now.Begin(index, min(entry.GetTimeMs(), timeMSMax))
	a := &applier{fsm: f, txn: txn}
	results := make([]*pb.Result, len(entry.GetCommands()))
	for i, c := range entry.GetCommands() {
		results[i] = a.apply(c)
	}
	a.settle()
	f.publish(txn.Commit())
	txn.Notify()
	if a.diverged != nil {
		f.setDiverged(a.diverged)
	}
	return results
}

// Restore replaces the state with one from a snapshot, and wakes everybody who watches. The
// state may be in use elsewhere: watches of it are not watches of this machine.
func (f *FSM) Restore(s *state.State) {
	f.mu.Lock()
	old := f.state
	f.ring = [HashRingLen]hashAt{}
	f.diverged = nil
	f.mu.Unlock()
	f.publish(s.WithOwnWatches())
	old.Abandon()
}

func applicable(now *state.State, index uint64, entry *pb.Entry) error {
	if index <= now.Index() {
		return fmt.Errorf("%w: entry %d comes after entry %d", ErrDiverged, index, now.Index())
	}
	for i, c := range entry.GetCommands() {
		if c.GetOp() == nil {
			return fmt.Errorf("%w: command %d of entry %d is of a kind that this version does not know", ErrDiverged, i, index)
		}
	}
	return nil
}

func (f *FSM) halt(index uint64, entry *pb.Entry, err error) []*pb.Result {
	f.setDiverged(err)
	results := make([]*pb.Result, len(entry.GetCommands()))
	for i := range results {
		results[i] = &pb.Result{Index: index, Fault: state.Refuse(pb.ErrorKind_ERROR_KIND_INTERNAL,
			"this server has stopped; its log says what to do, and the other servers have the data", "%v", err)}
	}
	return results
}

func (f *FSM) setDiverged(err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.diverged == nil {
		f.diverged = err
	}
}

func (f *FSM) publish(s *state.State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.state = s
	f.remember(s)
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *FSM) remember(s *state.State) {
	f.ring[s.Index()%HashRingLen] = hashAt{index: s.Index(), hash: s.Hash(), set: true}
}
