package main

import (
	"cmp"

	"llmos/server/scheduler/packing"
)

// grade is a node's standing for a shape: lower is better, equal ones go to the first node
// by name.
type grade struct {
	loss      float64
	tie, then int64
	device    int32
	fits      bool
}

func (g *grade) before(h *grade) bool {
	return cmp.Or(cmp.Compare(g.loss, h.loss), cmp.Compare(g.tie, h.tie), cmp.Compare(g.then, h.then)) < 0
}

// grader grades a node that admits a shape.
type grader func(n *node, s *packing.Shape) grade

// ranking holds the grades of all nodes for one shape; before it is read it catches up with
// the nodes that changed.
type ranking struct {
	grades []grade
	caught int
}

// ranked places by the best grade.
type ranked struct {
	grade grader
	seen  []int // by node: the round in which it was graded last
	round int
}

func (r *ranked) place(c *cluster, s *packing.Shape) (int, int) {
	k := r.rank(c, s)
	best := -1
	for i := range k.grades {
		if g := &k.grades[i]; g.fits && (best < 0 || g.before(&k.grades[best])) {
			best = i
		}
	}
	if best < 0 {
		return -1, -1
	}
	return best, int(k.grades[best].device)
}

func (r *ranked) rank(c *cluster, s *packing.Shape) *ranking {
	k := c.shapes[*s]
	if k == nil {
		k = &ranking{grades: make([]grade, len(c.nodes)), caught: len(c.changed)}
		c.shapes[*s] = k
		for i := range c.nodes {
			k.grades[i] = r.one(&c.nodes[i], s)
		}
	}
	if r.seen == nil {
		r.seen = make([]int, len(c.nodes))
	}
	r.round++ // a node that changed several times is graded once
	for ; k.caught < len(c.changed); k.caught++ {
		if at := c.changed[k.caught]; r.seen[at] != r.round {
			r.seen[at] = r.round
			k.grades[at] = r.one(&c.nodes[at], s)
		}
	}
	return k
}

func (r *ranked) one(n *node, s *packing.Shape) grade {
	if !n.admits(s) {
		return grade{}
	}
	g := r.grade(n, s)
	g.fits = true
	return g
}
