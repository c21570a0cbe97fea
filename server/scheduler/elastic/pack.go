package elastic

import (
	"slices"
	"strings"
)

// packing is the state of placing chosen sizes on nodes.
type packing struct {
	offers []offer
	nodes  []Node // by ID
	per    int    // GPUs of a whole node
	free   []int  // GPUs, by node
	parts  [][]span
	want   []int   // GPUs, by offer
	on     [][]int // offers that stand on this node alone, by node
	queue  []int   // offers still to place, the largest last
}

// span is GPUs of one node, by index.
type span struct{ node, gpus int }

// pack places the chosen sizes, the largest first. A job whose size stays keeps its place
// unless it stands in the way of one that needs whole nodes or more room than any node has.
func pack(offers []offer, nodes []Node) []Allocation {
	p := &packing{offers: offers, nodes: slices.Clone(nodes), per: PerNode(nodes),
		parts: make([][]span, len(offers)), want: make([]int, len(offers))}
	slices.SortFunc(p.nodes, func(a, b Node) int { return strings.Compare(a.ID, b.ID) })
	for _, n := range p.nodes {
		p.free = append(p.free, n.GPUs)
	}
	p.on = make([][]int, len(nodes))
	for i := range offers {
		p.want[i] = offers[i].choices[offers[i].chosen].size.GPUs
		if !p.keep(i) && p.want[i] > 0 {
			p.queue = append(p.queue, i)
		}
	}
	slices.SortFunc(p.queue, p.smaller)
	for len(p.queue) > 0 {
		last := len(p.queue) - 1
		i := p.queue[last]
		p.queue = p.queue[:last]
		p.place(i)
	}
	out := make([]Allocation, len(offers))
	for i := range offers {
		out[i] = p.allocation(i)
	}
	return out
}

func (p *packing) find(id string) int {
	at, ok := slices.BinarySearchFunc(p.nodes, id, func(n Node, id string) int { return strings.Compare(n.ID, id) })
	if !ok {
		return -1
	}
	return at
}

// keep leaves a job where it is, if its size stays and its nodes are still there.
func (p *packing) keep(i int) bool {
	j := p.offers[i].job
	if p.want[i] == 0 || j.held() != p.want[i] {
		return false
	}
	var parts []span
	for _, h := range j.Held {
		n := p.find(h.Node)
		if n < 0 || p.free[n] < h.GPUs {
			return false
		}
		parts = append(parts, span{n, h.GPUs})
	}
	if p.want[i] > p.per && len(parts) > (p.want[i]+p.per-1)/p.per {
		return false
	}
	p.take(i, parts)
	return true
}

// smaller orders the queue: fewer GPUs first, of equals the later offer.
func (p *packing) smaller(a, b int) int {
	if p.want[a] != p.want[b] {
		return p.want[a] - p.want[b]
	}
	return b - a
}

func (p *packing) take(i int, parts []span) {
	p.parts[i] = parts
	for _, s := range parts {
		p.free[s.node] -= s.gpus
	}
	if len(parts) == 1 {
		p.on[parts[0].node] = append(p.on[parts[0].node], i)
	}
}

// evict takes a job off its one node and puts it back into the queue.
func (p *packing) evict(i int) {
	s := p.parts[i][0]
	p.free[s.node] += s.gpus
	p.parts[i] = nil
	p.on[s.node] = slices.DeleteFunc(p.on[s.node], func(k int) bool { return k == i })
	at, _ := slices.BinarySearchFunc(p.queue, i, p.smaller)
	p.queue = slices.Insert(p.queue, at, i)
}

// place finds room for one job, moving smaller ones where it must.
func (p *packing) place(i int) {
	if p.want[i] > p.per {
		p.placeWide(i)
		return
	}
	best := -1
	for n, free := range p.free {
		if free >= p.want[i] && (best < 0 || free < p.free[best]) {
			best = n
		}
	}
	if best < 0 {
		best = p.clear(p.want[i], p.want[i])
	}
	if best < 0 {
		// No node can be made to hold it: take the most that one has.
		for n, free := range p.free {
			if free > 0 && (best < 0 || free > p.free[best]) {
				best = n
			}
		}
		if best < 0 {
			return
		}
		if p.want[i] = p.sizeWithin(i, p.free[best]); p.want[i] == 0 {
			return
		}
	}
	p.take(i, []span{{best, p.want[i]}})
}

// placeWide gives a job whole nodes.
func (p *packing) placeWide(i int) {
	var parts []span
	for p.want[i] > 0 && len(parts)*p.per < p.want[i] {
		n := p.whole()
		if n < 0 {
			n = p.clear(p.per, p.per)
			if n < 0 {
				break
			}
		}
		p.free[n] -= p.per
		parts = append(parts, span{n, p.per})
	}
	for _, s := range parts {
		p.free[s.node] += s.gpus
	}
	got := p.sizeWithin(i, len(parts)*p.per)
	if got == 0 {
		return
	}
	p.want[i] = got
	parts = parts[:(got+p.per-1)/p.per]
	if got < p.per {
		parts[0].gpus = got
	}
	p.take(i, parts)
}

func (p *packing) whole() int {
	for n, free := range p.free {
		if free >= p.per {
			return n
		}
	}
	return -1
}

// clear makes room for gpus on one node by moving jobs of fewer GPUs than below, at the
// least GPUs moved. It gives the node, or -1.
func (p *packing) clear(gpus, below int) int {
	best, bestMoved := -1, 0
	var bestJobs []int
	for n := range p.nodes {
		if p.nodes[n].GPUs < gpus {
			continue
		}
		moved, jobs := p.removal(n, gpus-p.free[n], below)
		if jobs != nil && (best < 0 || moved < bestMoved) {
			best, bestMoved, bestJobs = n, moved, jobs
		}
	}
	for _, i := range bestJobs {
		p.evict(i)
	}
	return best
}

// removal lists jobs on a node, each on this node alone, whose GPUs sum up to need at least.
func (p *packing) removal(node, need, below int) (int, []int) {
	var on []int
	for _, i := range p.on[node] {
		if p.parts[i][0].gpus < below {
			on = append(on, i)
		}
	}
	slices.SortFunc(on, func(a, b int) int {
		if d := p.parts[a][0].gpus - p.parts[b][0].gpus; d != 0 {
			return d
		}
		return a - b
	})
	moved, out := 0, []int{}
	for _, i := range on {
		if moved >= need {
			break
		}
		moved += p.parts[i][0].gpus
		out = append(out, i)
	}
	if moved < need {
		return 0, nil
	}
	return moved, out
}

// sizeWithin gives the largest size of a job within so many GPUs.
func (p *packing) sizeWithin(i, gpus int) int {
	best := 0
	for _, s := range p.offers[i].job.Curve.Sizes {
		if s.GPUs <= gpus {
			best = s.GPUs
		}
	}
	return min(best, p.want[i])
}

func (p *packing) allocation(i int) Allocation {
	j := p.offers[i].job
	a := Allocation{JobID: j.ID}
	for _, s := range p.parts[i] {
		a.Parts = append(a.Parts, Part{Node: p.nodes[s.node].ID, GPUs: s.gpus})
	}
	if s := j.Curve.at(p.want[i]); s != nil && a.Parts != nil {
		a.Split = s.Split
	}
	a.Rescued = p.offers[i].guarded && a.Parts != nil
	a.Changed = !slices.Equal(a.Parts, j.Held)
	return a
}
