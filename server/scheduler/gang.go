package scheduler

import (
	"cmp"
	"slices"
)

// pass is one run of Schedule.
type pass struct {
	policy Policy
	jobs   []Job // in scheduling order
	ratio  float64
	now    *placer           // on what is free
	empty  *placer           // on the capacity, for holds; made when first needed
	ports  map[int32][]int32 // by node: given in this pass
}

func newPass(s Snapshot, policy Policy) *pass {
	jobs := inOrder(s.Pending)
	ratio := cpuPerDevice(jobs)
	return &pass{policy: policy, jobs: jobs, ratio: ratio, ports: map[int32][]int32{},
		now: newPlacer(newRoom(byID(s.Nodes), policy.Weights, ratio, viewFree))}
}

// placer puts gangs into one room. Room only shrinks during a pass, so what did not fit
// once will not fit later, nor will anything that asks as much.
type placer struct {
	room        *room
	byRank      bool // nodes in order of rank alone, instead of few nodes first
	failed      []group
	failedGangs map[gangKey]bool
}

func newPlacer(r *room) *placer {
	return &placer{room: r, failedGangs: map[gangKey]bool{}}
}

// group is a role of a gang as it is placed: count tasks of one shape.
type group struct {
	shape      shape
	count      int
	firstRank  int
	rendezvous bool // its first task needs one port more
}

// gangKey names a gang of several roles by what it asks.
type gangKey [4]struct {
	shape      shape
	count      int
	rendezvous bool
}

// failedMax bounds the list of failed requests, which is searched for each job.
const failedMax = 64

// place gives a job's gang its nodes, devices and ports, or nothing.
func (p *pass) place(job *Job) ([]TaskPlacement, bool) {
	entries, ok := p.now.put(job)
	if !ok {
		return nil, false
	}
	return p.grant(job, entries), true
}

// put takes room for the whole gang and gives the place in the trail of each rank, or it
// takes nothing.
func (p *placer) put(job *Job) ([]int, bool) {
	groups := p.room.groups(job)
	if p.hopeless(groups) {
		return nil, false
	}
	for _, model := range p.room.oneModel(groups) {
		if entries, ok := p.putAll(withModel(groups, model), job.world()); ok {
			return entries, true
		}
	}
	return p.putAll(groups, job.world())
}

func (r *room) groups(job *Job) []group {
	groups := make([]group, 0, len(job.Roles))
	rank := 0
	for i := range job.Roles {
		role := &job.Roles[i]
		groups = append(groups, group{shape: r.shapeOf(&role.Task), count: int(role.Count), firstRank: rank,
			rendezvous: job.Rendezvous && rank == 0})
		rank += int(role.Count)
	}
	return groups
}

// oneModel gives the models to try, smallest memory first, so that a gang that accepts any
// runs on one: ranks that wait for each other run at the speed of the slowest. Empty when
// there is nothing to choose.
func (r *room) oneModel(groups []group) []int16 {
	tasks := 0
	for _, g := range groups {
		if g.shape.gpus > 0 && g.shape.model == anyModel {
			tasks += g.count
		}
	}
	if tasks < 2 || len(r.models) < 2 {
		return nil
	}
	var models []int16
	for _, k := range r.kinds {
		if !slices.Contains(models, k.model) {
			models = append(models, k.model)
		}
	}
	return models
}

func withModel(groups []group, model int16) []group {
	groups = slices.Clone(groups)
	for i := range groups {
		if s := &groups[i].shape; s.gpus > 0 && s.model == anyModel {
			s.model = model
		}
	}
	return groups
}

// hopeless says whether some role has failed before, or one that asks less has.
func (p *placer) hopeless(groups []group) bool {
	for _, g := range groups {
		for _, f := range p.failed {
			if g.count >= f.count && g.shape.needs(f.shape) {
				return true
			}
		}
	}
	key, known := keyOf(groups)
	return known && p.failedGangs[key]
}

func keyOf(groups []group) (key gangKey, fits bool) {
	if len(groups) > len(key) {
		return key, false
	}
	for i, g := range groups {
		key[i].shape, key[i].count, key[i].rendezvous = g.shape, g.count, g.rendezvous
	}
	return key, true
}

func (p *placer) putAll(groups []group, world int) ([]int, bool) {
	if p.hopeless(groups) {
		return nil, false
	}
	for _, g := range groups {
		if p.room.index(g.shape).total < int64(g.count) {
			if len(p.failed) < failedMax {
				p.failed = append(p.failed, g)
			}
			return nil, false
		}
	}
	mark := len(p.room.trail)
	entries := make([]int, world)
	var used []int
	for _, g := range hardestFirst(groups) {
		ok := false
		if used, ok = p.putGroup(g, entries, used); !ok {
			p.room.rollback(mark)
			if key, known := keyOf(groups); known {
				p.failedGangs[key] = true
			}
			return nil, false
		}
	}
	return entries, true
}

// hardestFirst gives the groups by what they ask of one node, most first: what is hard to
// place should find the nodes untouched.
func hardestFirst(groups []group) []group {
	groups = slices.Clone(groups)
	slices.SortStableFunc(groups, func(a, b group) int {
		return cmp.Or(
			cmp.Compare(b.shape.deviceShare(), a.shape.deviceShare()),
			cmp.Compare(b.shape.cpu, a.shape.cpu),
			cmp.Compare(b.shape.memory, a.shape.memory))
	})
	return groups
}

// putGroup places one role's tasks, rank after rank, node after node. used are the nodes
// that the gang is on already.
func (p *placer) putGroup(g group, entries []int, used []int) ([]int, bool) {
	var excluded map[int]bool
	for done := 0; done < g.count; {
		x := p.room.index(g.shape)
		node := p.choose(x, &g, g.count-done, used, excluded)
		if node < 0 {
			return used, false
		}
		more := int32(0)
		if g.rendezvous && done == 0 {
			more = 1
		}
		here := p.room.fitWith(node, &g.shape, min(int(x.fits[node]), g.count-done), more)
		if here == 0 { // only the rendezvous port is missing
			if excluded == nil {
				excluded = map[int]bool{}
			}
			excluded[node] = true
			continue
		}
		if done == 0 {
			excluded = nil
		}
		for range here {
			entries[g.firstRank+done] = p.room.take(node, &g.shape, more)
			more = 0
			done++
		}
		if !slices.Contains(used, node) {
			used = append(used, node)
		}
	}
	return used, true
}

// choose picks the next node for a group of which left tasks remain.
func (p *placer) choose(x *index, g *group, left int, used []int, excluded map[int]bool) int {
	if p.byRank {
		return x.bestFrom(p.room, 1, excluded)
	}
	best := -1
	if g.shape.gpus > 0 {
		for _, node := range used { // stay on the gang's nodes
			if x.fits[node] > 0 && !excluded[node] && (best < 0 || x.fits[node] > x.fits[best]) {
				best = node
			}
		}
	}
	if best >= 0 {
		return best
	}
	return x.fewest(p.room, left, excluded)
}

// fitWith lowers the number of tasks for a node until the additional ports fit beside them.
func (r *room) fitWith(node int, s *shape, tasks int, more int32) int {
	for tasks > 0 && int64(r.nodes[node].ports) < int64(tasks)*int64(s.ports)+int64(more) {
		tasks--
	}
	return tasks
}

// grant turns the places in the trail into the placements of the ranks.
func (p *pass) grant(job *Job, entries []int) []TaskPlacement {
	r := p.now.room
	tasks := make([]TaskPlacement, len(entries))
	for rank, at := range entries {
		entry := &r.trail[at]
		spec := &r.spec[entry.node]
		tasks[rank].NodeID = spec.ID
		first := r.nodes[entry.node].first
		if entry.last > entry.first {
			tasks[rank].Devices = make([]Grant, 0, entry.last-entry.first)
		}
		for _, g := range r.granted[entry.first:entry.last] {
			tasks[rank].Devices = append(tasks[rank].Devices,
				Grant{DeviceID: spec.Devices[g.device-first].ID, Share: g.share, Memory: g.memory})
		}
		if entry.ports > 0 {
			tasks[rank].Ports = p.choosePorts(job, entry)
		}
	}
	return tasks
}

// choosePorts gives free ports of the node. The search starts at a place that depends on
// the job, its attempt and the node: agents that share a host, and attempts that follow
// each other, should seldom meet on one port.
func (p *pass) choosePorts(job *Job, entry *taken) []int32 {
	spec := &p.now.room.spec[entry.node]
	size := uint64(spec.PortMax-spec.PortMin) + 1
	start := portHash(job.ID, spec.ID, job.Attempt) % size
	ports := make([]int32, 0, entry.ports)
	for i := uint64(0); i < size && len(ports) < int(entry.ports); i++ {
		port := spec.PortMin + int32((start+i)%size)
		if _, held := slices.BinarySearch(spec.Ports, port); held || slices.Contains(p.ports[entry.node], port) {
			continue
		}
		ports = append(ports, port)
		p.ports[entry.node] = append(p.ports[entry.node], port)
	}
	return ports
}

// portHash is FNV-1a over both names and the attempt.
func portHash(job, node string, attempt uint64) uint64 {
	h := uint64(14695981039346656037)
	add := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(job) {
		add(job[i])
	}
	add(0)
	for i := range len(node) {
		add(node[i])
	}
	for i := range 8 {
		add(byte(attempt >> (8 * i)))
	}
	return h
}
