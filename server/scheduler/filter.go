package scheduler

// fitMax bounds how many tasks of one shape a node is counted for: a node with room for
// more, of tasks that ask next to nothing, counts for this many.
const fitMax = 1 << 20

// anyModel stands for no particular model.
const anyModel = int16(-1)

// noModel is a model that no device of the snapshot has.
const noModel = int16(-2)

// shape is a request with its model interned: what two tasks must have in common to share
// an index.
type shape struct {
	cpu, memory, gpuMemory int64
	gpus, share, ports     int32
	model                  int16
}

// needs says whether s asks at least what t asks, in everything, so that where t does not
// fit s does not either.
func (s shape) needs(t shape) bool {
	if s.gpus != 0 && t.gpus != 0 && (s.share == 0) != (t.share == 0) {
		return false
	}
	return s.cpu >= t.cpu && s.memory >= t.memory && s.gpuMemory >= t.gpuMemory && s.gpus >= t.gpus &&
		s.share >= t.share && s.ports >= t.ports && (t.model == anyModel || s.model == t.model)
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
	return times(int64(r.nodes[node].ports), int64(s.ports))
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
	if n.uniform {
		if d := &r.devices[n.first]; !d.suits(s) {
			return 0
		}
		return min(fitMax, n.whole/s.gpus)
	}
	// A task's devices are of one model, so each model of the node counts by itself.
	devices := r.devicesOf(node)
	var total int32
	for i := range devices {
		if seenBefore(devices, i) {
			continue
		}
		var free int32
		for j := i; j < len(devices); j++ {
			if devices[j].sameKind(&devices[i]) && devices[j].suits(s) && devices[j].isWhole() {
				free++
			}
		}
		total += free / s.gpus
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
func (d *device) suits(s *shape) bool {
	return (s.model == anyModel || s.model == d.model) && d.memory >= s.gpuMemory
}

func (d *device) sameKind(e *device) bool { return d.model == e.model && d.memory == e.memory }

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
