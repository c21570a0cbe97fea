package fair

import (
	"container/heap"
	"slices"
)

// Item is a waiting job as the order sees it.
type Item struct {
	Leaf     int // by Tree.Leaf
	User     string
	Priority int32 // higher first
	Demand   Demand
}

// Order hands out waiting jobs: by priority, then down the tree to the queue, and in it the
// user, that would hold the least with its next job, then as they were given. Queues that
// stay within their guarantee come before those that do not. Make one with Tree.Order.
//
// A step costs the depth of the tree times the logarithm of its breadth.
type Order struct {
	tree  *Tree
	items []Item
	bands []band // by priority, descending
	last  int    // index of the item last given
	// Of the band in turn, by node of the tree:
	waiting  map[int][]waiting   // of a user: its items, next first
	siblings map[int]*siblings   // of an inner node: its children with waiting items
	entries  map[int]*childEntry // of a node among its siblings
}

type band struct {
	priority int32
	items    []int32
}

type waiting struct {
	item   int32
	demand []int64
}

// Order starts going through the items. Those of equal priority, leaf and user keep the
// order in which they are given.
func (t *Tree) Order(items []Item) *Order {
	o := &Order{tree: t, items: items, last: -1, siblings: map[int]*siblings{}}
	at := map[int32]int{}
	for i := range items {
		p := items[i].Priority
		b, known := at[p]
		if !known {
			b = len(o.bands)
			at[p] = b
			o.bands = append(o.bands, band{priority: p})
		}
		o.bands[b].items = append(o.bands[b].items, int32(i))
	}
	slices.SortFunc(o.bands, func(a, b band) int { return int(b.priority) - int(a.priority) })
	return o
}

// Next gives the index of the next item to look at; ok is false when none is left. Say
// Placed when it was, before asking for the next.
func (o *Order) Next() (i int, ok bool) {
	for o.siblings[0] == nil || o.siblings[0].Len() == 0 {
		if !o.open() {
			return 0, false
		}
	}
	user := o.head(0)
	list := o.waiting[user]
	o.last = int(list[0].item)
	o.waiting[user] = list[1:]
	o.update(user)
	return o.last, true
}

// Placed books what the item last given holds from now on. d is what it was really given,
// which may be less than the item asked.
func (o *Order) Placed(d Demand) {
	it := &o.items[o.last]
	user := o.tree.userOf(it.Leaf, it.User)
	o.tree.bookOn(user, o.tree.vector(d), 1)
	o.update(user)
}

// open spreads the next band's items over the tree.
func (o *Order) open() bool {
	if len(o.bands) == 0 {
		return false
	}
	o.waiting, o.siblings, o.entries = map[int][]waiting{}, map[int]*siblings{}, map[int]*childEntry{}
	var users []int
	for _, i := range o.bands[0].items {
		it := &o.items[i]
		user := o.tree.userOf(it.Leaf, it.User)
		if len(o.waiting[user]) == 0 {
			users = append(users, user)
		}
		o.waiting[user] = append(o.waiting[user], waiting{item: i, demand: o.tree.vector(it.Demand)})
	}
	for _, user := range users {
		o.update(user)
	}
	o.bands = o.bands[1:]
	return true
}

// head gives the user node below at whose next item comes first.
func (o *Order) head(at int) int {
	for !o.tree.nodes[at].user {
		at = (*o.siblings[at])[0].node
	}
	return at
}

// update puts a user, and every queue above it, in the right place among its siblings after
// what it holds or its next item changed. Who has nothing waiting is taken out.
func (o *Order) update(user int) {
	for at := user; at != 0; at = o.tree.nodes[at].parent {
		parent := o.tree.nodes[at].parent
		s := o.siblings[parent]
		if s == nil {
			s = &siblings{}
			o.siblings[parent] = s
		}
		e := o.entries[at]
		if !o.waits(at) {
			if e != nil {
				heap.Remove(s, e.place)
				delete(o.entries, at)
			}
			continue
		}
		first := o.waiting[o.head(at)][0]
		k := o.tree.key(at, first.demand)
		k.item = first.item
		if e == nil {
			e = &childEntry{node: at, key: k}
			o.entries[at] = e
			heap.Push(s, e)
			continue
		}
		e.key = k
		heap.Fix(s, e.place)
	}
}

func (o *Order) waits(at int) bool {
	if o.tree.nodes[at].user {
		return len(o.waiting[at]) > 0
	}
	return o.siblings[at] != nil && o.siblings[at].Len() > 0
}

// siblings is a heap of the children of a node that have something waiting, for
// container/heap.
type siblings []*childEntry

type childEntry struct {
	node, place int
	key         key
}

func (s siblings) Len() int { return len(s) }

func (s siblings) Less(i, j int) bool { return s[i].key.before(s[j].key) }

func (s siblings) Swap(i, j int) {
	s[i], s[j] = s[j], s[i]
	s[i].place, s[j].place = i, j
}

// Push is for container/heap.
func (s *siblings) Push(x any) {
	e := x.(*childEntry)
	e.place = len(*s)
	*s = append(*s, e)
}

// Pop is for container/heap.
func (s *siblings) Pop() any {
	last := (*s)[len(*s)-1]
	*s = (*s)[:len(*s)-1]
	return last
}

// key orders siblings: within the guarantee first, then the lower share, then the one whose
// next item was given first.
type key struct {
	over  bool
	share float64
	item  int32
}

func (k key) before(other key) bool {
	if k.over != other.over {
		return !k.over
	}
	if k.share != other.share {
		return k.share < other.share
	}
	return k.item < other.item
}

func (t *Tree) key(at int, v []int64) key {
	n := &t.nodes[at]
	return key{over: n.user || !t.within(at, v), share: (t.dominant(at, v) + n.past) / n.weight}
}

// dominant is the largest part of any resource of the cluster that a node would hold with
// the demand beside what it holds.
func (t *Tree) dominant(at int, v []int64) float64 {
	share := 0.0
	for r, have := range t.capacity {
		if have > 0 {
			share = max(share, float64(t.nodes[at].used[r]+v[r])/float64(have))
		}
	}
	return share
}

// Share is the dominant share of the cluster that a queue holds now, 0 to 1, and its past
// usage as New was told.
func (t *Tree) Share(leaf int) (now, past float64) {
	return t.dominant(leaf, make([]int64, len(t.resources))), t.nodes[leaf].past
}

// Held is what a queue and everything below it hold of a resource now, in its unit.
func (t *Tree) Held(leaf int, resource string) int64 {
	if r := slices.Index(t.resources, resource); r >= 0 {
		return t.nodes[leaf].used[r]
	}
	return 0
}

// Running is how many jobs of a queue and everything below it were started.
func (t *Tree) Running(leaf int) int32 { return t.nodes[leaf].running }
