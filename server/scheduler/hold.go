package scheduler

import (
	"cmp"
	"slices"
)

// held is a part of one node: what a task holds, or what is kept there.
type held struct {
	node        int32
	ports       int32
	cpu, memory int64
	devices     []granted
}

// keepFor keeps room for a blocked job: a reservation at the earliest time at which it really
// places, or, where nobody knows such a time, its share of the nodes that are least busy.
func (r *round) keepFor(job *Job) (*keep, bool) {
	if len(r.keeps) >= keepsMax {
		return nil, false
	}
	if r.policy.Backfill != BackfillConservative && job.WaitedMS < r.policy.HoldAfterMS {
		return nil, false
	}
	if r.reserved+r.held < r.policy.ReservationsMax && r.searches < searchesMax+r.policy.ReservationsMax {
		r.searches++
		small := job.sized(0)
		if k, ok := r.earliest(&small); ok {
			k.job = job
			r.reserved++
			r.addKeep(k)
			return k, true
		}
	}
	if r.held < r.policy.Holds && r.reserved+r.held < max(r.policy.Holds, r.policy.ReservationsMax) {
		if k, ok := r.hold(job); ok {
			r.held++
			r.addKeep(k)
			return k, true
		}
	}
	return nil, false
}

// searchesMax bounds the searches for an earliest start that find none.
const searchesMax = 4

// hold keeps what a job needs of the nodes on which it would fit if they were empty, least
// busy first. It fails when it would not fit on the ready nodes even then.
//
// While they are held nothing new of lower rank starts on them, so the busiest of them only
// gets less busy, and another choice in a later pass is made only when it is less busy
// still: the holder's turn comes when the longest task on those nodes ends. What the holder
// does not need of its nodes stays open to others.
func (r *round) hold(job *Job) (*keep, bool) {
	e := r.emptyPlacer()
	small := job.sized(0)
	e.prefer = r.now.room.busy
	entries, ok := e.put(&small)
	if !ok {
		return nil, false
	}
	k := &keep{job: job, end: forever}
	for _, g := range r.now.room.groups(&small) {
		for rank := g.firstRank; rank < g.firstRank+g.count; rank++ {
			entry := &e.room.trail[entries[rank]]
			part := r.now.room.spare(int(entry.node), &g.shape, entry.ports)
			r.now.room.add(&part, -1) // the gang's next task finds other devices
			k.parts = append(k.parts, part)
		}
	}
	k.lift(r.now.room)
	return k, true
}

// emptyPlacer places on the ready nodes as if they were empty, but for what others hold.
func (r *round) emptyPlacer() *placer {
	if r.empty == nil {
		r.empty = r.placerIn(newRoom(r.now.room.spec, r.policy.Weights, r.ratio, viewEmpty))
	}
	return r.empty
}

// couldRun says whether the job would fit on the ready nodes if they were empty.
func (r *round) couldRun(job *Job) bool {
	e := r.emptyPlacer()
	mark := len(e.room.trail)
	small := job.sized(0)
	_, ok := e.put(&small)
	e.room.rollback(mark)
	return ok
}

// placerIn gives a placer with no memory of failures.
func (r *round) placerIn(in *room) *placer {
	p := newPlacer(in)
	p.running = r.s.Running
	return p
}

// another gives a placer of the pass's room with no memory of failures.
func (r *round) another() *placer {
	p := r.placerIn(r.now.room)
	p.placed, p.names, p.holders = r.now.placed, r.now.names, r.now.holders
	return p
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

// spare is what one task needs of a node, as far as it is free.
func (r *room) spare(node int, s *shape, ports int32) held {
	n := &r.nodes[node]
	k := held{node: int32(node), cpu: clamp(s.cpu, n.cpu), memory: clamp(s.memory, n.memory),
		ports: int32(clamp(int64(ports), int64(n.ports)))}
	for _, at := range r.freest(node, s) {
		d := &r.devices[at]
		g := granted{device: at, share: max(0, d.shareFree), memory: max(0, d.memFree)}
		if s.share != 0 {
			g.share = int32(clamp(int64(s.share), int64(d.shareFree)))
			g.memory = clamp(d.shareMemory(s), d.memFree)
		}
		k.devices = append(k.devices, g)
	}
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

// nodesOf gives the nodes of which something is kept, or on which the job will run.
func (k *keep) nodesOf() []int32 {
	var nodes []int32
	for i := range k.parts {
		nodes = append(nodes, k.parts[i].node)
	}
	for i := range k.need {
		nodes = append(nodes, k.need[i].node)
	}
	nodes = append(nodes, k.nodes...)
	slices.Sort(nodes)
	return slices.Compact(nodes)
}

// nodeIDs is nodesOf by ID.
func (k *keep) nodeIDs(r *room) []string {
	var ids []string
	for _, node := range k.nodesOf() {
		ids = append(ids, r.spec[node].ID)
	}
	return ids
}
