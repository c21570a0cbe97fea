package main

import "llmos/server/scheduler/packing"

// cluster is what is free while pods arrive and leave.
type cluster struct {
	tr      *trace
	nodes   []node
	changed []int32 // nodes in the order in which they changed
	shapes  map[packing.Shape]*ranking
}

type node struct {
	cpu, memory int64
	model       int
	capacity    int64   // of CPU
	free        []int32 // thousandths, by device
	pods        int
	classes     [gpusMax + 1]int32 // GPU pods here: shared ones at 0, others by their count
}

func newCluster(tr *trace) *cluster {
	c := &cluster{tr: tr, nodes: make([]node, len(tr.hosts)), shapes: map[packing.Shape]*ranking{}}
	for i := range tr.hosts {
		h := &tr.hosts[i]
		n := node{cpu: h.cpu, capacity: h.cpu, memory: h.memory, model: h.model, free: make([]int32, h.gpus)}
		for d := range n.free {
			n.free[d] = packing.Whole
		}
		c.nodes[i] = n
	}
	return c
}

// class is a pod's place in node.classes.
func class(s *packing.Shape) int {
	if s.Share < packing.Whole {
		return 0
	}
	return int(s.GPUs)
}

// admits says whether the node has what the shape asks.
func (n *node) admits(s *packing.Shape) bool {
	if n.cpu < s.CPU || n.memory < s.Memory {
		return false
	}
	if s.GPUs == 0 {
		return true
	}
	if !s.Models.Has(n.model) {
		return false
	}
	count := int32(0)
	for _, free := range n.free {
		if free >= s.Share {
			count++
		}
	}
	return count >= s.GPUs
}

// take places a pod; device is that of a shared one.
func (c *cluster) take(at, device int, s *packing.Shape) (devices uint64) {
	n := &c.nodes[at]
	if s.GPUs > 0 {
		n.classes[class(s)]++
		if s.Share < packing.Whole {
			devices = 1 << uint(device)
		} else {
			for d, left := 0, s.GPUs; left > 0; d++ {
				if n.free[d] == packing.Whole {
					devices |= 1 << uint(d)
					left--
				}
			}
		}
	}
	n.pods++
	c.change(at, devices, s, -1)
	return devices
}

// leave gives back what take took.
func (c *cluster) leave(at int, devices uint64, s *packing.Shape) {
	n := &c.nodes[at]
	if s.GPUs > 0 {
		n.classes[class(s)]--
	}
	n.pods--
	c.change(at, devices, s, 1)
}

func (c *cluster) change(at int, devices uint64, s *packing.Shape, sign int64) {
	n := &c.nodes[at]
	n.cpu += sign * s.CPU
	n.memory += sign * s.Memory
	for d := range n.free {
		if devices>>uint(d)&1 != 0 {
			n.free[d] += int32(sign) * s.Share
		}
	}
	c.changed = append(c.changed, int32(at))
}

// idle is the free share of all devices of the node.
func (n *node) idle() int64 {
	sum := int64(0)
	for _, free := range n.free {
		sum += int64(free)
	}
	return sum
}

// tightest is the first of the devices that admit the shape with the least free.
func (n *node) tightest(s *packing.Shape) int {
	best := -1
	for d, free := range n.free {
		if free >= s.Share && (best < 0 || free < n.free[best]) {
			best = d
		}
	}
	return best
}
