package collective

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// noRoot is the root of a collective to which every rank contributes.
const noRoot = -1

// exchange is one AllReduce or Broadcast in flight: parts go to the owners of slices, who
// add them up and send the sums to all. In a Broadcast the root alone has parts.
//
// Each link has a reader and a writer of its own while the exchange lasts. A reader takes
// exactly the frames that belong to the exchange, so a rank that is ahead waits in the
// kernel's buffers until the others are there. No rank waits for one that waits for it:
// readers always read.
type exchange struct {
	*trial
	op   operation
	seq  uint32
	data []float32
	root int
	mine span // this rank's slice

	cond    *sync.Cond // on trial.mu
	arrived []int      // by rank: chunks of mine that have come from it
	sent    []int      // by rank: chunks of its slice that have gone to it
	summed  int        // chunks of mine that are finished
}

// exchange runs one collective over float32 values.
func (g *Group) exchange(ctx context.Context, op operation, data []float32, root int) error {
	if len(data) > ElementsMax {
		return fmt.Errorf("%s of %d elements: at most %d", op, len(data), ElementsMax)
	}
	seq, err := g.begin(op)
	if err != nil {
		return err
	}
	if g.cfg.World == 1 {
		return g.end(nil)
	}
	x := &exchange{trial: g.newTrial(op, seq), op: op, seq: seq, data: data, root: root,
		mine: sliceOf(len(data), g.cfg.World, g.cfg.Rank), arrived: make([]int, g.cfg.World), sent: make([]int, g.cfg.World)}
	x.cond = sync.NewCond(&x.mu)
	x.wake = x.cond.Broadcast
	stop := x.watch(ctx)
	var all sync.WaitGroup
	for _, l := range g.links {
		if l == nil {
			continue
		}
		if x.gives(l.rank) {
			g.recv[l.rank] = slices.Grow(g.recv[l.rank][:0], x.mine.len())[:x.mine.len()]
		}
		done := make(chan struct{})
		all.Go(func() {
			defer close(done)
			x.read(l)
		})
		all.Go(func() { x.write(l, done) })
	}
	x.sum()
	all.Wait()
	stop()
	return g.end(x.verdict())
}

// gives says whether a rank has parts to send.
func (x *exchange) gives(rank int) bool { return x.root == noRoot || x.root == rank }

// slice is the part of the vector that a rank owns.
func (x *exchange) slice(rank int) span { return sliceOf(len(x.data), x.g.cfg.World, rank) }

// read takes a rank's parts of this rank's slice, and the sums of that rank's slice.
func (x *exchange) read(l *link) {
	theirs := x.slice(l.rank)
	parts, sums := 0, 0
	partsWanted, sumsWanted := 0, theirs.chunks()
	if x.gives(l.rank) {
		partsWanted = x.mine.chunks()
	}
	for parts < partsWanted || sums < sumsWanted {
		h, body, ok := x.next(l, x.op, x.seq)
		if !ok {
			return
		}
		switch {
		case h.kind == kindPart && parts < partsWanted && fits(h, x.g.cfg.Rank, parts, x.mine):
			at := x.mine.chunk(parts)
			readFloats(x.g.recv[l.rank][at.from-x.mine.from:at.to-x.mine.from], body)
			parts++
			x.count(&x.arrived[l.rank], parts)
		case h.kind == kindSum && sums < sumsWanted && fits(h, l.rank, sums, theirs):
			// The sum overwrites what this rank's part was read from: the part must have gone.
			if x.gives(x.g.cfg.Rank) && !x.hasSent(l.rank, sums) {
				x.report(evidence{err: x.fault(l.rank, "broke the protocol", "it sent a sum before all its parts"), certain: true})
				return
			}
			at := theirs.chunk(sums)
			readFloats(x.data[at.from:at.to], body)
			sums++
		default:
			x.report(evidence{err: x.fault(l.rank, "broke step",
				fmt.Sprintf("it sent chunk %d of slice %d with %d bytes, which does not belong here: all ranks must pass %d elements",
					h.chunk, h.slice, h.length, len(x.data))), certain: true})
			return
		}
	}
}

// fits checks a frame against the chunk that must come next.
func fits(h header, owner, chunk int, slice span) bool {
	return int(h.slice) == owner && int(h.chunk) == chunk && int(h.length) == 4*slice.chunk(chunk).len()
}

func (x *exchange) count(counter *int, value int) {
	x.mu.Lock()
	*counter = value
	x.cond.Broadcast()
	x.mu.Unlock()
}

func (x *exchange) hasSent(rank, chunk int) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.sent[rank] > chunk
}

// write sends this rank's parts of a rank's slice, and the sums of its own slice as they are
// finished. Sums go first: others wait for them. done is closed when the link's reader ends.
func (x *exchange) write(l *link, done <-chan struct{}) {
	theirs := x.slice(l.rank)
	parts, sums := 0, 0
	partsWanted, sumsWanted := 0, x.mine.chunks()
	if x.gives(x.g.cfg.Rank) {
		partsWanted = theirs.chunks()
	}
	for parts < partsWanted || sums < sumsWanted {
		ready, ok := x.await(func() bool { return parts < partsWanted || x.summed > sums })
		if !ok || !x.writeBy(l) {
			return
		}
		h := header{kind: kindPart, op: x.op, slice: uint16(l.rank), chunk: uint32(parts), seq: x.seq}
		at := theirs.chunk(parts)
		if ready > sums {
			h.kind, h.slice, h.chunk = kindSum, uint16(x.g.cfg.Rank), uint32(sums)
			at = x.mine.chunk(sums)
			sums++
		}
		l.encodeFloats(h, x.data[at.from:at.to])
		if h.kind == kindPart {
			// Counted once it is copied and before it can be answered: see read.
			parts++
			x.count(&x.sent[l.rank], parts)
		}
		if err := l.flush(); err != nil {
			x.lostWriting(l, err, x.op, x.seq, done)
			return
		}
	}
}

// await waits until the condition holds and gives the number of finished chunks; ok is false
// when the collective has been halted.
func (x *exchange) await(condition func() bool) (summed int, ok bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for !x.halted && !condition() {
		x.cond.Wait()
	}
	return x.summed, !x.halted
}

// sum adds the parts of this rank's slice, chunk by chunk, in rank order.
func (x *exchange) sum() {
	me := x.g.cfg.Rank
	for chunk := range x.mine.chunks() {
		_, ok := x.await(func() bool {
			for rank := range x.arrived {
				if rank != me && x.gives(rank) && x.arrived[rank] <= chunk {
					return false
				}
			}
			return true
		})
		if !ok {
			return
		}
		at := x.mine.chunk(chunk)
		own := x.data[at.from:at.to]
		part := func(rank int) []float32 {
			if rank == me {
				return own
			}
			return x.g.recv[rank][at.from-x.mine.from : at.to-x.mine.from]
		}
		if x.root != noRoot {
			copy(own, part(x.root))
		} else {
			sumInto(own, me, x.g.cfg.World, part)
		}
		x.count(&x.summed, chunk+1)
	}
}

// sumInto leaves in own the sum of all ranks' parts, added in rank order. It adds up in the
// first rank's buffer, which nobody reads again.
func sumInto(own []float32, me, world int, part func(rank int) []float32) {
	total := part(0)
	for rank := 1; rank < world; rank++ {
		next := part(rank)[:len(total)]
		for i := range total {
			total[i] += next[i]
		}
	}
	if me != 0 {
		copy(own, total)
	}
}
