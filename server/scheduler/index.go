package scheduler

// index ranks the nodes for one shape: by how many tasks each admits, and within that by
// score. It is built once a pass and catches up with the nodes that changed since it was
// last asked, so that placing many equal tasks costs one look at a node for each that
// changed instead of a look at every node for each task.
type index struct {
	shape   shape
	fits    []int32              // by node
	scored  []uint32             // by node: its version when it was last scored
	total   int64                // sum of fits
	caught  int                  // length of room.changed that has been seen
	buckets [bucketsMax + 1]heap // by fit; the last one holds larger fits too
}

// bucketsMax is the number of tasks on one node up to which a gang is kept on as few nodes
// as can be; with more tasks a node the count is not told apart.
const bucketsMax = 64

type entry struct {
	score   float64
	node    int32
	version uint32 // of the node when it was scored; another one now: the entry is stale
}

func (e entry) before(f entry) bool {
	return e.score < f.score || (e.score == f.score && e.node < f.node)
}

// indexesMax bounds the shapes that are indexed in a pass; beyond it the indexes start over.
const indexesMax = 128

// index gives the shape's index, up to date.
func (r *room) index(s shape) *index {
	if x := r.indexes[s]; x != nil {
		x.catchUp(r)
		return x
	}
	if len(r.indexes) >= indexesMax {
		clear(r.indexes)
	}
	x := r.newIndex(s)
	r.indexes[s] = x
	return x
}

func (r *room) newIndex(s shape) *index {
	x := &index{shape: s, fits: make([]int32, len(r.nodes)), scored: make([]uint32, len(r.nodes)), caught: len(r.changed)}
	for node := range r.nodes {
		version := r.nodes[node].version
		x.scored[node] = version
		fit := r.fit(node, &x.shape)
		if fit == 0 {
			continue
		}
		x.fits[node] = fit
		x.total += int64(fit)
		b := min(fit, bucketsMax)
		x.buckets[b] = append(x.buckets[b], entry{score: r.rank(node, &x.shape), node: int32(node), version: version})
	}
	for i := range x.buckets {
		x.buckets[i].arrange()
	}
	return x
}

func (x *index) catchUp(r *room) {
	for ; x.caught < len(r.changed); x.caught++ {
		node := int(r.changed[x.caught])
		version := r.nodes[node].version
		if x.scored[node] == version {
			continue
		}
		x.scored[node] = version
		fit := r.fit(node, &x.shape)
		x.total += int64(fit - x.fits[node])
		x.fits[node] = fit
		if fit > 0 {
			x.buckets[min(fit, bucketsMax)].push(entry{score: r.rank(node, &x.shape), node: int32(node), version: version})
		}
	}
}

// top gives the best node of a bucket; stale entries on the way are thrown away. Versions
// only grow, so an entry with the node's version was scored as the node is now.
func (x *index) top(r *room, bucket int, excluded map[int]bool) (entry, bool) {
	h := &x.buckets[bucket]
	for len(*h) > 0 {
		e := (*h)[0]
		if e.version == r.nodes[e.node].version {
			if !excluded[int(e.node)] {
				return e, true
			}
			return h.bestOf(func(e entry) bool {
				return e.version == r.nodes[e.node].version && !excluded[int(e.node)]
			})
		}
		h.pop()
	}
	return entry{}, false
}

// fewest picks a node for want tasks so that the gang ends up on few nodes: the best that
// admits all of them, else the best of those that admit most. -1 when none admits any.
func (x *index) fewest(r *room, want int, excluded map[int]bool) int {
	want = min(want, bucketsMax)
	if node := x.bestFrom(r, want, excluded); node >= 0 {
		return node
	}
	for bucket := want - 1; bucket > 0; bucket-- {
		if e, found := x.top(r, bucket, excluded); found {
			return int(e.node)
		}
	}
	return -1
}

// bestFrom picks the node with the lowest rank of those that admit at least so many tasks.
// -1 when there is none.
func (x *index) bestFrom(r *room, least int, excluded map[int]bool) int {
	best, found := entry{}, false
	for bucket := least; bucket <= bucketsMax; bucket++ {
		if e, ok := x.top(r, bucket, excluded); ok && (!found || e.before(best)) {
			best, found = e, true
		}
	}
	if !found {
		return -1
	}
	return int(best.node)
}

// heap is a binary heap of entries, the best first. container/heap would box every entry.
type heap []entry

func (h heap) arrange() {
	for i := len(h)/2 - 1; i >= 0; i-- {
		h.sink(i)
	}
}

func (h heap) sink(i int) {
	for {
		child := 2*i + 1
		if child >= len(h) {
			return
		}
		if child+1 < len(h) && h[child+1].before(h[child]) {
			child++
		}
		if !h[child].before(h[i]) {
			return
		}
		h[i], h[child] = h[child], h[i]
		i = child
	}
}

func (h *heap) push(e entry) {
	*h = append(*h, e)
	s := *h
	for i := len(s) - 1; i > 0; {
		parent := (i - 1) / 2
		if !s[i].before(s[parent]) {
			return
		}
		s[i], s[parent] = s[parent], s[i]
		i = parent
	}
}

func (h *heap) pop() {
	s := *h
	last := len(s) - 1
	s[0] = s[last]
	*h = s[:last]
	h.sink(0)
}

// bestOf looks through the whole heap; it is used only when the first one is excluded.
func (h heap) bestOf(admitted func(entry) bool) (entry, bool) {
	best, found := entry{}, false
	for _, e := range h {
		if admitted(e) && (!found || e.before(best)) {
			best, found = e, true
		}
	}
	return best, found
}
