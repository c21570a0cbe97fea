package scheduler

// index ranks the classes of nodes for one shape: by how many tasks a node of them admits,
// and within that by score. Building it costs one look at each class; afterwards it hears of
// classes that got nodes (room.classes.woken), so that a node that changes costs every index
// nothing unless its new state is one that no node was in.
type index struct {
	shape   shape
	values  []value              // by class
	caught  int                  // end of the part of classes.woken that has been seen
	buckets [bucketsMax + 1]heap // by fit; the last one holds larger fits too
}

// value is what a class is worth to a shape.
type value struct {
	score  float64
	fit    int32
	born   uint32 // of the class when it was valued; another one now: not valued
	queued bool   // an entry with this born is in a heap
}

// bucketsMax is the number of tasks on one node up to which a gang is kept on as few nodes
// as can be; with more tasks a node the count is not told apart.
const bucketsMax = 64

// indexesMax bounds the shapes that are indexed at a time; beyond it the indexes start over.
const indexesMax = 256

// shapesMax bounds the shapes that a room remembers to have been asked for.
const shapesMax = 4096

// rare says whether the shape was not asked for before: then looking at each class once
// costs less than an index, which may never be used again. The outcome is the same.
func (r *room) rare(s *shape) bool {
	if r.indexes[*s] != nil || r.asked[*s] {
		return false
	}
	if len(r.asked) >= shapesMax {
		clear(r.asked)
	}
	r.asked[*s] = true
	return true
}

// scan picks the best node for one task of the shape without an index, -1 for none.
func (r *room) scan(s *shape) int {
	r.settle()
	var best entry
	node := -1
	for at := range r.classes.list {
		k := &r.classes.list[at]
		if k.count == 0 {
			continue
		}
		first := r.classes.first(int32(at))
		if r.fit(first, s) == 0 {
			continue
		}
		e := entry{score: r.cost(first, s), key: k.key, at: int32(at)}
		if node < 0 || e.before(&best) {
			best, node = e, first
		}
	}
	return node
}

// index gives the shape's index, up to date.
func (r *room) index(s *shape) *index {
	r.settle()
	x := r.indexes[*s]
	if x != nil && x.caught >= r.classes.base {
		x.catchUp(r)
		return x
	}
	if len(r.indexes) >= indexesMax {
		clear(r.indexes)
	}
	x = &index{shape: *s, values: make([]value, len(r.classes.list)), caught: r.classes.base + len(r.classes.woken)}
	for at := range r.classes.list {
		if r.classes.list[at].count > 0 {
			x.learn(r, int32(at), false)
		}
	}
	for i := range x.buckets {
		x.buckets[i].arrange()
	}
	r.indexes[*s] = x
	return x
}

func (x *index) catchUp(r *room) {
	c := &r.classes
	for ; x.caught < c.base+len(c.woken); x.caught++ {
		if at := c.woken[x.caught-c.base]; c.list[at].count > 0 {
			x.learn(r, at, true)
		}
	}
}

// learn values a class that has nodes and puts it where it belongs.
func (x *index) learn(r *room, at int32, sorted bool) {
	if int(at) >= len(x.values) {
		x.values = append(x.values, make([]value, len(r.classes.list)-len(x.values))...)
	}
	v, k := &x.values[at], &r.classes.list[at]
	if v.born != k.born {
		node := r.classes.first(at)
		*v = value{fit: r.fit(node, &x.shape), born: k.born}
		if v.fit > 0 {
			v.score = r.cost(node, &x.shape)
		}
	}
	if v.fit == 0 || v.queued {
		return
	}
	v.queued = true
	e := entry{score: v.score, key: k.key, at: at, born: k.born}
	h := &x.buckets[min(v.fit, bucketsMax)]
	if sorted {
		h.push(e)
		x.sweep(r, h)
		return
	}
	*h = append(*h, e)
}

// sweep throws the stale entries of a heap away when there are more of them than can be.
func (x *index) sweep(r *room, h *heap) {
	if len(*h) <= 2*len(r.classes.of)+64 {
		return
	}
	kept := (*h)[:0]
	for _, e := range *h {
		if k := &r.classes.list[e.at]; k.born == e.born && k.count > 0 {
			kept = append(kept, e)
		} else if x.values[e.at].born == e.born {
			x.values[e.at].queued = false
		}
	}
	*h = kept
	h.arrange()
}

// cost is the rank of a node and what does not belong to the score of its free room.
func (r *room) cost(node int, s *shape) float64 {
	return r.rank(node, s) + togetherWeight*losesTogether(r, node, s)
}

// togetherWeight is what one task spread over islands costs, in the unit of Weights.
const togetherWeight = 2

// fitOn says how many tasks of the shape a node admits; the index is up to date.
func (x *index) fitOn(r *room, node int) int32 {
	if at := r.classes.of[node]; at >= 0 {
		return x.values[at].fit
	}
	return 0
}

// total counts the tasks that all nodes admit, and may stop at enough.
func (x *index) total(r *room, enough int64) int64 {
	var sum int64
	for at := range r.classes.list {
		if count := r.classes.list[at].count; count > 0 {
			if sum += int64(count) * int64(x.values[at].fit); sum >= enough {
				break
			}
		}
	}
	return sum
}

// top gives the best class with nodes of a bucket; stale entries on the way are thrown away.
func (x *index) top(r *room, bucket int) *entry {
	h := &x.buckets[bucket]
	for len(*h) > 0 {
		e := &(*h)[0]
		if k := &r.classes.list[e.at]; k.born == e.born && k.count > 0 {
			return e
		}
		if v := &x.values[e.at]; v.born == e.born {
			v.queued = false
		}
		h.pop()
	}
	return nil
}

// fewest picks a node for want tasks so that the gang ends up on few nodes: the best that
// admits all of them, else the best of those that admit most. -1 when none admits any.
func (x *index) fewest(r *room, want int) int {
	want = min(want, bucketsMax)
	var best *entry
	for bucket := want; bucket <= bucketsMax; bucket++ {
		if e := x.top(r, bucket); e != nil && (best == nil || e.before(best)) {
			best = e
		}
	}
	for bucket := want - 1; bucket > 0 && best == nil; bucket-- {
		best = x.top(r, bucket)
	}
	if best == nil {
		return -1
	}
	return r.classes.first(best.at)
}

// entry is a class, or in a shortlist a node, in a heap.
type entry struct {
	first float64 // of a placer with a preference
	score float64
	key   fingerprint // breaks ties by what is free, not by names
	at    int32
	born  uint32
}

func (e *entry) before(f *entry) bool {
	if e.first != f.first {
		return e.first < f.first
	}
	if e.score != f.score {
		return e.score < f.score
	}
	if e.key != f.key {
		return e.key.before(f.key)
	}
	return e.at < f.at
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
		if child+1 < len(h) && h[child+1].before(&h[child]) {
			child++
		}
		if !h[child].before(&h[i]) {
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
		if !s[i].before(&s[parent]) {
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
