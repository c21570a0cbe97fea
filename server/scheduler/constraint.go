package scheduler

import (
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// nodeSet is a set of nodes by position; nil stands for all.
type nodeSet []uint64

func (s nodeSet) has(r *room, node int) bool {
	if s == nil {
		return true
	}
	p := r.classes.position[node]
	return s[p>>6]&(1<<(p&63)) != 0
}

func (s nodeSet) add(r *room, node int) {
	p := r.classes.position[node]
	s[p>>6] |= 1 << (p & 63)
}

func (s nodeSet) isEmpty() bool {
	for _, w := range s {
		if w != 0 {
			return false
		}
	}
	return s != nil
}

// each calls visit with the nodes of the set in the order of topology.
func (s nodeSet) each(r *room, visit func(node int)) {
	if s == nil {
		for _, node := range r.classes.nodeAt {
			visit(int(node))
		}
		return
	}
	for i, w := range s {
		for ; w != 0; w &= w - 1 {
			visit(int(r.classes.nodeAt[i<<6+bits.TrailingZeros64(w)]))
		}
	}
}

// intersect gives the nodes of both sets; it may return one of them.
func intersect(a, b nodeSet) nodeSet {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	c := slices.Clone(a)
	for i := range c {
		c[i] &= b[i]
	}
	return c
}

func (r *room) noNodes() nodeSet { return make(nodeSet, r.classes.words()) }

// without gives the set without the nodes of those IDs.
func (r *room) without(s nodeSet, ids []string) nodeSet {
	c := r.noNodes()
	if s == nil {
		for p := range r.spec {
			c[p>>6] |= 1 << (p & 63)
		}
	} else {
		copy(c, s)
	}
	for _, id := range ids {
		if node := r.nodeByID(id); node >= 0 {
			p := r.classes.position[node]
			c[p>>6] &^= 1 << (p & 63)
		}
	}
	return c
}

// nodeByID gives the place of a node, -1 when there is none.
func (r *room) nodeByID(id string) int {
	at, found := slices.BinarySearchFunc(r.spec, id, func(n Node, id string) int { return strings.Compare(n.ID, id) })
	if !found {
		return -1
	}
	return at
}

// conditions is what a job asks of its nodes as far as it can be compared with what another
// one asks.
type conditions struct {
	where          *condition
	within, prefer string
	spread         string
	skew           int32
}

// condition is an Expr evaluated in a room: jobs that ask the same share one.
type condition struct {
	nodes nodeSet
}

// conditionsMax bounds the conditions that a room keeps; beyond it they start over.
const conditionsMax = 1024

// demand is where a gang may and should go.
type demand struct {
	conditions
	nodes     nodeSet                // it may use; nil: all
	avoid     []string               // IDs of nodes to use only when nothing else admits it
	addend    func(node int) float64 // added to the score; nil: nothing
	plain     bool                   // it asks nothing of the kind
	memorable bool                   // conditions say everything
}

// demand reads what a job asks of its nodes. ok is false when no node meets it.
func (p *placer) demand(job *Job) (d demand, ok bool) {
	if p.limit == nil && job.Where == nil && job.Within == "" && job.Prefer == "" && job.Spread == "" &&
		len(job.Near)+len(job.Apart)+len(job.Avoid)+len(job.Inputs) == 0 {
		return demand{plain: true, memorable: true}, true
	}
	d.conditions = conditions{within: job.Within, prefer: job.Prefer, spread: job.Spread}
	if job.Spread != "" {
		d.skew = max(1, job.Skew)
	}
	d.memorable = len(job.Near)+len(job.Apart)+len(job.Avoid)+len(job.Inputs) == 0
	if job.Where != nil {
		d.where = p.room.condition(job.Where)
		d.nodes = d.where.nodes
	}
	if p.limit != nil {
		if some := p.limit(job); some != nil {
			d.nodes, d.memorable = intersect(d.nodes, some), false
		}
	}
	for _, name := range job.Near {
		d.nodes = intersect(d.nodes, p.named(name)[0])
	}
	if len(job.Apart) > 0 {
		d.nodes = p.apartFrom(d.nodes, job.Apart)
	}
	if len(job.Inputs) > 0 {
		d.addend = p.locality(job.Inputs)
	}
	d.avoid = job.Avoid
	return d, !d.nodes.isEmpty()
}

func (p *placer) apartFrom(nodes nodeSet, names []string) nodeSet {
	free := p.room.without(nodes, nil)
	for _, name := range names {
		for i, w := range p.named(name)[1] {
			free[i] &^= w
		}
	}
	return free
}

// standing is a gang placed in this pass.
type standing struct {
	name  string
	nodes []int32
}

// stands notes where a job was placed for good.
func (p *placer) stands(job *Job, entries []int) {
	at := standing{name: nameOf(job.ID)}
	for _, e := range entries {
		if node := p.room.trail[e].node; len(at.nodes) == 0 || at.nodes[len(at.nodes)-1] != node {
			at.nodes = append(at.nodes, node)
		}
	}
	p.placed = append(p.placed, at)
	if sets := p.names[at.name]; sets != nil {
		for _, node := range at.nodes {
			sets[0].add(p.room, int(node))
			sets[1].add(p.room, int(node))
		}
	}
}

// nameOf gives the name of a job by its ID: NAME-SEQUENCE, of a copy NAME-SEQUENCE_COPY.
func nameOf(id string) string {
	at := strings.LastIndexByte(id, '-')
	if at <= 0 {
		return id
	}
	number, copied, _ := strings.Cut(id[at+1:], "_")
	if _, err := strconv.ParseUint(number, 10, 64); err != nil {
		return id
	}
	if copied != "" {
		if _, err := strconv.ParseUint(copied, 10, 64); err != nil {
			return id
		}
	}
	return id[:at]
}

// named gives the nodes with a job of the name: where it runs on, and where it runs or is
// being stopped.
func (p *placer) named(name string) *[2]nodeSet {
	if sets := p.names[name]; sets != nil {
		return sets
	}
	sets := &[2]nodeSet{p.room.noNodes(), p.room.noNodes()}
	for i := range p.running {
		run := &p.running[i]
		if run.Name != name {
			continue
		}
		for j := range run.Slots {
			if node := p.room.nodeByID(run.Slots[j].NodeID); node >= 0 {
				sets[1].add(p.room, node)
				if !run.Ending {
					sets[0].add(p.room, node)
				}
			}
		}
	}
	for i := range p.placed {
		for _, node := range p.placed[i].nodes {
			if p.placed[i].name == name {
				sets[0].add(p.room, int(node))
				sets[1].add(p.room, int(node))
			}
		}
	}
	if p.names == nil {
		p.names = map[string]*[2]nodeSet{}
	}
	p.names[name] = sets
	return sets
}

// What it costs to fetch a job's artifacts to a node that lacks them, in the unit of Weights.
const (
	localityPerSecond = 0.05
	localityMax       = 24.0          // below the price of a device that is larger than needed
	linkRateDefault   = 1_250_000_000 // bytes per second, where none was measured
)

// locality gives the cost of a node that has to fetch the inputs first.
func (p *placer) locality(inputs []Input) func(node int) float64 {
	missing := map[int32]int64{}
	var all int64
	for _, in := range inputs {
		all += in.Bytes
		for _, node := range p.holdersOf(in.ID) {
			missing[node] -= in.Bytes
		}
	}
	return func(node int) float64 {
		rate := p.room.spec[node].LinkRate
		if rate <= 0 {
			rate = linkRateDefault
		}
		seconds := float64(max(0, all+missing[int32(node)])) / rate
		return min(localityMax, localityPerSecond*seconds)
	}
}

func (p *placer) holdersOf(artifact string) []int32 {
	if p.holders == nil {
		p.holders = map[string][]int32{}
		for node := range p.room.spec {
			for _, held := range p.room.spec[node].Holds {
				p.holders[held.ID] = append(p.holders[held.ID], int32(node))
			}
		}
	}
	return p.holders[artifact]
}
