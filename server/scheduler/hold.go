package scheduler

import (
	"cmp"
	"slices"
)

// hold is what is kept free for a job that cannot start yet. It exists only within a pass:
// jobs behind the holder see the held part of the nodes as taken.
//
// The nodes are those on which the gang would fit if they were empty, least busy first.
// While they are held nothing new of lower rank starts on them, so the busiest of them only
// gets less busy, and another choice in a later pass is made only when it is less busy
// still: the holder's turn comes when the longest task on those nodes ends. What the holder
// does not need of its nodes stays open to others.
type hold struct {
	job   *Job
	parts []held
}

type held struct {
	node        int32
	ports       int32
	cpu, memory int64
	devices     []granted
}

// hold reserves the nodes on which the job would fit first. It fails when the gang would
// not fit on the ready nodes even if they were empty.
func (p *pass) hold(job *Job) (hold, bool) {
	if p.empty == nil {
		r := newRoom(p.now.room.spec, p.policy.Weights, p.ratio, viewEmpty)
		p.empty = newPlacer(r)
		p.empty.prefer = p.now.room.busy
	}
	entries, ok := p.empty.put(job)
	if !ok {
		return hold{}, false
	}
	h := hold{job: job}
	groups := p.now.room.groups(job)
	for _, g := range groups {
		for rank := g.firstRank; rank < g.firstRank+g.count; rank++ {
			entry := &p.empty.room.trail[entries[rank]]
			h.parts = append(h.parts, p.now.room.keep(int(entry.node), &g.shape, entry.ports))
		}
	}
	return h, true
}

// busy is the part of a node that would have to become free, in thousandths of what the
// shape is mostly about: devices, or CPU for a task without any.
func (r *room) busy(node int, s *shape) float64 {
	n, spec := &r.nodes[node], &r.spec[node]
	if s.gpus == 0 {
		return 1 - part(n.cpu, spec.CPU)
	}
	return 1 - part(n.share, int64(n.last-n.first)*deviceWhole)
}

// keep takes for a holder what one task needs of a node, as far as it is free.
func (r *room) keep(node int, s *shape, ports int32) held {
	n := &r.nodes[node]
	k := held{node: int32(node), cpu: clamp(s.cpu, n.cpu), memory: clamp(s.memory, n.memory),
		ports: int32(clamp(int64(ports), int64(n.ports)))}
	n.cpu -= k.cpu
	n.memory -= k.memory
	n.ports -= k.ports
	for _, at := range r.freest(node, s) {
		d := &r.devices[at]
		g := granted{device: at, share: d.shareFree, memory: d.memFree}
		if s.share != 0 {
			g.share = int32(clamp(int64(s.share), int64(d.shareFree)))
			g.memory = clamp(d.shareMemory(s), d.memFree)
		}
		r.change(n, at, -g.share, -g.memory)
		k.devices = append(k.devices, g)
	}
	r.touch(node)
	return k
}

func clamp(want, have int64) int64 { return max(0, min(want, have)) }

// freest gives the devices on which a task of the shape would wait least.
func (r *room) freest(node int, s *shape) []int32 {
	var at []int32
	for i := r.nodes[node].first; i < r.nodes[node].last; i++ {
		if d := &r.devices[i]; d.available && d.suits(s) {
			at = append(at, i)
		}
	}
	slices.SortStableFunc(at, func(a, b int32) int { return cmp.Compare(r.devices[b].shareFree, r.devices[a].shareFree) })
	return at[:min(len(at), int(s.gpus))]
}

// lift gives back what is held.
func (h *hold) lift(r *room) {
	for _, k := range h.parts {
		n := &r.nodes[k.node]
		n.cpu += k.cpu
		n.memory += k.memory
		n.ports += k.ports
		for _, g := range k.devices {
			r.change(n, g.device, g.share, g.memory)
		}
	}
}

func (h *hold) nodeIDs(r *room) []string {
	var ids []string
	for _, k := range h.parts {
		ids = append(ids, r.spec[k.node].ID)
	}
	slices.Sort(ids)
	return slices.Compact(ids)
}
