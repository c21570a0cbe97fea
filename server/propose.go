package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Limits of proposing.
const (
	entryCommandsMax   = 512       // commands that share one log entry
	entryBytesMax      = 512 << 10 // after which no further proposal joins an entry
	proposalBytesMax   = 8 << 20   // one proposal, which is never divided
	proposalsQueuedMax = 4096
	queuedBytesMax     = 64 << 20
	entriesInFlightMax = 4 // entries given to Raft and not yet applied; more only makes batches smaller
)

// applier is what the proposer needs of Raft.
type applier interface {
	Apply(data []byte) pendingApply
	IsLeader() bool
	Term() uint64
}

// proposer gathers the commands of many callers into few log entries: while entries are
// on their way to disk, what arrives waits and shares the next one. Every proposal ends
// in one of three ways: results, surely not applied, or unknown.
type proposer struct {
	raft      applier
	id        string
	now       func() time.Time
	notLeader func() error // the fault that names the leader

	mu     sync.RWMutex // held for reading while a proposal is queued
	closed bool
	queue  chan *proposal
	bytes  atomic.Int64

	slots   chan struct{} // one for each entry in flight
	flights chan flight
	stop    chan struct{}
	ended   sync.WaitGroup
}

// States of a proposal. It is claimed by the batcher or abandoned by its caller, never both.
const (
	proposalWaiting int32 = iota
	proposalClaimed
	proposalAbandoned
)

type proposal struct {
	commands []*pb.Command
	bytes    int
	term     uint64 // in which it was queued
	state    atomic.Int32
	done     func([]*pb.Result, error) // called once unless abandoned; must not block
}

// flight is an entry that Raft has been given, with the proposals in it.
type flight struct {
	pending   pendingApply
	proposals []*proposal
}

func newProposer(raft applier, id string, now func() time.Time, notLeader func() error) *proposer {
	p := &proposer{raft: raft, id: id, now: now, notLeader: notLeader,
		queue: make(chan *proposal, proposalsQueuedMax), slots: make(chan struct{}, entriesInFlightMax),
		flights: make(chan flight, entriesInFlightMax), stop: make(chan struct{})}
	p.ended.Add(2)
	go p.batch()
	go p.settle()
	return p
}

// Propose replicates the commands as part of one entry, in order, and gives a result for
// each. Errors are faults: NOT_LEADER, UNAVAILABLE, LIMIT and INVALID say that nothing was
// applied, UNKNOWN that it may have been. It returns when ctx ends, whatever Raft does.
func (p *proposer) Propose(ctx context.Context, commands ...*pb.Command) ([]*pb.Result, error) {
	type outcome struct {
		results []*pb.Result
		err     error
	}
	ch := make(chan outcome, 1)
	pr, err := p.Enqueue(commands, func(r []*pb.Result, err error) { ch <- outcome{r, err} })
	if err != nil {
		return nil, err
	}
	select {
	case o := <-ch:
		return o.results, o.err
	case <-ctx.Done():
	}
	if pr.state.CompareAndSwap(proposalWaiting, proposalAbandoned) {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "the write was given up before it was proposed: %w", context.Cause(ctx)).
			Hint("it was not applied; try again")
	}
	select {
	case o := <-ch:
		return o.results, o.err
	default:
		return nil, unknownFault(context.Cause(ctx))
	}
}

// Enqueue queues the commands and calls done with the outcome later, from another
// goroutine. An error says that they were not queued and done will not be called. Order
// of Enqueue calls of one goroutine is order in the log.
func (p *proposer) Enqueue(commands []*pb.Command, done func([]*pb.Result, error)) (*proposal, error) {
	pr := &proposal{commands: commands, done: done, term: p.raft.Term()}
	for _, c := range commands {
		if c.GetOp() == nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a command without an operation was proposed")
		}
		pr.bytes += proto.Size(c)
	}
	if len(commands) == 0 || pr.bytes > proposalBytesMax {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "a write of %d commands and %d bytes was proposed; 1 command or more and at most %d bytes are possible",
			len(commands), pr.bytes, proposalBytesMax)
	}
	if !p.raft.IsLeader() {
		return nil, p.notLeader()
	}
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return nil, stoppingFault()
	}
	if p.bytes.Add(int64(pr.bytes)) > queuedBytesMax {
		p.bytes.Add(-int64(pr.bytes))
		return nil, queueFault()
	}
	select {
	case p.queue <- pr:
		return pr, nil
	default:
		p.bytes.Add(-int64(pr.bytes))
		return nil, queueFault()
	}
}

// batch fills entries and hands them to Raft until Close.
func (p *proposer) batch() {
	defer p.ended.Done()
	defer close(p.flights)
	var next *proposal // did not fit into the entry before
	for {
		// The slot comes first: what arrives while all entries are in flight shares the next one.
		select {
		case p.slots <- struct{}{}:
		case <-p.stop:
			p.drain(next)
			return
		}
		if next == nil {
			select {
			case next = <-p.queue:
			case <-p.stop:
				p.drain(nil)
				return
			}
		}
		var taken []*proposal
		taken, next = p.gather(next)
		if len(taken) == 0 {
			<-p.slots
			continue
		}
		p.launch(taken)
	}
}

// gather claims proposals, beginning with first, until the entry is full or none waits.
// rest is one that did not fit. What was queued in an earlier term is refused: it was
// decided on a state that another leader may have left behind since.
func (p *proposer) gather(first *proposal) (taken []*proposal, rest *proposal) {
	commands, bytes, term := 0, 0, p.raft.Term()
	for pr := first; pr != nil; {
		full := commands > 0 && (commands+len(pr.commands) > entryCommandsMax || bytes+pr.bytes > entryBytesMax)
		if full {
			return taken, pr
		}
		p.bytes.Add(-int64(pr.bytes))
		claimed := pr.state.CompareAndSwap(proposalWaiting, proposalClaimed)
		if claimed && pr.term != term {
			pr.done(nil, p.notLeader())
		} else if claimed {
			taken = append(taken, pr)
			commands, bytes = commands+len(pr.commands), bytes+pr.bytes
		}
		select {
		case pr = <-p.queue:
		default:
			pr = nil
		}
	}
	return taken, nil
}

func (p *proposer) launch(taken []*proposal) {
	entry := &pb.Entry{TimeMs: p.now().UnixMilli(), Proposer: p.id}
	for _, pr := range taken {
		entry.Commands = append(entry.Commands, pr.commands...)
	}
	data, err := proto.Marshal(entry)
	if err != nil && len(taken) > 1 { // one of them cannot be encoded: let it fail alone
		for _, pr := range taken {
			p.launch([]*proposal{pr})
			p.slots <- struct{}{}
		}
		<-p.slots
		return
	}
	if err != nil {
		taken[0].done(nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "encode the write: %w", err))
		<-p.slots
		return
	}
	p.flights <- flight{pending: p.raft.Apply(data), proposals: taken}
}

// settle waits for entries in order and splits their results among the proposals.
func (p *proposer) settle() {
	defer p.ended.Done()
	for f := range p.flights {
		out, err := f.pending.Wait()
		<-p.slots
		p.split(f.proposals, out, err)
	}
}

func (p *proposer) split(proposals []*proposal, out applied, err error) {
	want := 0
	for _, pr := range proposals {
		want += len(pr.commands)
	}
	if err == nil && len(out.results) != want {
		err = fmt.Errorf("%w: %d commands gave %d results", errUnknown, want, len(out.results))
	}
	if err != nil {
		err = p.applyFault(err)
		for _, pr := range proposals {
			pr.done(nil, err)
		}
		return
	}
	results := out.results
	for _, pr := range proposals {
		n := len(pr.commands)
		pr.done(results[:n:n], nil)
		results = results[n:]
	}
}

// applyFault tells an outcome to the caller; see classify.
func (p *proposer) applyFault(err error) error {
	if !errors.Is(err, errNotApplied) {
		return unknownFault(err)
	}
	if !p.raft.IsLeader() {
		return p.notLeader()
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "the leader could not take the write: %w", err).Hint("it was not applied; try again")
}

// drain answers what will never be proposed.
func (p *proposer) drain(next *proposal) {
	for {
		if next != nil && next.state.CompareAndSwap(proposalWaiting, proposalClaimed) {
			next.done(nil, stoppingFault())
		}
		select {
		case next = <-p.queue:
		default:
			return
		}
	}
}

// Stop takes no further proposals and answers those that wait; entries in flight go on.
func (p *proposer) Stop() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.stop)
	}
}

// Wait blocks until every proposal has its outcome; after Stop and the end of Raft.
func (p *proposer) Wait() { p.ended.Wait() }

func unknownFault(cause error) error {
	var f *fault.Error
	if errors.As(cause, &f) { // its hint is for the operator, not for this caller
		cause = errors.New(f.Fault.Message)
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_UNKNOWN, "the outcome of the write is not known: %w", cause).
		Hint("it may or may not be applied; try again with the same request ID")
}

func queueFault() error {
	return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the leader has too many writes waiting").Hint("it was not applied; try again in a moment")
}

func stoppingFault() error {
	return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "this server is stopping").Hint("it was not applied; try another server")
}
