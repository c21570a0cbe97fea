package scheduler

import (
	"cmp"
	"slices"
)

// room is the free capacity of a snapshot while a pass spends it. Everything taken is on
// the trail, so that a gang that turns out not to fit is given back.
type room struct {
	spec    []Node // the snapshot's, by ID
	nodes   []nodeRoom
	devices []device // of all nodes, node after node
	models  []string // interned, ascending
	kinds   []kind   // of device, smallest first
	weights Weights
	ratio   float64                          // millicores that GPU tasks ask per device
	rank    func(node int, s *shape) float64 // lower takes first; the score, but in a hold's room

	trail   []taken
	granted []granted
	changed []int32 // nodes in the order in which they changed; indexes catch up from it
	indexes map[shape]*index
}

// nodeRoom is what is free on one node.
type nodeRoom struct {
	usable      bool
	uniform     bool // all devices are of one kind
	first, last int32
	cpu, memory int64
	share       int64 // thousandths of available devices
	whole       int32 // available devices that nobody holds any of
	ports       int32
	version     uint32
}

type device struct {
	memory, memFree int64
	shareFree       int32 // 0 when it is not available
	model           int16
	rank            int16 // place of its memory size among the sizes of the cluster
	available       bool
}

// kind is a model of device with its memory.
type kind struct {
	model  int16
	memory int64
}

// taken is one entry of the trail: what one task, or one hold, took from a node.
type taken struct {
	node        int32
	ports       int32
	cpu, memory int64
	first, last int32 // in room.granted
}

type granted struct {
	device int32 // in room.devices
	share  int32
	memory int64
}

// view is what a room takes for free.
type view int

const (
	viewFree       view = iota // what is free on the ready nodes
	viewEmpty                  // what would be if nobody held anything there
	viewRegistered             // the capacity of all nodes and devices, ready and healthy or not
)

// newRoom copies what is free from the nodes, which must be in order of ID.
func newRoom(nodes []Node, weights Weights, ratio float64, v view) *room {
	total := 0
	for i := range nodes {
		total += len(nodes[i].Devices)
	}
	r := &room{spec: nodes, nodes: make([]nodeRoom, len(nodes)), devices: make([]device, 0, total),
		weights: weights, ratio: ratio, indexes: map[shape]*index{}}
	r.rank = r.score
	r.learnKinds()
	ranks := r.sizes()
	var last device // neighbours are mostly alike: look a model up once
	var lastModel string
	for i := range nodes {
		spec, n := &nodes[i], &r.nodes[i]
		n.usable = spec.Status == NodeReady || v == viewRegistered
		n.cpu, n.memory = spec.CPUFree, spec.MemFree
		n.ports = portsFree(spec, v)
		if v != viewFree {
			n.cpu, n.memory = spec.CPU, spec.Memory
		}
		n.first = int32(len(r.devices))
		for j := range spec.Devices {
			d := &spec.Devices[j]
			if len(r.devices) == 0 || d.Memory != last.memory || d.Model != lastModel {
				last = device{memory: d.Memory, model: r.model(d.Model), rank: rankOf(ranks, d.Memory)}
				lastModel = d.Model
			}
			work := last
			work.open(d, v)
			r.devices = append(r.devices, work)
			r.count(n, &work, 1)
		}
		n.last = int32(len(r.devices))
		n.uniform = isUniform(r.devices[n.first:n.last])
	}
	return r
}

// open sets what is free of the device.
func (w *device) open(d *Device, v view) {
	w.available = d.Available || v == viewRegistered
	switch {
	case w.available && v != viewFree:
		w.shareFree, w.memFree = deviceWhole, d.Memory
	case w.available:
		w.shareFree, w.memFree = d.ShareFree, d.MemFree
	}
}

func portsFree(n *Node, v view) int32 {
	switch {
	case n.PortMin <= 0 || n.PortMax < n.PortMin:
		return 0
	case v != viewFree:
		return n.PortMax - n.PortMin + 1
	}
	return max(0, n.PortMax-n.PortMin+1-int32(len(n.Ports)))
}

func isUniform(devices []device) bool {
	for i := range devices {
		if !devices[i].sameKind(&devices[0]) {
			return false
		}
	}
	return len(devices) > 0
}

// learnKinds interns the models. Neighbouring devices are mostly alike, so that comparing
// with the one before saves nearly every look-up.
func (r *room) learnKinds() {
	type named struct {
		model  string
		memory int64
	}
	seen := map[named]bool{}
	var names []named
	var last named
	for i := range r.spec {
		for j := range r.spec[i].Devices {
			d := &r.spec[i].Devices[j]
			if k := (named{d.Model, d.Memory}); k != last || len(names) == 0 {
				if last = k; !seen[k] {
					seen[k] = true
					names = append(names, k)
				}
			}
		}
	}
	slices.SortFunc(names, func(a, b named) int {
		return cmp.Or(cmp.Compare(a.memory, b.memory), cmp.Compare(a.model, b.model))
	})
	for _, k := range names {
		r.models = append(r.models, k.model)
	}
	slices.Sort(r.models)
	r.models = slices.Compact(r.models)
	for _, k := range names {
		r.kinds = append(r.kinds, kind{model: r.model(k.model), memory: k.memory})
	}
}

func (r *room) model(name string) int16 {
	if i, found := slices.BinarySearch(r.models, name); found {
		return int16(i)
	}
	return noModel
}

// sizes gives the distinct device memory sizes, ascending.
func (r *room) sizes() []int64 {
	var sizes []int64
	for _, k := range r.kinds {
		sizes = append(sizes, k.memory)
	}
	return slices.Compact(sizes) // kinds are in order of memory
}

func rankOf(sizes []int64, memory int64) int16 {
	i, _ := slices.BinarySearch(sizes, memory)
	return int16(i)
}

// count adds (sign 1) or removes (-1) a device's free share from its node's sums.
func (r *room) count(n *nodeRoom, d *device, sign int32) {
	n.share += int64(sign) * int64(d.shareFree)
	if d.available && d.isWhole() {
		n.whole += sign
	}
}

func (r *room) devicesOf(node int) []device {
	n := &r.nodes[node]
	return r.devices[n.first:n.last]
}

func (r *room) shapeOf(t *Request) shape {
	s := shape{cpu: t.CPU, memory: t.Memory, gpus: t.GPUs, ports: t.Ports, model: anyModel}
	if t.GPUs > 0 {
		s.gpuMemory = t.GPUMemory
		if t.Share > 0 && t.Share < deviceWhole {
			s.share = t.Share
		}
		if t.Model != "" {
			s.model = r.model(t.Model)
		}
	}
	return s
}

// take gives one task of the shape, and ports more than it asks, to a task on a node that
// admits it, and returns the place in the trail.
func (r *room) take(node int, s *shape, morePorts int32) int {
	n := &r.nodes[node]
	entry := taken{node: int32(node), ports: s.ports + morePorts, cpu: s.cpu, memory: s.memory, first: int32(len(r.granted))}
	r.chooseDevices(node, s)
	entry.last = int32(len(r.granted))
	n.cpu -= entry.cpu
	n.memory -= entry.memory
	n.ports -= entry.ports
	for _, g := range r.granted[entry.first:entry.last] {
		r.change(n, g.device, -g.share, -g.memory)
	}
	r.trail = append(r.trail, entry)
	r.touch(node)
	return len(r.trail) - 1
}

// rollback gives back everything that was taken since the trail had this length.
func (r *room) rollback(length int) {
	for len(r.trail) > length {
		entry := r.trail[len(r.trail)-1]
		r.trail = r.trail[:len(r.trail)-1]
		r.giveBack(entry)
		r.granted = r.granted[:entry.first]
	}
}

func (r *room) giveBack(entry taken) {
	n := &r.nodes[entry.node]
	n.cpu += entry.cpu
	n.memory += entry.memory
	n.ports += entry.ports
	for _, g := range r.granted[entry.first:entry.last] {
		r.change(n, g.device, g.share, g.memory)
	}
	r.touch(int(entry.node))
}

func (r *room) change(n *nodeRoom, at, share int32, memory int64) {
	d := &r.devices[at]
	r.count(n, d, -1)
	d.shareFree += share
	d.memFree += memory
	r.count(n, d, 1)
}

func (r *room) touch(node int) {
	r.nodes[node].version++
	r.changed = append(r.changed, int32(node))
}

// drop forgets what only a running pass needs.
func (r *room) drop() {
	r.indexes, r.changed = nil, nil
}

// chooseDevices appends the grants for one task: whole devices of one kind, the smallest
// that suits, in the node's order; shares on the fullest device that admits them.
func (r *room) chooseDevices(node int, s *shape) {
	if s.gpus == 0 {
		return
	}
	first := r.nodes[node].first
	devices := r.devicesOf(node)
	if s.share != 0 {
		start := len(r.granted)
		for range s.gpus {
			at := fullest(devices, s, func(i int) bool { return r.hasGrant(start, first+int32(i)) })
			r.granted = append(r.granted, granted{device: first + int32(at), share: s.share, memory: devices[at].shareMemory(s)})
		}
		return
	}
	k := bestKind(devices, s)
	left := s.gpus
	for i := range devices {
		if d := &devices[i]; left > 0 && d.sameKind(&devices[k]) && d.available && d.isWhole() {
			r.granted = append(r.granted, granted{device: first + int32(i), share: deviceWhole, memory: d.memory})
			left--
		}
	}
}

func (r *room) hasGrant(start int, at int32) bool {
	for _, g := range r.granted[start:] {
		if g.device == at {
			return true
		}
	}
	return false
}

// fullest finds the device with the least free share that admits one task, -1 for none.
func fullest(devices []device, s *shape, excluded func(int) bool) int {
	best := -1
	for i := range devices {
		d := &devices[i]
		if d.admitsShare(s) == 0 || excluded(i) {
			continue
		}
		if best < 0 || lessRoomy(d, &devices[best]) {
			best = i
		}
	}
	return best
}

func lessRoomy(a, b *device) bool {
	return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.shareFree, b.shareFree), cmp.Compare(a.memFree, b.memFree)) < 0
}

// bestKind finds a device of the kind of which whole ones should be taken: the smallest
// memory, then the fewest left over, then the node's order; -1 when none admits the task.
func bestKind(devices []device, s *shape) int {
	best, bestFree := -1, int32(0)
	for i := range devices {
		if !devices[i].suits(s) || seenBefore(devices, i) {
			continue
		}
		var free int32
		for j := i; j < len(devices); j++ {
			if devices[j].sameKind(&devices[i]) && devices[j].available && devices[j].isWhole() {
				free++
			}
		}
		if free < s.gpus {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(devices[i].rank, devices[best].rank), cmp.Compare(free, bestFree)) < 0 {
			best, bestFree = i, free
		}
	}
	return best
}
