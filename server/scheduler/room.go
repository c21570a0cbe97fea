package scheduler

import (
	"cmp"
	"slices"

	"llmos/server/scheduler/fair"
)

// room is the free capacity of a snapshot while a pass spends it. Everything taken is on
// the trail, so that a gang that turns out not to fit is given back. What is free is read
// from the nodes by load.go; devices.go chooses the devices of a task.
type room struct {
	spec    []Node // the snapshot's, by ID
	nodes   []nodeRoom
	devices []device // of all nodes, node after node
	models  []string // interned, ascending
	kinds   []kind   // of device, smallest first
	seen    []seen   // by node: what was read of it; beside the large values it is a small list to go through
	view    view
	total   *fair.Demand // capacity of all nodes; nil: not summed yet
	weights Weights
	ratio   float64                          // millicores that GPU tasks ask per device
	rank    func(node int, s *shape) float64 // lower takes first; it depends on what is free on the node alone
	pricing pricing

	trail   []taken
	granted []granted
	changed []int32 // nodes that are not in the class of what is free on them; see settle
	touched []int32 // nodes that differ from the snapshot, or did
	classes classes
	indexes map[shape]*index
	asked   map[shape]bool        // shapes asked for
	labels  map[string]*domains   // by label; nil: not read yet
	tried   map[*Expr]*condition  // conditions looked at
	texts   map[string]*condition // the same, by what they say
}

// seen is a node's ID and the version that was read.
type seen struct {
	id      string
	version uint64
}

// nodeRoom is what is free on one node.
type nodeRoom struct {
	usable      bool
	uniform     bool // all devices are of one kind
	parted      bool // devices are on several NUMA nodes or islands
	changed     bool // is in room.changed
	touched     bool // is in room.touched
	first, last int32
	cpu, memory int64
	share       int64 // thousandths of available devices
	whole       int32 // available devices that nobody holds any of
	ports       int32
	closed      int16       // how many keeps close it
	static      fingerprint // of what does not change while the node is the same
}

type device struct {
	memory, memFree int64
	place           uint64 // stands for kind, NUMA node and island, equal on all nodes
	shareFree       int32  // 0 when it is not available
	model           int16
	rank            int16 // place of its memory size among the sizes of the cluster
	kind            int16 // in room.kinds; noKind: one too many
	numa            int16 // negative: unknown
	island          int16 // by place of its first device on the node; negative: unknown
	available       bool
}

// kind is a model of device with its memory, or a slice of one.
type kind struct {
	model   int16
	memory  int64
	profile string // MIG profile; empty: a whole GPU
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

// capacity is what Capacity says of the nodes.
func (r *room) capacity() fair.Demand {
	if r.total == nil {
		d := Capacity(r.spec)
		r.total = &d
	}
	return *r.total
}

func (r *room) model(name string) int16 {
	if i, found := slices.BinarySearch(r.models, name); found {
		return int16(i)
	}
	return noModel
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

// touch notes that what is free on the node changed. Whoever writes to a nodeRoom or a
// device calls it.
func (r *room) touch(node int) {
	n := &r.nodes[node]
	if !n.changed {
		n.changed = true
		r.changed = append(r.changed, int32(node))
	}
	if !n.touched {
		n.touched = true
		r.touched = append(r.touched, int32(node))
	}
}

// shapeOf gives the shape of a request in this room.
func (r *room) shapeOf(t *Request) shape {
	s := shape{cpu: t.CPU, memory: t.Memory, gpus: t.GPUs, ports: t.Ports, model: anyModel}
	if t.GPUs <= 0 {
		return s
	}
	s.gpuMemory, s.numa = t.GPUMemory, t.NUMA && t.GPUs > 1
	if t.Share > 0 && t.Share < deviceWhole {
		s.share = t.Share
	}
	var models []int16
	switch {
	case t.Models != nil:
		for _, name := range t.Models {
			if m := r.model(name); m != noModel {
				models = append(models, m)
			}
		}
		if s.model = noModel; len(models) > 0 {
			s.model = slices.Min(models)
		}
	case t.Model != "":
		s.model = r.model(t.Model)
		models = append(models, s.model)
	}
	for i := range r.kinds {
		k := &r.kinds[i]
		if k.profile == t.Profile && k.memory >= t.GPUMemory && (s.model == anyModel || slices.Contains(models, k.model)) {
			s.kinds.set(int16(i))
		}
	}
	if len(models) > 1 {
		s.model = severalModels
	}
	return s
}

// ofModel gives the shape for devices of one of the models that it accepts.
func (r *room) ofModel(s shape, model int16) shape {
	var only kindSet
	for i := range r.kinds {
		if r.kinds[i].model == model && s.kinds.has(int16(i)) {
			only.set(int16(i))
		}
	}
	s.model, s.kinds = model, only
	return s
}

// modelsOf gives the models that a shape accepts, smallest device memory first.
func (r *room) modelsOf(s *shape) []int16 {
	var models []int16
	for i := range r.kinds {
		if s.kinds.has(int16(i)) && !slices.Contains(models, r.kinds[i].model) {
			models = append(models, r.kinds[i].model)
		}
	}
	return models
}

func byKind(a, b kind, models []string) int {
	return cmp.Or(cmp.Compare(a.memory, b.memory), cmp.Compare(models[a.model], models[b.model]), cmp.Compare(a.profile, b.profile))
}
