package scheduler

import "math/bits"

// class is a set of nodes on which the same is free: as much CPU, memory and ports, and
// devices of the same kinds with the same shares free at the same places. What a shape fits
// and loses is the same on each of them, so it is found out once for the class.
//
// A class lives on with no nodes, in case some come back, until its place is needed.
type class struct {
	key   fingerprint
	born  uint32 // grows when the place is given to another class
	count int32
	only  int32    // the position, while there is one node
	low   int32    // no word before this one has a bit
	words []uint64 // by position, once there were two nodes
}

// fingerprint stands for everything that fit and score read of a node. It is made of 128
// bits of content and of no name or number of ours: equal in every pass.
type fingerprint [2]uint64

func (f fingerprint) before(g fingerprint) bool {
	return f[0] < g[0] || (f[0] == g[0] && f[1] < g[1])
}

// classes are all classes of a room, and the log from which indexes learn of new ones.
type classes struct {
	list  []class
	byKey map[fingerprint]int32
	of    []int32 // by node: its class, -1 for a node that takes no work
	empty []int32 // classes that had no nodes left, oldest first; some have nodes again
	woken []int32 // classes in the order in which they got their first node
	base  int     // of woken: how many were cut off before it

	position []int32 // by node: its place in the order of topology
	nodeAt   []int32 // by position
}

// wokenMax bounds the log to this many entries for each node; an index that has not been
// asked for so long is built anew.
const wokenMax = 4

func (c *classes) words() int { return (len(c.of) + 63) / 64 }

// move puts a node into the class of the fingerprint.
func (c *classes) move(node int, key fingerprint) {
	to := c.find(key)
	if from := c.of[node]; from != to {
		c.leave(node)
		c.of[node] = to
		c.enter(to, c.position[node])
	}
}

// leave takes a node out of its class.
func (c *classes) leave(node int) {
	at := c.of[node]
	if at < 0 {
		return
	}
	c.of[node] = -1
	k := &c.list[at]
	p := c.position[node]
	if k.words != nil {
		k.words[p>>6] &^= 1 << (p & 63)
	}
	if k.count--; k.count == 0 {
		c.empty = append(c.empty, at)
	}
}

func (c *classes) enter(at, position int32) {
	k := &c.list[at]
	k.count++
	if k.words == nil && k.count == 1 {
		k.only = position
	} else {
		if k.words == nil {
			k.words = make([]uint64, c.words())
			k.words[k.only>>6] |= 1 << (k.only & 63)
			k.low = k.only >> 6
		}
		k.words[position>>6] |= 1 << (position & 63)
		k.low = min(k.low, position>>6)
	}
	if k.count == 1 {
		c.woken = append(c.woken, at)
		if limit := wokenMax*len(c.of) + 1024; len(c.woken) > limit {
			c.base += limit / 2
			c.woken = append(c.woken[:0:0], c.woken[limit/2:]...)
		}
	}
}

// find gives the class of a fingerprint, in a place of its own or of one that is empty.
func (c *classes) find(key fingerprint) int32 {
	if at, known := c.byKey[key]; known {
		return at
	}
	at := int32(-1)
	for len(c.empty) > len(c.of) && at < 0 {
		if first := c.empty[0]; c.list[first].count == 0 && c.byKey[c.list[first].key] == first {
			at = first
		}
		c.empty = c.empty[1:]
	}
	if at < 0 {
		at = int32(len(c.list))
		c.list = append(c.list, class{})
	}
	k := &c.list[at]
	if k.born > 0 {
		delete(c.byKey, k.key)
	}
	k.key = key
	k.born++
	clear(k.words)
	k.low = int32(len(k.words))
	c.byKey[key] = at
	return at
}

// first gives the node of a class that comes first in the order of topology; the class has one.
func (c *classes) first(at int32) int {
	k := &c.list[at]
	if k.words == nil {
		return int(c.nodeAt[k.only])
	}
	for k.words[k.low] == 0 {
		k.low++
	}
	return int(c.nodeAt[int(k.low)<<6+bits.TrailingZeros64(k.words[k.low])])
}

// settle puts the nodes that changed into their classes.
func (r *room) settle() {
	for _, node := range r.changed {
		n := &r.nodes[node]
		n.changed = false
		if !n.usable {
			r.classes.leave(int(node))
			continue
		}
		r.classes.move(int(node), r.fingerprint(int(node)))
	}
	r.changed = r.changed[:0]
}

// portsClass is the number of free ports beyond which they are not told apart.
const portsClass = 1024

// fingerprint reads the node's state. Devices of one kind at one place may be permuted.
func (r *room) fingerprint(node int) fingerprint {
	n := &r.nodes[node]
	f := n.static
	f.add(uint64(n.cpu), 1)
	f.add(uint64(n.memory), 2)
	f.add(uint64(min(n.ports, portsClass)), 3)
	var sum fingerprint
	devices := r.devices[n.first:n.last]
	for i := range devices {
		d := &devices[i]
		if d.available {
			var one fingerprint
			one.add(uint64(d.memFree)^uint64(d.shareFree)<<48, 4)
			one.add(d.place, 4)
			sum[0] += one[0]
			sum[1] += one[1]
		}
	}
	f.add(sum[0], 5)
	f.add(sum[1], 6)
	return f
}

// add mixes a value into both halves; the finaliser is that of SplitMix64.
func (f *fingerprint) add(v, salt uint64) {
	f[0] = mix(f[0] ^ v*0x9e3779b97f4a7c15 + salt)
	f[1] = mix(f[1] + v ^ salt*0xc2b2ae3d27d4eb4f)
}

func (f *fingerprint) addText(s string) {
	for i := 0; i < len(s); i++ {
		f.add(uint64(s[i]), 7)
	}
	f.add(uint64(len(s)), 8)
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
