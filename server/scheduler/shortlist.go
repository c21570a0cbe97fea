package scheduler

// shortlist ranks single nodes for one group of tasks, where classes do not do: among the
// nodes of a set, or with a preference that depends on the node.
type shortlist struct {
	buckets [bucketsMax + 1]heap // by fit; entry.at is the position
	filled  []int                // buckets that have entries
}

// open fills the list with the nodes of the set that admit a task; nil: of all.
func (l *shortlist) open(g *gang, x *index, nodes nodeSet) {
	for _, b := range l.filled {
		l.buckets[b] = l.buckets[b][:0]
	}
	l.filled = l.filled[:0]
	nodes.each(g.room, func(node int) {
		if fit := x.fitOn(g.room, node); fit > 0 {
			b := int(min(fit, bucketsMax))
			if len(l.buckets[b]) == 0 {
				l.filled = append(l.filled, b)
			}
			l.buckets[b] = append(l.buckets[b], g.entryOf(x, node))
		}
	})
	for _, b := range l.filled {
		l.buckets[b].arrange()
	}
}

// entryOf values a node that admits a task of the index.
func (g *gang) entryOf(x *index, node int) entry {
	c := &g.room.classes
	at := c.of[node]
	e := entry{score: x.values[at].score, key: c.list[at].key, at: c.position[node]}
	if g.prefer != nil {
		e.first = g.prefer(node, &x.shape)
	}
	if g.demand.addend != nil {
		e.score += g.demand.addend(node)
	}
	return e
}

// add notes what is free on a node now; what was noted before is stale.
func (l *shortlist) add(g *gang, x *index, node int) {
	if fit := x.fitOn(g.room, node); fit > 0 {
		b := int(min(fit, bucketsMax))
		if len(l.buckets[b]) == 0 {
			l.filled = append(l.filled, b)
		}
		l.buckets[b].push(g.entryOf(x, node))
	}
}

// top gives the best node of a bucket, nil for none.
func (l *shortlist) top(r *room, bucket int) *entry {
	h := &l.buckets[bucket]
	for len(*h) > 0 {
		e := &(*h)[0]
		if at := r.classes.of[r.classes.nodeAt[e.at]]; at >= 0 && r.classes.list[at].key == e.key {
			return e
		}
		h.pop()
	}
	return nil
}

// fewest is index.fewest over the list; with a preference among nodes, that alone counts.
func (l *shortlist) fewest(g *gang, want int) int {
	want = min(want, bucketsMax)
	if g.prefer != nil {
		want = 1
	}
	var best *entry
	for bucket := want; bucket <= bucketsMax; bucket++ {
		if e := l.top(g.room, bucket); e != nil && (best == nil || e.before(best)) {
			best = e
		}
	}
	for bucket := want - 1; bucket > 0 && best == nil; bucket-- {
		best = l.top(g.room, bucket)
	}
	if best == nil {
		return -1
	}
	return int(g.room.classes.nodeAt[best.at])
}

// best picks the node for one task without a list.
func (g *gang) best(x *index, nodes nodeSet) int {
	best, found := entry{}, -1
	nodes.each(g.room, func(node int) {
		if x.fitOn(g.room, node) == 0 {
			return
		}
		if e := g.entryOf(x, node); found < 0 || e.before(&best) {
			best, found = e, node
		}
	})
	return found
}
