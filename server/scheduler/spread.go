package scheduler

import (
	"cmp"
	"slices"
)

// spreadOut places a group's tasks over the domains of the label that its job names, so that
// no two domains that have a usable node of the set differ by more than the skew. How many go
// to a domain is settled first, then each domain is filled by itself.
func (g *gang) spreadOut(of *group, nodes nodeSet) bool {
	doms := g.room.domains(g.demand.spread)
	shares, ok := g.shares(doms, of, nodes)
	if !ok {
		return false
	}
	from := 0
	for _, s := range shares {
		if s.tasks == 0 {
			continue
		}
		if !g.fill(of, from, s.tasks, intersect(nodes, doms.set(g.room, s.domain))) {
			return false
		}
		from += s.tasks
	}
	return true
}

// share is the part of a group that goes to one domain.
type share struct {
	domain int
	fits   int64
	score  float64 // of its best node
	tasks  int
}

// shares divides the group: each domain gets as many as the least roomy one can take, up to
// an even part; the rest goes to the best domains, at most skew more to each.
func (g *gang) shares(doms *domains, of *group, nodes nodeSet) ([]share, bool) {
	x := g.room.index(&of.shape)
	fits := g.fitsBy(doms, x, nodes)
	usable := make([]bool, len(fits))
	best := make([]float64, len(fits))
	scored := make([]bool, len(fits))
	nodes.each(g.room, func(node int) {
		at := doms.of[node]
		if at < 0 || !g.room.capable(node, of) {
			return
		}
		usable[at] = true
		if x.fitOn(g.room, node) > 0 {
			if e := g.entryOf(x, node); !scored[at] || e.score < best[at] {
				best[at], scored[at] = e.score, true
			}
		}
	})
	var list []share
	least := int64(of.count)
	for at := range fits {
		if usable[at] {
			list = append(list, share{domain: at, fits: fits[at], score: best[at]})
			least = min(least, fits[at])
		}
	}
	if len(list) == 0 {
		return nil, false
	}
	least = min(least, int64(of.count/len(list)))
	left := of.count - int(least)*len(list)
	for i := range list {
		list[i].tasks = int(least)
	}
	slices.SortStableFunc(list, func(a, b share) int { return cmp.Compare(a.score, b.score) })
	for round := int32(0); round < g.demand.skew && left > 0; round++ {
		for i := range list {
			if left > 0 && int64(list[i].tasks) < list[i].fits {
				list[i].tasks++
				left--
			}
		}
	}
	return list, left == 0
}

// capable says whether a node in service would admit a task of the role if it were empty.
func (r *room) capable(node int, of *group) bool {
	n, spec := &r.nodes[node], &r.spec[node]
	if !n.usable || spec.CPU < of.shape.cpu || spec.Memory < of.shape.memory {
		return false
	}
	var suit int32
	devices := r.devicesOf(node)
	for i := range devices {
		if devices[i].available && of.kinds.has(devices[i].kind) {
			suit++
		}
	}
	return suit >= of.shape.gpus
}
