package scheduler

// fitMax bounds how many tasks of one shape a node is counted for: a node with room for
// more, of tasks that ask next to nothing, counts for this many.
const fitMax = 1 << 20

const (
	anyModel      = int16(-1) // no particular model
	noModel       = int16(-2) // a model that no device of the snapshot has
	severalModels = int16(-3) // more than one, but not any: shape.kinds says which
)

// shape is a request with its models interned: what two tasks must have in common to share
// an index.
type shape struct {
	cpu, memory, gpuMemory int64
	kinds                  kindSet // of device that suit
	gpus, share, ports     int32
	model                  int16
	numa                   bool // all devices on one NUMA node
}

// kindSet is a set of places in room.kinds.
type kindSet [kindsMax / 64]uint64

func (k *kindSet) set(kind int16)      { k[kind>>6] |= 1 << (kind & 63) }
func (k *kindSet) has(kind int16) bool { return kind >= 0 && k[kind>>6]&(1<<(kind&63)) != 0 }

func (k *kindSet) within(other *kindSet) bool {
	for i := range k {
		if k[i]&^other[i] != 0 {
			return false
		}
	}
	return true
}

// needs says whether s asks at least what t asks, in everything, so that where t does not
// fit s does not either.
func (s *shape) needs(t *shape) bool {
	if s.gpus != 0 && t.gpus != 0 && (s.share == 0) != (t.share == 0) {
		return false
	}
	return s.cpu >= t.cpu && s.memory >= t.memory && s.gpuMemory >= t.gpuMemory && s.gpus >= t.gpus &&
		s.share >= t.share && s.ports >= t.ports && (s.numa || !t.numa) && (t.gpus == 0 || s.kinds.within(&t.kinds))
}

// A predicate says how many tasks of a shape a node admits as far as one resource goes.
type predicate struct {
	name   string // of the resource, in a sentence
	admits func(r *room, node int, s *shape) int32
}

// predicates are asked in this order. When the last ones refuse what the first admit, the
// first that refuses names the reason (explain.go).
var predicates = []predicate{
	{"GPUs", admitsDevices},
	{"CPUs", admitsCPU},
	{"memory", admitsMemory},
	{"ports", admitsPorts},
}

// The places of the predicates in the table.
const (
	byDevices = iota
	byCPU
	byMemory
	byPorts
)

// fit says how many tasks of the shape the node admits now, at most fitMax.
func (r *room) fit(node int, s *shape) int32 {
	if !r.nodes[node].usable {
		return 0
	}
	least := int32(fitMax)
	for i := range predicates {
		if least = min(least, predicates[i].admits(r, node, s)); least <= 0 {
			return 0
		}
	}
	return least
}

func times(have, each int64) int32 {
	if each <= 0 {
		return fitMax
	}
	return int32(max(0, min(fitMax, have/each)))
}

func admitsCPU(r *room, node int, s *shape) int32 { return times(r.nodes[node].cpu, s.cpu) }

func admitsMemory(r *room, node int, s *shape) int32 { return times(r.nodes[node].memory, s.memory) }

func admitsPorts(r *room, node int, s *shape) int32 {
	return times(int64(min(r.nodes[node].ports, portsClass)), int64(s.ports))
}

func admitsDevices(r *room, node int, s *shape) int32 {
	switch {
	case s.gpus == 0:
		return fitMax
	case s.share != 0:
		return admitsShares(r, node, s)
	}
	n := &r.nodes[node]
	if n.whole < s.gpus {
		return 0
	}
	if n.uniform && !s.numa {
		if d := &r.devices[n.first]; !d.suits(s) {
			return 0
		}
		return min(fitMax, n.whole/s.gpus)
	}
	// A task's devices are of one kind, so each kind of the node counts by itself.
	devices := r.devicesOf(node)
	var total int32
	for i := range devices {
		if devices[i].suits(s) && !seenBefore(devices, i) {
			_, tasks := freeOfKind(devices, i, s)
			total += tasks
		}
	}
	return min(fitMax, total)
}

// seenBefore says whether a device of the same kind comes earlier in the list.
func seenBefore(devices []device, i int) bool {
	for j := range i {
		if devices[j].sameKind(&devices[i]) {
			return true
		}
	}
	return false
}

// admitsShares counts tasks on shares. With several devices a task it counts each device
// once: fewer than could be had, never more.
func admitsShares(r *room, node int, s *shape) int32 {
	devices := r.devicesOf(node)
	var total int32
	if s.numa {
		if sharesOn(devices, s, numaOfShares(devices, s)) >= s.gpus {
			return 1
		}
		return 0
	}
	for i := range devices {
		fits := devices[i].admitsShare(s)
		if s.gpus > 1 {
			fits = min(fits, 1)
		}
		total += fits
	}
	return min(fitMax, total/s.gpus)
}

// suits says whether the device is of a model and size that the shape accepts.
func (d *device) suits(s *shape) bool { return s.kinds.has(d.kind) }

func (d *device) sameKind(e *device) bool { return d.kind == e.kind }

func (d *device) isWhole() bool { return d.shareFree == deviceWhole && d.memFree == d.memory }

// admitsShare says how many tasks of a shared shape the device admits.
func (d *device) admitsShare(s *shape) int32 {
	if d.shareFree < s.share || !d.suits(s) {
		return 0
	}
	return min(d.shareFree/s.share, times(d.memFree, d.shareMemory(s)))
}

// shareMemory is the device memory that a share of this device is granted.
func (d *device) shareMemory(s *shape) int64 {
	if s.gpuMemory > 0 {
		return s.gpuMemory
	}
	return d.memory * int64(s.share) / deviceWhole
}
