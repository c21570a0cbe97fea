package main

import (
	"container/heap"
	"math"
	"slices"
	"sort"
)

// policy decides the order; cluster does the rest.
type policy interface {
	name() string
	begin(c *cluster, classes int)
	ended(c *cluster, j *job)
	rank(c *cluster, j *job) float64 // lower first
	step(c *cluster, j *job) float64 // s until the rank of a running job changes; 0: never
	schedule(c *cluster)
}

// plain is what policies have in common.
type plain struct{}

func (plain) begin(*cluster, int)         {}
func (plain) ended(*cluster, *job)        {}
func (plain) rank(*cluster, *job) float64 { return 0 }
func (plain) step(*cluster, *job) float64 { return 0 }

// fifo starts jobs in order of arrival and lets none pass.
type fifo struct{ plain }

func (fifo) name() string { return "fifo" }
func (fifo) schedule(c *cluster) {
	for c.pending.Len() > 0 {
		slots := fit(c.free, c.pending.jobs[0].width)
		if slots == nil {
			return
		}
		c.start(heap.Pop(c.pending).(*job), slots)
	}
}

// easy is fifo with EASY backfill: a job may pass the first blocked one if that does not
// delay its start as predicted. Run times are predicted by the mean of the last two of the
// same virtual cluster and width (Tsafrir, Etsion and Feitelson), doubled whenever exceeded.
type easy struct {
	plain
	last [][2]float64
}

const easyDepth = 1000 // jobs behind the head that are looked at

func (*easy) name() string                    { return "fifo+easy" }
func (p *easy) begin(_ *cluster, classes int) { p.last = make([][2]float64, classes) }
func (p *easy) ended(_ *cluster, j *job) {
	l := &p.last[j.class]
	l[0], l[1] = l[1], j.run
}
func (p *easy) predict(j *job) float64 {
	switch l := p.last[j.class]; {
	case l[0] > 0:
		return (l[0] + l[1]) / 2
	case l[1] > 0:
		return l[1]
	}
	return 3600
}

func (p *easy) schedule(c *cluster) {
	fifo{}.schedule(c)
	if c.pending.Len() == 0 || !slices.ContainsFunc(c.free, func(f int) bool { return f > 0 }) {
		return
	}
	head := c.pending.jobs[0]
	shadow, at := p.shadow(c, head)
	if at == nil {
		return
	}
	waiting := slices.Clone(c.pending.jobs)
	sort.Slice(waiting, func(a, b int) bool { return before(waiting[a], waiting[b]) })
	blocked := math.MaxInt
	for _, j := range waiting[1:min(len(waiting), easyDepth)] {
		if j.width >= blocked {
			continue
		}
		slots := fit(c.free, j.width)
		if slots == nil {
			blocked = min(blocked, j.width)
			if blocked == 1 {
				return
			}
			continue
		}
		if c.now+p.predict(j) > shadow {
			after := slices.Clone(at)
			for _, s := range slots {
				after[s.node] -= s.gpus
			}
			if fit(after, head.width) == nil {
				continue
			}
			at = after
		}
		heap.Remove(c.pending, j.place)
		c.start(j, slots)
	}
}

// shadow gives the predicted start of the head, and what is free then.
func (p *easy) shadow(c *cluster, head *job) (float64, []int) {
	running := slices.Clone(c.running)
	end := func(j *job) float64 {
		e := p.predict(j)
		for j.started+e <= c.now {
			e *= 2
		}
		return j.started + e
	}
	slices.SortFunc(running, func(a, b *job) int {
		if d := end(a) - end(b); d != 0 {
			if d < 0 {
				return -1
			}
			return 1
		}
		return a.id - b.id
	})
	room := slices.Clone(c.free)
	for i, j := range running {
		for _, s := range j.slots {
			room[s.node] += s.gpus
		}
		if i+1 < len(running) && end(running[i+1]) == end(j) {
			continue
		}
		if fit(room, head.width) != nil {
			return end(j), room
		}
	}
	return 0, nil
}
