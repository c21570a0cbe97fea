package scheduler

import (
	"cmp"
	"slices"
)

// chooseDevices appends the grants for one task: whole devices of one kind, the smallest
// that suits, together on the smallest island or NUMA node that has enough; shares on the
// fullest device that admits them.
func (r *room) chooseDevices(node int, s *shape) {
	if s.gpus == 0 {
		return
	}
	first := r.nodes[node].first
	devices := r.devicesOf(node)
	if s.share != 0 {
		numa := numaOfShares(devices, s)
		start := len(r.granted)
		for range s.gpus {
			at := r.cheapest(node, s, func(i int) bool {
				return r.hasGrant(start, first+int32(i)) || (s.numa && devices[i].numa != numa)
			})
			r.granted = append(r.granted, granted{device: first + int32(at), share: s.share, memory: devices[at].shareMemory(s)})
		}
		return
	}
	like := &devices[bestKind(devices, s)]
	if r.nodes[node].parted {
		for _, at := range together(devices, like, s) {
			r.granted = append(r.granted, granted{device: first + int32(at), share: deviceWhole, memory: devices[at].memory})
		}
		return
	}
	left := s.gpus
	for i := range devices {
		if d := &devices[i]; left > 0 && d.isFreeLike(like) {
			r.granted = append(r.granted, granted{device: first + int32(i), share: deviceWhole, memory: d.memory})
			left--
		}
	}
}

func (d *device) isFreeLike(e *device) bool { return d.available && d.sameKind(e) && d.isWhole() }

// together picks free devices of one kind for a task: from the island with the fewest free
// ones that has enough, else from such a NUMA node, else from the islands with most free.
func together(devices []device, like *device, s *shape) []int {
	var free []int
	for i := range devices {
		if devices[i].isFreeLike(like) {
			free = append(free, i)
		}
	}
	island := func(i int) int16 { return devices[i].island }
	numa := func(i int) int16 { return devices[i].numa }
	count := func(of func(int) int16, i int) int32 {
		var n int32
		for _, j := range free {
			if of(j) == of(i) && (!s.numa || numa(j) == numa(i)) {
				n++
			}
		}
		return n
	}
	smallest := func(of func(int) int16, known bool) int {
		best := -1
		for _, i := range free {
			if n := count(of, i); (of(i) >= 0 || !known) && n >= s.gpus && (best < 0 || n < count(of, best)) {
				best = i
			}
		}
		return best
	}
	keep := func(of func(int) int16, best int) []int {
		return slices.DeleteFunc(free, func(i int) bool { return of(i) != of(best) || (s.numa && numa(i) != numa(best)) })[:s.gpus]
	}
	if best := smallest(island, true); best >= 0 {
		return keep(island, best)
	}
	if best := smallest(numa, !s.numa); best >= 0 {
		return keep(numa, best)
	}
	sizes := make([]int32, len(devices))
	for _, i := range free {
		sizes[i] = count(island, i)
	}
	slices.SortStableFunc(free, func(a, b int) int {
		return cmp.Or(cmp.Compare(sizes[b], sizes[a]), cmp.Compare(island(a), island(b)))
	})
	return free[:s.gpus]
}

// losesTogether is 1 when a task of several devices would be spread over islands on a node
// that has islands.
func losesTogether(r *room, node int, s *shape) float64 {
	n := &r.nodes[node]
	if s.gpus < 2 || s.share != 0 || !n.parted {
		return 0
	}
	devices := r.devicesOf(node)
	like := &devices[bestKind(devices, s)]
	known := false
	for i := range devices {
		if devices[i].island < 0 {
			continue
		}
		known = true
		var free int32
		for j := range devices {
			if devices[j].island == devices[i].island && devices[j].isFreeLike(like) {
				free++
			}
		}
		if free >= s.gpus {
			return 0
		}
	}
	if !known {
		return 0
	}
	return 1
}

// numaOfShares gives the NUMA node with the most devices that admit a share of the shape.
func numaOfShares(devices []device, s *shape) int16 {
	if !s.numa {
		return -1
	}
	best, most := int16(-1), int32(0)
	for i := range devices {
		if n := sharesOn(devices, s, devices[i].numa); n > most {
			best, most = devices[i].numa, n
		}
	}
	return best
}

// sharesOn counts the devices of a NUMA node that admit a share of the shape.
func sharesOn(devices []device, s *shape, numa int16) int32 {
	var n int32
	for i := range devices {
		if devices[i].numa == numa && devices[i].admitsShare(s) > 0 {
			n++
		}
	}
	return n
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
		free, tasks := freeOfKind(devices, i, s)
		if tasks == 0 {
			continue
		}
		if best < 0 || cmp.Or(cmp.Compare(devices[i].rank, devices[best].rank), cmp.Compare(free, bestFree)) < 0 {
			best, bestFree = i, free
		}
	}
	return best
}

// freeOfKind counts the free devices of the kind of the one at a place, and the tasks that
// they admit.
func freeOfKind(devices []device, at int, s *shape) (free, tasks int32) {
	like := &devices[at]
	for i := at; i < len(devices); i++ {
		if devices[i].isFreeLike(like) {
			free++
		}
	}
	if !s.numa {
		return free, free / s.gpus
	}
	for i := at; i < len(devices); i++ { // the first free one of each NUMA node counts for it
		if !devices[i].isFreeLike(like) {
			continue
		}
		var here int32
		for j := at; j < len(devices); j++ {
			if devices[j].numa != devices[i].numa || !devices[j].isFreeLike(like) {
				continue
			}
			if here++; j < i {
				here = 0
				break
			}
		}
		tasks += here / s.gpus
	}
	return free, tasks
}
