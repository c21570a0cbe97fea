// Package collective lets the ranks of one attempt add up, hand out and gather data over
// TCP: AllReduce, Broadcast, AllGather and Barrier. A task's program imports it; the ranks
// find each other by the environment that llmos gives to every task (see FromEnv). It does
// no compression, no reduction on a device and no recovery: when a rank dies, every other
// rank gets an error that names it, and the gang is started again by llmos with a higher
// epoch, which the ranks of the old one cannot join.
//
// # How a sum is made
//
// The vector is divided into as many slices as there are ranks, and rank r owns slice r.
// Every rank sends its part of each slice straight to the slice's owner; the owner adds the
// parts in the order of ranks 0, 1, 2 and so on, and sends the sum to all. So the result has
// the same bits on every rank, whatever arrives first, and each rank sends and receives
// about twice the vector. Slices travel in chunks, so that the sums of early chunks travel
// while late parts still arrive.
//
// # Who may take part
//
// All connections are TLS 1.3. Both sides show a certificate whose Ed25519 key is derived
// from the attempt key, a secret that llmos gives to the tasks of one attempt alone, and
// accept no other. The first frame names job, epoch, rank and world size; one that does not
// fit is refused with both values.
package collective

import (
	"context"
	"fmt"
)

// Bounds of a group.
const (
	WorldMax       = 1024     // ranks; each has a connection to each other one
	GatherBytesMax = 64 << 10 // one rank's part of an AllGather
	ElementsMax    = 1 << 31  // of one vector
)

// AllReduce replaces data, on every rank, by the sum of all ranks' data. All ranks must call
// it with the same length. The sum is that of float32 additions in rank order and has the
// same bits everywhere. After an error data is of no use, and so is the group.
func (g *Group) AllReduce(ctx context.Context, data []float32) error {
	return g.exchange(ctx, opAllReduce, data, noRoot)
}

// Broadcast replaces data, on every rank, by the root's data, bit for bit. All ranks must
// call it with the same root and length.
func (g *Group) Broadcast(ctx context.Context, root int, data []float32) error {
	if root < 0 || root >= g.cfg.World {
		return fmt.Errorf("broadcast from rank %d: the ranks are 0 to %d", root, g.cfg.World-1)
	}
	return g.exchange(ctx, opBroadcast, data, root)
}

// AllGather gives every rank the bytes of all ranks, by rank. Lengths may differ; each is at
// most GatherBytesMax. What it returns is the caller's.
func (g *Group) AllGather(ctx context.Context, mine []byte) ([][]byte, error) {
	if len(mine) > GatherBytesMax {
		return nil, fmt.Errorf("all-gather of %d bytes: at most %d a rank", len(mine), GatherBytesMax)
	}
	return g.gather(ctx, opAllGather, mine)
}

// Barrier returns once every rank has called it.
func (g *Group) Barrier(ctx context.Context) error {
	_, err := g.gather(ctx, opBarrier, nil)
	return err
}

// GaveUp is the Problem of a rank whose caller ended the collective by its context, as a
// program does that has been asked to stop.
const GaveUp = "gave up"

// RankError says that a rank ended a collective. Every surviving rank names the same one.
type RankError struct {
	Job     string
	Epoch   uint64
	Rank    int    // whose fault it was
	Problem string // such as "closed its connection"
	During  string // such as "all-reduce 57"
	Detail  string // the cause below; may be empty
	Via     int    // the rank that told of it, or -1 when it was seen directly
}

// Error gives one sentence.
func (e *RankError) Error() string {
	s := fmt.Sprintf("rank %d of job %s (epoch %d) %s during %s", e.Rank, e.Job, e.Epoch, e.Problem, e.During)
	if e.Detail != "" {
		s += ": " + e.Detail
	}
	if e.Via >= 0 {
		s += fmt.Sprintf(" (told by rank %d)", e.Via)
	}
	return s
}
