package scheduler

import (
	"slices"
)

// topology are the labels of the domains above a node, widest first. Nodes without one are
// on their own there.
var topology = []string{"zone", "rack"}

// byNode is the label under which each node is a domain.
const byNode = "node"

// domains are the values of a label.
type domains struct {
	label string
	of    []int32 // by node; -1: the node lacks the label
	names []string
	sets  []nodeSet // made when asked for
}

// domains gives the domains of a label, in order of name.
func (r *room) domains(label string) *domains {
	if d := r.labels[label]; d != nil {
		return d
	}
	d := &domains{label: label, of: make([]int32, len(r.spec))}
	value := func(node int) (string, bool) {
		if label == byNode {
			return r.spec[node].ID, true
		}
		v, has := r.spec[node].Labels[label]
		return v, has
	}
	for node := range r.spec {
		if v, has := value(node); has {
			d.names = append(d.names, v)
		}
	}
	slices.Sort(d.names)
	d.names = slices.Compact(d.names)
	for node := range r.spec {
		d.of[node] = -1
		if v, has := value(node); has {
			at, _ := slices.BinarySearch(d.names, v)
			d.of[node] = int32(at)
		}
	}
	d.sets = make([]nodeSet, len(d.names))
	if len(r.labels) < labelsMax {
		r.labels[label] = d
	}
	return d
}

// labelsMax bounds the labels whose domains a room keeps.
const labelsMax = 32

// set gives the nodes of a domain.
func (d *domains) set(r *room, domain int) nodeSet {
	if d.sets[domain] == nil {
		s := r.noNodes()
		for node, of := range d.of {
			if int(of) == domain {
				s.add(r, node)
			}
		}
		d.sets[domain] = s
	}
	return d.sets[domain]
}

// put places the gang, or part of it before it says no.
func (g *gang) put() bool {
	d := g.demand
	if d.spread != "" && d.within == "" {
		return g.everywhere(nil, d.nodes)
	}
	if d.within != "" {
		return g.inOne(d.within)
	}
	if len(g.entries) < 2 || g.fitsOneNode() {
		return g.everywhere(nil, d.nodes)
	}
	if d.prefer != "" && g.inOne(d.prefer) {
		return true
	}
	if !g.talks() {
		return g.everywhere(nil, d.nodes)
	}
	for i := len(topology) - 1; i >= 0; i-- { // narrowest first
		if topology[i] != d.prefer && len(g.room.domains(topology[i]).names) > 0 && g.inOne(topology[i]) {
			return true
		}
	}
	return g.everywhere(topology, d.nodes)
}

// talks says whether the tasks have devices, and so data to exchange: only then does it
// matter how near they are.
func (g *gang) talks() bool {
	return slices.ContainsFunc(g.groups, func(of group) bool { return of.shape.gpus > 0 })
}

// fitsOneNode says whether some node admits the whole gang, so that it needs no domain.
func (g *gang) fitsOneNode() bool {
	if len(g.groups) != 1 {
		return false
	}
	of := &g.groups[0]
	x := g.room.index(&of.shape)
	if g.demand.nodes == nil {
		node := x.fewest(g.room, of.count)
		return node >= 0 && int(x.fitOn(g.room, node)) >= of.count
	}
	found := false
	g.demand.nodes.each(g.room, func(node int) { found = found || int(x.fitOn(g.room, node)) >= of.count })
	return found
}

// everywhere places all groups on the nodes, down the levels of topology.
func (g *gang) everywhere(levels []string, nodes nodeSet) bool {
	for i := range g.groups {
		of := &g.groups[i]
		ok := false
		if g.demand.spread != "" {
			ok = g.spreadOut(of, nodes)
		} else {
			ok = g.descend(of, 0, of.count, levels, nodes)
		}
		if !ok {
			return false
		}
	}
	return true
}

// domainTries bounds the domains that are tried for a gang that each of them seems to hold.
const domainTries = 8

// inOne places the whole gang in one domain of the label, or takes nothing. Of those that
// can hold it the one with least room left over comes first: large holes stay large.
func (g *gang) inOne(label string) bool {
	r := g.room
	doms := r.domains(label)
	spare := make([]int64, len(doms.names)) // device shares, or tasks, left over; -1: cannot hold it
	for i := range g.groups {
		of := &g.groups[i]
		x := r.index(&of.shape)
		fits := g.fitsBy(doms, x, g.demand.nodes)
		for at, fit := range fits {
			switch {
			case fit < int64(of.count):
				spare[at] = -1
			case spare[at] >= 0:
				spare[at] += (fit - int64(of.count)) * max(1, of.shape.deviceShare())
			}
		}
	}
	below := narrower(label)
	mark, used := len(r.trail), len(g.used)
	for range domainTries {
		best := -1
		for at, s := range spare {
			if s >= 0 && (best < 0 || s < spare[best]) {
				best = at
			}
		}
		if best < 0 {
			return false
		}
		if g.everywhere(below, intersect(g.demand.nodes, doms.set(r, best))) {
			return true
		}
		r.rollback(mark)
		g.used = g.used[:used]
		spare[best] = -1
	}
	return false
}

// narrower gives the levels of topology inside a domain of the label.
func narrower(label string) []string {
	if label == byNode {
		return nil
	}
	return topology[slices.Index(topology, label)+1:]
}

// fitsBy counts the tasks that the nodes of each domain admit.
func (g *gang) fitsBy(doms *domains, x *index, nodes nodeSet) []int64 {
	fits := make([]int64, len(doms.names))
	values, of := x.values, g.room.classes.of
	count := func(node int) {
		if at := doms.of[node]; at >= 0 && of[node] >= 0 {
			fits[at] += int64(values[of[node]].fit)
		}
	}
	if nodes == nil {
		for node := range doms.of {
			count(node)
		}
		return fits
	}
	nodes.each(g.room, count)
	return fits
}

// descend places tasks from to from+n of a group in few domains of the first level, those
// with few nodes of the next, and so on down to the nodes. At each level the domain that
// holds the rest with least left over is next, else the one that holds most of it.
func (g *gang) descend(of *group, from, n int, levels []string, nodes nodeSet) bool {
	for len(levels) > 0 && len(g.room.domains(levels[0]).names) == 0 {
		levels = levels[1:]
	}
	if len(levels) == 0 || n < 2 || of.shape.gpus == 0 {
		return g.fill(of, from, n, nodes)
	}
	doms := g.room.domains(levels[0])
	fits := g.fitsBy(doms, g.room.index(&of.shape), nodes)
	for done := 0; done < n; {
		at := fewestDomain(fits, int64(n-done))
		if at < 0 { // what is left fits on nodes outside of any domain, or not at all
			return g.fill(of, from+done, n-done, nodes)
		}
		here := int(min(fits[at], int64(n-done)))
		if !g.descend(of, from+done, here, levels[1:], intersect(nodes, doms.set(g.room, at))) {
			return false
		}
		done += here
		fits[at] = 0
	}
	return true
}

func fewestDomain(fits []int64, want int64) int {
	best := -1
	for at, fit := range fits {
		switch {
		case fit == 0:
		case best < 0,
			fit >= want && (fits[best] < want || fit < fits[best]),
			fit < want && fits[best] < want && fit > fits[best]:
			best = at
		}
	}
	return best
}
