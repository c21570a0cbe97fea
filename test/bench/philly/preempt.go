package main

import (
	"container/heap"
	"math"
	"slices"

	"llmos/server/scheduler/rank"
)

// order is a preemptive policy by rank: pending jobs in order of rank, each placed where it
// fits, else in the place of running jobs of a higher rank. Those of the highest rank go.
type order struct {
	label  string
	minRun float64 // s that a job runs before it is stopped
	margin float64 // a victim's rank is higher by more than this factor
	index  index
}

// index is the rank of a job by what it has attained.
type index interface {
	begin()
	ended(j *job)
	rank(c *cluster, j *job) float64
	step(c *cluster, j *job) float64
}

func (o *order) name() string                    { return o.label }
func (o *order) begin(*cluster, int)             { o.index.begin() }
func (o *order) ended(_ *cluster, j *job)        { o.index.ended(j) }
func (o *order) rank(c *cluster, j *job) float64 { return o.index.rank(c, j) }
func (o *order) step(c *cluster, j *job) float64 { return o.index.step(c, j) }

func (o *order) schedule(c *cluster) {
	blocked := math.MaxInt // a width that does not fit: wider ones behind it do not either
	var back []*job
	for c.pending.Len() > 0 && blocked > 1 {
		j := heap.Pop(c.pending).(*job)
		if j.width >= blocked {
			back = append(back, j)
			continue
		}
		slots := fit(c.free, j.width)
		if slots == nil && o.makeRoom(c, j) {
			slots = fit(c.free, j.width)
		}
		if slots == nil {
			blocked = min(blocked, j.width)
			back = append(back, j)
			continue
		}
		c.start(j, slots)
	}
	for _, j := range back {
		heap.Push(c.pending, j)
	}
}

// makeRoom stops jobs of a higher rank so that j fits; false and nothing done if that
// cannot be.
func (o *order) makeRoom(c *cluster, j *job) bool {
	chosen := o.onOneNode(c, j)
	if j.width > nodeGPUs {
		chosen = o.onWholeNodes(c, j)
	}
	for _, v := range chosen {
		c.preempt(v)
	}
	return len(chosen) > 0
}

func (o *order) eligible(c *cluster, j, v *job) bool {
	return v.rank > j.rank*o.margin && c.now-v.started >= o.minRun
}

// cost of stopping a victim: the less the higher its rank.
func (o *order) cost(v *job) float64 { return float64(v.width) / v.rank }

// onOneNode gives the victims on the node where room costs least.
func (o *order) onOneNode(c *cluster, j *job) (chosen []*job) {
	best := math.Inf(1)
	var on []*job
	for n := range c.free {
		on = on[:0]
		room := c.free[n]
		for _, v := range c.on[n] {
			if o.eligible(c, j, v) {
				room += v.at(n)
				on = append(on, v)
			}
		}
		if room < j.width || len(on) == 0 {
			continue
		}
		slices.SortFunc(on, func(a, b *job) int { return compare(b.rank, a.rank, b.id, a.id) })
		on = enough(on, n, c.free[n], j.width)
		cost := 0.0
		for _, v := range on {
			cost += o.cost(v)
		}
		if cost < best {
			best, chosen = cost, append(chosen[:0], on...)
		}
	}
	return chosen
}

// enough gives the first victims that make room for a width on a node, without those that
// later ones make needless.
func enough(on []*job, node, free, width int) []*job {
	have, used := free, 0
	for have < width {
		have += on[used].at(node)
		used++
	}
	on = on[:used]
	for i := used - 1; i >= 0; i-- {
		if g := on[i].at(node); have-g >= width {
			have -= g
			on = slices.Delete(on, i, i+1)
		}
	}
	return on
}

// onWholeNodes empties as many nodes as a wide job needs.
func (o *order) onWholeNodes(c *cluster, j *job) []*job {
	type node struct {
		cost float64
		n    int
	}
	var nodes []node
	for n := range c.free {
		room, cost := c.free[n], 0.0
		for _, v := range c.on[n] {
			if o.eligible(c, j, v) {
				room += v.at(n)
				cost += o.cost(v) * float64(v.at(n)) / float64(v.width)
			}
		}
		if room == nodeGPUs {
			nodes = append(nodes, node{cost, n})
		}
	}
	need := (j.width + nodeGPUs - 1) / nodeGPUs
	if len(nodes) < need {
		return nil
	}
	slices.SortFunc(nodes, func(a, b node) int { return compare(a.cost, b.cost, a.n, b.n) })
	var out []*job
	for _, n := range nodes[:need] {
		for _, v := range c.on[n.n] {
			if !slices.Contains(out, v) {
				out = append(out, v)
			}
		}
	}
	return out
}

// compare orders by the first pair, then by the second.
func compare(a, b float64, i, k int) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return i - k
}

// las ranks by the device seconds attained: as many queues as thresholds and one more, first
// come first served within a queue (Tiresias, NSDI 2019, without its promotion).
type las struct{ thresholds []float64 }

func (l *las) begin()     {}
func (l *las) ended(*job) {}

func (l *las) rank(c *cluster, j *job) float64 {
	attained := j.age(c.now) * float64(j.width)
	n := 0
	for n < len(l.thresholds) && attained >= l.thresholds[n]-tolerance {
		n++
	}
	return float64(n + 1)
}

func (l *las) step(c *cluster, j *job) float64 {
	attained := j.age(c.now) * float64(j.width)
	for _, t := range l.thresholds {
		if attained < t-tolerance {
			return (t - attained) / float64(j.width)
		}
	}
	return 0
}

func geometric(first, factor, last float64) []float64 {
	var out []float64
	for t := first; t <= last; t *= factor {
		out = append(out, t)
	}
	return out
}

// ranked is llmos' order: package rank's index times the part of past usage that the virtual
// cluster had, as server/controller works it out.
type ranked struct{ ranker *rank.Ranker }

const usageFloor = 0.02 // as in server/controller

func (g *ranked) begin()       { g.ranker = &rank.Ranker{} }
func (g *ranked) ended(j *job) { g.ranker.Observe(j.kind, int64(j.run*1000)) }

func (g *ranked) rank(c *cluster, j *job) float64 {
	c.settle(j.vc)
	total := 0.0
	for _, u := range c.usage {
		total += u
	}
	turn := 1.0
	if total > 0 {
		turn = usageFloor + c.usage[j.vc]/total
	}
	return turn * g.ranker.Index(j.kind, int64(j.age(c.now)*1000+1))
}

func (g *ranked) step(c *cluster, j *job) float64 {
	age := int64(j.age(c.now)*1000 + 1)
	if next := rank.NextAge(age); next > 0 {
		return float64(next-age+1) / 1000
	}
	return 0
}
