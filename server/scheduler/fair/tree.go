// Package fair keeps the queue tree of a scheduling pass: who holds how much, whether a
// queue's quota admits one job more, whose turn is next, and from whom a queue may take
// back what it has lent.
//
// Quota is hierarchical with borrowing and lending limits, after the semantics that Kueue
// published (KEP 79), but with a parent's quota bounding the sum of its children's instead
// of adding to it. Order is dominant-resource fairness (Ghodsi and others, NSDI 2011) down
// the tree, on what is held now plus what was used before, decayed by the caller; users of
// one leaf share it equally.
//
// It places nothing, knows no job and no time, and remembers nothing between two passes.
// Package scheduler calls it; server/controller fills in the queues.
package fair

import (
	"cmp"
	"slices"
	"strings"
)

// Queue is a node of the queue tree.
type Queue struct {
	Name         string // path; unique
	Parent       string // empty: directly below the root
	Weight       float64
	Limits       []Limit
	RunningMax   int32 // jobs running at a time; 0: no bound
	UserRunning  int32 // running jobs of one user; 0: no bound
	UserShareMax int64 // thousandths of devices held by one user; 0: no bound
}

// Limit bounds one resource of a queue and of what lies below it: "gpu" and "gpu:<model>"
// in thousandths of a device, "cpu" in millicores, "memory" in bytes.
type Limit struct {
	Resource string
	Nominal  int64 // guaranteed
	Borrow   int64 // beyond it, from what siblings do not use; negative: no bound
	Lend     int64 // of it, to siblings while unused; negative: all
}

// Past is what a user used before through a queue, decayed, as a part of what the whole
// cluster could have given in the same time: 0 to 1.
type Past struct {
	Queue, User string
	Part        float64
}

// Demand is what a gang holds or asks for, summed over its tasks.
type Demand struct {
	Share  int64 // thousandths of devices
	CPU    int64 // millicores
	Memory int64 // bytes
	Models []ModelShare
}

// ModelShare is the part of Demand.Share on devices of one model, where it is known.
type ModelShare struct {
	Model string
	Share int64 // thousandths of devices
}

// unlimited stands for no bound.
const unlimited = int64(1) << 62

// Tree is the queue tree with what its queues hold. Make one with New. It is not safe for
// concurrent use.
type Tree struct {
	resources []string // interned names of what is counted; the first three always there
	capacity  []int64  // of the cluster, by resource
	nodes     []node   // parents before children; the root is 0
	leaves    map[string]int
	users     map[userKey]int // node of a user by leaf and name
	past      map[userKey]float64
	bounded   bool // some queue has a quota or another bound
}

// The resources that every tree counts.
const (
	resourceGPU = iota
	resourceCPU
	resourceMemory
)

type userKey struct {
	leaf int
	user string
}

// node is a queue, a user of a leaf queue, or the root.
type node struct {
	name     string
	parent   int
	depth    int
	weight   float64
	past     float64
	running  int32
	used     []int64 // held by the subtree, by resource
	counted  []int64 // the sum of what its children hold, or never lend if that is more
	limited  []bool  // by resource; false: the other columns mean nothing
	nominal  []int64
	cap      []int64 // nominal and what may be borrowed
	reserved []int64 // of nominal, never lent
	bounds   Queue
	user     bool
}

// New builds the tree. capacity is the cluster's; resources it lacks count as without end.
// It is tolerant, since the state has been checked before: a queue whose parent is unknown,
// or is below itself, counts as directly below the root, a weight below 1 as 1.
func New(queues []Queue, past []Past, capacity Demand) *Tree {
	t := &Tree{resources: []string{"gpu", "cpu", "memory"}, leaves: map[string]int{},
		users: map[userKey]int{}, past: map[userKey]float64{}}
	for i := range queues {
		for _, l := range queues[i].Limits {
			if !slices.Contains(t.resources, l.Resource) {
				t.resources = append(t.resources, l.Resource)
			}
		}
	}
	slices.Sort(t.resources[resourceMemory+1:])
	t.nodes = append(t.nodes, t.newNode("", 0, 0, 1))
	t.capacity = t.vector(capacity)
	root := &t.nodes[0]
	for r, have := range t.capacity {
		root.limited[r], root.nominal[r], root.cap[r] = have > 0, have, have
	}
	for _, q := range parentsFirst(queues) {
		t.addQueue(q)
	}
	for _, p := range past {
		t.charge(p)
	}
	return t
}

// Bounded says whether any queue has a quota or another bound: without one, the cluster's
// capacity alone refuses, whoever asks.
func (t *Tree) Bounded() bool { return t.bounded }

func (t *Tree) newNode(name string, parent, depth int, weight float64) node {
	n := len(t.resources)
	return node{name: name, parent: parent, depth: depth, weight: max(1, weight), used: make([]int64, n),
		counted: make([]int64, n), limited: make([]bool, n), nominal: make([]int64, n), cap: make([]int64, n), reserved: make([]int64, n)}
}

// parentsFirst orders the queues so that each comes after its parent, and by name among
// equals; those on a cycle come last.
func parentsFirst(queues []Queue) []Queue {
	parents := map[string]string{}
	for i := range queues {
		parents[queues[i].Name] = queues[i].Parent
	}
	depth := func(name string) int {
		d := 0
		for d <= len(queues) {
			parent, known := parents[name]
			if !known || parent == "" {
				break
			}
			name = parent
			d++
		}
		return d
	}
	ordered := slices.Clone(queues)
	slices.SortStableFunc(ordered, func(a, b Queue) int {
		return cmp.Or(cmp.Compare(depth(a.Name), depth(b.Name)), strings.Compare(a.Name, b.Name))
	})
	return ordered
}

func (t *Tree) addQueue(q Queue) {
	parent, known := t.leaves[q.Parent]
	if !known || q.Parent == "" {
		parent = 0
	}
	n := t.newNode(q.Name, parent, t.nodes[parent].depth+1, q.Weight)
	n.bounds = q
	t.bounded = t.bounded || len(q.Limits) > 0 || q.RunningMax > 0 || q.UserRunning > 0 || q.UserShareMax > 0
	for _, l := range q.Limits {
		r := slices.Index(t.resources, l.Resource)
		n.limited[r], n.nominal[r], n.cap[r] = true, l.Nominal, unlimited
		if l.Borrow >= 0 {
			n.cap[r] = l.Nominal + l.Borrow
		}
		if l.Lend >= 0 {
			n.reserved[r] = max(0, l.Nominal-l.Lend)
		}
	}
	at := len(t.nodes)
	t.leaves[q.Name] = at
	t.nodes = append(t.nodes, n)
	for r, kept := range n.reserved {
		t.raise(parent, r, kept)
	}
}

// raise adds to what a node counts for, and to what that makes the nodes above it count.
func (t *Tree) raise(at, r int, more int64) {
	for more != 0 {
		n := &t.nodes[at]
		before := max(n.counted[r], n.reserved[r])
		n.counted[r] += more
		if at == 0 {
			return
		}
		more = max(n.counted[r], n.reserved[r]) - before
		at = n.parent
	}
}

// charge books past usage on the user's queue and everything above it.
func (t *Tree) charge(p Past) {
	leaf := t.Leaf(p.Queue)
	t.past[userKey{leaf, p.User}] += p.Part
	for at := leaf; at != 0; at = t.nodes[at].parent {
		t.nodes[at].past += p.Part
	}
}

// Leaf gives the place of a queue. All queues that the tree does not know share one, below
// the root, with weight 1 and no limits.
func (t *Tree) Leaf(name string) int {
	if at, known := t.leaves[name]; known {
		return at
	}
	const stranger = "" // no queue is called so
	at, known := t.leaves[stranger]
	if !known {
		at = len(t.nodes)
		t.leaves[stranger] = at
		t.nodes = append(t.nodes, t.newNode(stranger, 0, 1, 1))
	}
	return at
}

// userOf gives the node of a user below a leaf.
func (t *Tree) userOf(leaf int, user string) int {
	key := userKey{leaf, user}
	at, known := t.users[key]
	if !known {
		at = len(t.nodes)
		t.users[key] = at
		n := t.newNode(user, leaf, t.nodes[leaf].depth+1, 1)
		n.user, n.past = true, t.past[key]
		t.nodes = append(t.nodes, n)
	}
	return at
}

// vector turns a demand into amounts by resource.
func (t *Tree) vector(d Demand) []int64 {
	v := make([]int64, len(t.resources))
	v[resourceGPU], v[resourceCPU], v[resourceMemory] = d.Share, d.CPU, d.Memory
	for r := resourceMemory + 1; r < len(v); r++ {
		for _, m := range d.Models {
			if strings.TrimPrefix(t.resources[r], "gpu:") == m.Model {
				v[r] += m.Share
			}
		}
	}
	return v
}

// Start books what a live attempt of the user holds.
func (t *Tree) Start(leaf int, user string, d Demand) { t.book(leaf, user, d, 1) }

// StartSeveral books what so many live attempts of the user hold together.
func (t *Tree) StartSeveral(leaf int, user string, d Demand, attempts int32) {
	t.book(leaf, user, d, 1)
	for at := t.userOf(leaf, user); ; at = t.nodes[at].parent {
		t.nodes[at].running += attempts - 1
		if at == 0 {
			return
		}
	}
}

// End takes back what Start booked.
func (t *Tree) End(leaf int, user string, d Demand) { t.book(leaf, user, d, -1) }

func (t *Tree) book(leaf int, user string, d Demand, sign int64) {
	t.bookOn(t.userOf(leaf, user), t.vector(d), sign)
}

func (t *Tree) bookOn(user int, v []int64, sign int64) {
	for r, amount := range v {
		t.raise(user, r, sign*amount)
	}
	for at := user; ; at = t.nodes[at].parent {
		n := &t.nodes[at]
		n.running += int32(sign)
		for r := range v {
			n.used[r] += sign * v[r]
		}
		if at == 0 {
			return
		}
	}
}
