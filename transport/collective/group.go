package collective

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// lingerMax bounds how long the end of a group waits for the others to hear of it.
const lingerMax = time.Second

// ErrBusy is returned to a call that overlaps another one of the same group. The first call
// goes on unharmed.
var ErrBusy = errors.New("another collective is running in this group: calls must come one after the other")

// ErrClosed is returned by calls after Close.
var ErrClosed = errors.New("the group is closed")

// Group is one rank's membership in the group of an attempt. Collectives are called one at a
// time and in the same order on every rank. After a call has failed, every later call
// returns the same error.
type Group struct {
	cfg   Config
	links []*link // by rank; nil for this one
	busy  atomic.Bool
	ended sync.Once // the links are given up once

	// The calls take turns by busy; these belong to the one that holds it.
	seq    uint32
	broken error
	closed bool
	recv   [][]float32 // by rank: its parts of this rank's slice; kept between calls
}

func newGroup(c Config) *Group {
	return &Group{cfg: c, links: make([]*link, c.World), recv: make([][]float32, c.World)}
}

// Rank is this rank, from 0.
func (g *Group) Rank() int { return g.cfg.Rank }

// Size is the number of ranks.
func (g *Group) Size() int { return g.cfg.World }

// Close leaves the group. It waits up to a second for the other ranks to close too, so that
// what was sent last arrives. It must not overlap a collective: end that by its context.
func (g *Group) Close() error {
	if !g.busy.CompareAndSwap(false, true) {
		return ErrBusy
	}
	defer g.busy.Store(false)
	g.closed = true
	g.giveUp(nil)
	return nil
}

// begin takes the group for one call.
func (g *Group) begin(op operation) (seq uint32, err error) {
	if !g.busy.CompareAndSwap(false, true) {
		return 0, ErrBusy
	}
	if g.closed {
		err = ErrClosed
	} else {
		err = g.broken
	}
	if err != nil {
		g.busy.Store(false)
		return 0, fmt.Errorf("%s: %w", op, err)
	}
	seq = g.seq
	g.seq++
	return seq, nil
}

// end gives the group back, broken when the call failed: the other ranks are told why.
func (g *Group) end(err *RankError) error {
	defer g.busy.Store(false)
	if err == nil {
		return nil
	}
	g.broken = err
	g.giveUp(err)
	return err
}

// abort is what a rank tells the others before it goes.
type abort struct {
	Rank    int    `json:"rank"`
	Problem string `json:"problem"`
	During  string `json:"during"`
	Detail  string `json:"detail,omitempty"`
}

// giveUp ends every link, after telling the other ranks whose fault it was.
func (g *Group) giveUp(cause *RankError) {
	g.ended.Do(func() {
		deadline := time.Now().Add(lingerMax)
		var all sync.WaitGroup
		for _, l := range g.links {
			if l == nil {
				continue
			}
			all.Go(func() {
				if cause != nil {
					l.conn.SetWriteDeadline(deadline)
					// A rank that cannot be told finds out by itself.
					_ = l.sendJSON(kindAbort, abort{Rank: cause.Rank, Problem: cause.Problem, During: cause.During, Detail: cause.Detail})
				}
				l.closeGently(deadline)
			})
		}
		all.Wait()
	})
}

// evidence is one observation that a collective cannot go on.
type evidence struct {
	err     *RankError
	certain bool // names the rank that was the first to go, and not one that may have followed it
}

// settle is how long a collective waits, once a connection has broken, for a better witness:
// a rank that saw another one die says so before it goes itself.
const settle = 150 * time.Millisecond

// trial collects what the goroutines of one collective see go wrong, and stops them.
type trial struct {
	g      *Group
	what   string // such as "all-reduce 57"
	mu     sync.Mutex
	seen   []evidence
	timer  *time.Timer
	halted bool
	over   bool   // the verdict has been given: what comes later is not about this collective
	wake   func() // called with mu held once halted
}

func (g *Group) newTrial(op operation, seq uint32) *trial {
	return &trial{g: g, what: fmt.Sprintf("%s %d", op, seq), wake: func() {}}
}

// fault makes the error about a rank that this rank saw by itself.
func (t *trial) fault(rank int, problem, detail string) *RankError {
	return &RankError{Job: t.g.cfg.Job, Epoch: t.g.cfg.Epoch, Rank: rank, Problem: problem, During: t.what, Detail: detail, Via: -1}
}

// report adds evidence. What is certain stops the collective at once, a broken connection
// after a moment.
func (t *trial) report(e evidence) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return
	}
	t.seen = append(t.seen, e)
	if e.certain {
		t.halt()
	} else if t.timer == nil && !t.halted {
		t.timer = time.AfterFunc(settle, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			t.halt()
		})
	}
}

// halt wakes every goroutine of the collective; mu is held. Writers get a little time to
// finish their frame: a frame that is cut off would spoil the connection for the abort.
func (t *trial) halt() {
	if t.halted || t.over {
		return
	}
	t.halted = true
	for _, l := range t.g.links {
		if l != nil {
			l.conn.SetReadDeadline(time.Unix(1, 0))
			l.conn.SetWriteDeadline(time.Now().Add(lingerMax))
		}
	}
	t.wake()
}

func (t *trial) isHalted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.halted
}

// verdict is called when all goroutines have ended; nil means that nothing went wrong.
func (t *trial) verdict() *RankError {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.over = true
	if t.timer != nil {
		t.timer.Stop()
	}
	for _, e := range t.seen {
		if e.certain {
			return e.err
		}
	}
	if len(t.seen) > 0 {
		return t.seen[0].err
	}
	return nil
}

// watch makes the end of ctx stop the collective, as this rank's own doing. The returned
// function ends the watch.
func (t *trial) watch(ctx context.Context) func() bool {
	return context.AfterFunc(ctx, func() {
		t.report(evidence{err: t.fault(t.g.cfg.Rank, GaveUp, context.Cause(ctx).Error()), certain: true})
	})
}

// readBy gives the next read of a link until the stall limit, unless the collective has been
// halted meanwhile.
func (t *trial) readBy(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.halted {
		l.conn.SetReadDeadline(time.Now().Add(t.g.cfg.stall()))
	}
	return !t.halted
}

// writeBy does the same for the next write.
func (t *trial) writeBy(l *link) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.halted {
		l.conn.SetWriteDeadline(time.Now().Add(t.g.cfg.stall()))
	}
	return !t.halted
}

// lost reports a link that failed.
func (t *trial) lost(l *link, err error) {
	problem := "closed its connection"
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		if t.isHalted() {
			return // this rank's own doing
		}
		problem = fmt.Sprintf("was silent for %v", t.g.cfg.stall())
	}
	t.report(evidence{err: t.fault(l.rank, problem, "")})
}

// lostWriting reports a link that failed while it was written to. What the other rank said
// before it went may still be unread; the link's reader finds it, or when that has all its
// frames already, this does.
func (t *trial) lostWriting(l *link, err error, op operation, seq uint32, read <-chan struct{}) {
	t.lost(l, err)
	<-read
	t.next(l, op, seq)
}

// told reports what another rank said before it went.
func (t *trial) told(l *link, body []byte) {
	var a abort
	if err := json.Unmarshal(body, &a); err != nil || a.Rank < 0 || a.Rank >= t.g.cfg.World {
		t.report(evidence{err: t.fault(l.rank, "broke the protocol", "an abort that is not understood"), certain: true})
		return
	}
	e := t.fault(a.Rank, clip(a.Problem), clip(a.Detail))
	e.During = clip(a.During)
	if a.Rank != l.rank && a.Rank != t.g.cfg.Rank {
		e.Via = l.rank
	}
	t.report(evidence{err: e, certain: true})
}

// clip bounds a text that another rank sent.
func clip(s string) string { return fmt.Sprintf("%.300s", s) }

// next reads the next frame of the collective from l. ok is false when it ended otherwise,
// which has been reported.
func (t *trial) next(l *link, op operation, seq uint32) (h header, body []byte, ok bool) {
	if !t.readBy(l) {
		return header{}, nil, false
	}
	h, body, err := l.receive()
	if err != nil {
		t.lost(l, err)
		return header{}, nil, false
	}
	if h.kind == kindAbort {
		t.told(l, body)
		return header{}, nil, false
	}
	if h.op != op || h.seq != seq {
		t.report(evidence{err: t.fault(l.rank, "broke step", fmt.Sprintf("it is in %s %d", h.op, h.seq)), certain: true})
		return header{}, nil, false
	}
	return h, body, true
}
