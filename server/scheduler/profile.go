package scheduler

import (
	"cmp"
	"slices"
)

// profile knows when what is held is released: by the ends of running attempts and of what
// this pass has placed, as far as they are predicted.
type profile struct {
	ends   []ending // by time
	fresh  []ending // placed in this pass, not yet among ends
	loaded bool
}

// ending is an attempt's release of what it holds.
type ending struct {
	atMS  int64
	order int32    // among those at one time
	run   int32    // index in Snapshot.Running, or -1
	parts []held   // of a running attempt nil until they are asked for
	claim *claimed // whose room it is, which counts only while it is kept; nil: of none
}

// started notes what the pass took since the trail had the length mark.
func (p *profile) started(r *room, endMS int64, mark int) {
	if endMS == forever {
		return
	}
	p.fresh = append(p.fresh, ending{atMS: endMS, run: -1, parts: r.partsSince(mark)})
}

// partsSince copies what was taken since the trail had this length.
func (r *room) partsSince(mark int) []held {
	parts := make([]held, 0, len(r.trail)-mark)
	for _, entry := range r.trail[mark:] {
		parts = append(parts, held{node: entry.node, ports: entry.ports, cpu: entry.cpu, memory: entry.memory,
			devices: slices.Clone(r.granted[entry.first:entry.last])})
	}
	return parts
}

// endingsMax bounds the ends of running attempts that are looked at, the first to end first. A
// job that could start only later has no reservation in time.
const endingsMax = 8192

// endings gives the known ends by time.
func (r *round) endings() []ending {
	p := &r.profile
	if !p.loaded {
		p.loaded = true
		p.ends = r.runningEnds()
		for _, c := range r.claimList {
			if at := endOf(r.s.NowMS, c.length); at != forever {
				p.fresh = append(p.fresh, ending{atMS: at, run: -1, parts: c.parts, claim: c})
			}
		}
	}
	if len(p.fresh) > 0 {
		for i := range p.fresh {
			p.fresh[i].order = int32(len(p.ends) + i)
		}
		p.ends = append(p.ends, p.fresh...)
		p.fresh = nil
		slices.SortFunc(p.ends, func(a, b ending) int { return cmp.Or(cmp.Compare(a.atMS, b.atMS), cmp.Compare(a.order, b.order)) })
	}
	return p.ends
}

// runningEnds gives the first known ends of running attempts.
func (r *round) runningEnds() []ending {
	type end struct {
		atMS int64
		run  int32
	}
	var ends []end
	for i := range r.s.Running {
		at := endOfRunning(&r.s.Running[i], r.s.NowMS)
		if r.stopped[r.s.Running[i].JobID] {
			at = r.s.NowMS + endingMS
		}
		if at != forever {
			ends = append(ends, end{at, int32(i)})
		}
	}
	slices.SortFunc(ends, func(a, b end) int {
		if a.atMS != b.atMS {
			return cmp.Compare(a.atMS, b.atMS)
		}
		return cmp.Compare(a.run, b.run)
	})
	first := make([]ending, min(len(ends), endingsMax))
	for i := range first {
		first[i] = ending{atMS: ends[i].atMS, run: ends[i].run}
	}
	return first
}

// partsOf gives what an ending releases.
func (r *round) partsOf(e *ending) []held {
	if e.claim != nil && !e.claim.kept {
		return nil // its job has started, and has an ending of its own
	}
	if e.parts == nil && e.run >= 0 {
		e.parts = r.partsOfRun(int(e.run))
	}
	return e.parts
}

// partsOfRun gives what a running attempt holds; nobody may modify it.
func (r *round) partsOfRun(run int) []held {
	if r.runParts == nil {
		r.runParts = make([][]held, len(r.s.Running))
	}
	if r.runParts[run] == nil {
		r.runParts[run] = r.now.room.partsOfSlots(r.s.Running[run].Slots)
	}
	return r.runParts[run]
}

// partsOfSlots finds nodes and devices by their IDs. Those that are gone are left out, and
// so are devices that take no work.
func (r *room) partsOfSlots(slots []Slot) []held {
	parts := make([]held, 0, len(slots))
	for i := range slots {
		if k, ok := r.partOf(&slots[i]); ok {
			parts = append(parts, k)
		}
	}
	return parts
}

// partOf finds the node and devices of a slot; ok is false when the node is gone.
func (r *room) partOf(s *Slot) (held, bool) {
	node := r.nodeByID(s.NodeID)
	if node < 0 {
		return held{}, false
	}
	k := held{node: int32(node), cpu: s.CPU, memory: s.Memory, ports: s.Ports}
	first := r.nodes[node].first
	for _, g := range s.Devices {
		for j := range r.spec[node].Devices {
			if at := first + int32(j); r.spec[node].Devices[j].ID == g.DeviceID && r.devices[at].available {
				k.devices = append(k.devices, granted{device: at, share: g.Share, memory: g.Memory})
			}
		}
	}
	return k, true
}

// add puts a part back into the room (sign 1), or takes it out (-1). What is free may become
// negative: room that is promised before it is released.
func (r *room) add(k *held, sign int64) {
	n := &r.nodes[k.node]
	n.cpu += sign * k.cpu
	n.memory += sign * k.memory
	n.ports += int32(sign) * k.ports
	for _, g := range k.devices {
		r.change(n, g.device, int32(sign)*g.share, sign*g.memory)
	}
	r.touch(int(k.node))
}

// trial is a small room: some nodes of a pass's room, on which to try what would fit if
// other things were free than are.
type trial struct {
	room *room
	main *room
	of   []int32         // node of the main room, by node of this one
	at   map[int32]int32 // and back

	running []Running

	groups []group   // of the gang that it is for
	admits [][]int32 // by group: the tasks that each node admits
	totals []int64   // by group: their sum
	dirty  []int32   // nodes that changed since
}

// trial copies nodes of the room as they are now.
func (p *pass) trial(nodes []int32) *trial {
	r := p.now.room
	slices.Sort(nodes)
	nodes = slices.Compact(nodes)
	spec := make([]Node, len(nodes))
	for i, node := range nodes {
		spec[i] = r.spec[node]
	}
	t := &trial{room: newRoom(spec, r.weights, r.ratio, viewFree), main: r, of: nodes, at: make(map[int32]int32, len(nodes)), running: p.now.running}
	t.room.priceBy(r.pricing.prices)
	for i, node := range nodes {
		t.at[node] = int32(i)
		n, m := &t.room.nodes[i], &r.nodes[node]
		n.cpu, n.memory, n.ports, n.usable, n.closed = m.cpu, m.memory, m.ports, m.usable, m.closed
		for j := range n.last - n.first {
			d, from := &t.room.devices[n.first+j], &r.devices[m.first+j]
			t.room.change(n, n.first+j, from.shareFree-d.shareFree, from.memFree-d.memFree)
		}
		t.room.touch(i)
	}
	return t
}

// add does for a part of the main room what room.add does; parts elsewhere are ignored.
func (t *trial) add(k *held, sign int64) {
	i, ok := t.at[k.node]
	if !ok {
		return
	}
	local := *k
	local.node = i
	offset := t.room.nodes[i].first - t.main.nodes[k.node].first
	local.devices = slices.Clone(k.devices)
	for j := range local.devices {
		local.devices[j].device += offset
	}
	t.room.add(&local, sign)
	t.dirty = append(t.dirty, i)
}

// reopen closes (by 1) or opens (by -1) a node once more.
func (t *trial) reopen(node int32, by int) {
	if i, ok := t.at[node]; ok {
		t.room.nodes[i].closed += int16(by)
		t.room.open(int(i))
		t.dirty = append(t.dirty, i)
	}
}

func (t *trial) addAll(parts []held, sign int64) {
	for i := range parts {
		t.add(&parts[i], sign)
	}
}

// put places a gang, and gives what each rank takes in terms of the main room.
func (t *trial) put(job *Job) ([]held, bool) {
	entries, ok := t.placer().put(job)
	if !ok {
		return nil, false
	}
	parts := make([]held, len(entries))
	for rank, at := range entries {
		entry := &t.room.trail[at]
		main := t.of[entry.node]
		offset := t.main.nodes[main].first - t.room.nodes[entry.node].first
		parts[rank] = held{node: main, ports: entry.ports, cpu: entry.cpu, memory: entry.memory,
			devices: slices.Clone(t.room.granted[entry.first:entry.last])}
		for j := range parts[rank].devices {
			parts[rank].devices[j].device += offset
		}
	}
	return parts, true
}

func (t *trial) placer() *placer {
	p := newPlacer(t.room)
	p.running = t.running
	return p
}

// fits says whether the gang can be placed, and leaves the room as it is.
func (t *trial) fits(job *Job) bool {
	mark := len(t.room.trail)
	_, ok := t.placer().put(job)
	t.room.rollback(mark)
	return ok
}

// asks says which gang will be asked about, by mayFit.
func (t *trial) asks(job *Job) {
	t.groups = t.room.groups(job)
	t.totals = make([]int64, len(t.groups))
	t.admits = make([][]int32, len(t.groups))
	for g := range t.groups {
		t.admits[g] = make([]int32, len(t.of))
	}
	t.dirty = t.dirty[:0]
	for i := range t.of {
		t.dirty = append(t.dirty, int32(i))
	}
}

// mayFit is a quick look: whether each role by itself finds enough room. It costs a look at
// the nodes that changed since it was asked last.
func (t *trial) mayFit() bool {
	for _, i := range t.dirty {
		for g := range t.groups {
			now := t.room.fit(int(i), &t.groups[g].shape)
			t.totals[g] += int64(now - t.admits[g][i])
			t.admits[g][i] = now
		}
	}
	t.dirty = t.dirty[:0]
	for g := range t.groups {
		if t.totals[g] < int64(t.groups[g].count) {
			return false
		}
	}
	return true
}

// withRoom lists the nodes that admit a task of some role now.
func (r *room) withRoom(groups []group) []int32 {
	var nodes []int32
	for node := range r.nodes {
		for i := range groups {
			if r.fit(node, &groups[i].shape) > 0 {
				nodes = append(nodes, int32(node))
				break
			}
		}
	}
	return nodes
}
