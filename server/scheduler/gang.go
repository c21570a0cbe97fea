package scheduler

import (
	"cmp"
	"slices"
)

// placer puts gangs into one room. Room only shrinks during a pass, so what did not fit
// once will not fit later, nor will anything that asks as much.
type placer struct {
	room        *room
	running     []Running                        // for near and apart
	prefer      func(node int, s *shape) float64 // of nodes, lower first, before the score; nil: the score alone
	limit       func(job *Job) nodeSet           // nodes that the job may use at all, nil: any; a nil func: no limit
	counts      []int32                          // of the gang put last: tasks of each role; nil: as the roles say
	placed      []standing                       // gangs placed in this pass
	names       map[string]*[2]nodeSet           // by job name: where such jobs run, and where they stay
	holders     map[string][]int32               // by artifact: the nodes that hold it; nil: not read yet
	short       shortlist                        // reused
	failed      []group
	failedGangs map[gangKey]bool
}

func newPlacer(r *room) *placer {
	return &placer{room: r, failedGangs: map[gangKey]bool{}}
}

// group is a role of a gang as it is placed: count tasks of one shape.
type group struct {
	shape      shape
	kinds      kindSet // of device that the role accepts; shape may be narrowed to one model
	count      int
	firstRank  int
	rendezvous bool // its first task needs one port more
}

// gangKey names a gang of several roles, or with conditions, by what it asks.
type gangKey struct {
	groups [4]struct {
		shape      shape
		count      int
		rendezvous bool
	}
	conditions
}

// failedMax bounds the list of failed requests, which is searched for each job.
const failedMax = 64

// put takes room for the whole gang and gives the place in the trail of each rank, or it
// takes nothing. Of an elastic gang it takes as many tasks as fit; see counts.
func (p *placer) put(job *Job) ([]int, bool) {
	p.counts = nil
	for i := range job.Roles {
		if job.Roles[i].elastic() {
			return p.putElastic(job)
		}
	}
	return p.putCounts(job, nil)
}

// putCounts is put with so many tasks of each role; nil: as the roles say.
func (p *placer) putCounts(job *Job, counts []int32) ([]int, bool) {
	d, ok := p.demand(job)
	if !ok {
		return nil, false
	}
	groups := p.room.groupsOf(job, counts)
	if len(d.avoid) > 0 {
		kind := d
		kind.nodes, kind.memorable = p.room.without(d.nodes, d.avoid), false
		if entries, ok := p.putModels(&kind, groups); ok {
			return entries, true
		}
	}
	return p.putModels(&d, groups)
}

// putModels tries a gang that may choose on one model after the other, so that it runs on
// one: ranks that wait for each other run at the speed of the slowest.
func (p *placer) putModels(d *demand, groups []group) ([]int, bool) {
	if p.hopeless(d, groups) {
		return nil, false
	}
	for _, model := range p.room.oneModel(groups) {
		if entries, ok := p.putAll(d, p.room.withModel(groups, model)); ok {
			return entries, true
		}
	}
	return p.putAll(d, groups)
}

func (r *room) groups(job *Job) []group { return r.groupsOf(job, nil) }

func (r *room) groupsOf(job *Job, counts []int32) []group {
	return r.appendGroups(make([]group, 0, len(job.Roles)), job, counts)
}

func (r *room) appendGroups(groups []group, job *Job, counts []int32) []group {
	rendezvous := job.Rendezvous && (counts == nil || several(counts))
	rank := 0
	for i := range job.Roles {
		role := &job.Roles[i]
		count := int(role.Count)
		if counts != nil {
			count = int(counts[i])
		}
		s := r.shapeOf(&role.Task)
		groups = append(groups, group{shape: s, kinds: s.kinds, count: count, firstRank: rank, rendezvous: rendezvous && rank == 0})
		rank += count
	}
	return groups
}

// oneModel gives the models to try, smallest memory first. Empty when there is nothing to
// choose.
func (r *room) oneModel(groups []group) []int16 {
	tasks := 0
	var models []int16
	for i := range groups {
		if s := &groups[i].shape; s.gpus > 0 && s.model < 0 {
			tasks += groups[i].count
			for _, m := range r.modelsOf(s) {
				if !slices.Contains(models, m) {
					models = append(models, m)
				}
			}
		}
	}
	if tasks < 2 || len(models) < 2 {
		return nil
	}
	return models
}

func (r *room) withModel(groups []group, model int16) []group {
	groups = slices.Clone(groups)
	for i := range groups {
		if s := &groups[i].shape; s.gpus > 0 && s.model < 0 {
			*s = r.ofModel(*s, model)
		}
	}
	return groups
}

// hopeless says whether some role has failed before, or one that asks less has.
func (p *placer) hopeless(d *demand, groups []group) bool {
	for i := range groups {
		g := &groups[i]
		for j := range p.failed {
			if f := &p.failed[j]; g.count >= f.count && g.shape.needs(&f.shape) {
				return true
			}
		}
	}
	if len(p.failedGangs) == 0 {
		return false
	}
	key, known := keyOf(d, groups)
	return known && p.failedGangs[key]
}

func keyOf(d *demand, groups []group) (key gangKey, fits bool) {
	if len(groups) > len(key.groups) || !d.memorable {
		return key, false
	}
	key.conditions = d.conditions
	for i := range groups {
		g := &groups[i]
		key.groups[i].shape, key.groups[i].count, key.groups[i].rendezvous = g.shape, g.count, g.rendezvous
	}
	return key, true
}

func (p *placer) putAll(d *demand, groups []group) ([]int, bool) {
	if p.hopeless(d, groups) {
		return nil, false
	}
	world := 0
	for i := range groups {
		g := &groups[i]
		if g.count == 1 && d.plain {
			world++
			continue // choosing a node finds out as well
		}
		if p.room.index(&g.shape).total(p.room, int64(g.count)) < int64(g.count) {
			if len(p.failed) < failedMax {
				p.failed = append(p.failed, *g)
			}
			return nil, false
		}
		world += g.count
	}
	mark := len(p.room.trail)
	gang := &gang{placer: p, demand: d, groups: hardestFirst(groups), entries: make([]int, world)}
	if gang.put() {
		return gang.entries, true
	}
	p.room.rollback(mark)
	if len(groups) == 1 && groups[0].count == 1 && d.plain && !groups[0].rendezvous && len(p.failed) < failedMax {
		p.failed = append(p.failed, groups[0])
	} else if key, known := keyOf(d, groups); known {
		p.failedGangs[key] = true
	}
	return nil, false
}

// hardestFirst gives the groups by what they ask of one node, most first: what is hard to
// place should find the nodes untouched.
func hardestFirst(groups []group) []group {
	if len(groups) < 2 {
		return groups
	}
	groups = slices.Clone(groups)
	slices.SortStableFunc(groups, func(a, b group) int {
		return cmp.Or(
			cmp.Compare(b.shape.deviceShare(), a.shape.deviceShare()),
			cmp.Compare(b.shape.cpu, a.shape.cpu),
			cmp.Compare(b.shape.memory, a.shape.memory))
	})
	return groups
}

// gang is one gang while it is placed.
type gang struct {
	*placer
	demand  *demand
	groups  []group
	entries []int   // by rank: the place in the trail
	used    []int32 // nodes that it is on
}

// fill places tasks from to from+n of a group on nodes of the set, rank after rank, node
// after node, on as few nodes as can be.
func (g *gang) fill(of *group, from, n int, nodes nodeSet) bool {
	r := g.room
	if n == 1 && g.demand.plain && g.prefer == nil && len(g.entries) == 1 && r.rare(&of.shape) {
		node := r.scan(&of.shape)
		if node < 0 {
			return false
		}
		g.entries[of.firstRank+from] = r.take(node, &of.shape, 0)
		return true
	}
	local := nodes != nil || g.prefer != nil || g.demand.addend != nil
	opened := false
	for done := 0; done < n; {
		shape, more := of.shape, int32(0)
		if of.rendezvous && from+done == 0 {
			more = 1
			shape.ports++
		}
		x := r.index(&shape)
		node := g.stay(x, nodes)
		switch {
		case node >= 0:
		case !local:
			node = x.fewest(r, n-done)
		case n == 1:
			node = g.best(x, nodes)
		default:
			if !opened || more > 0 {
				g.short.open(g, x, nodes)
				opened = more == 0
			}
			node = g.short.fewest(g, n-done)
		}
		if node < 0 {
			return false
		}
		here := r.fitWith(node, &of.shape, min(int(r.fit(node, &of.shape)), n-done), more)
		if here == 0 {
			return false // cannot be: the index said that it fits
		}
		for range here {
			g.entries[of.firstRank+from+done] = r.take(node, &of.shape, more)
			more = 0
			done++
		}
		if !slices.Contains(g.used, int32(node)) {
			g.used = append(g.used, int32(node))
		}
		if opened {
			g.short.add(g, r.index(&of.shape), node)
		}
	}
	return true
}

// stay picks the node with most room of those that the gang is on already, -1 for none. It
// matters to tasks with devices, which talk to each other.
func (g *gang) stay(x *index, nodes nodeSet) int {
	best, most := -1, int32(0)
	if x.shape.gpus == 0 {
		return best
	}
	for _, node := range g.used {
		if fit := x.fitOn(g.room, int(node)); fit > most && nodes.has(g.room, int(node)) {
			best, most = int(node), fit
		}
	}
	return best
}

// fitWith lowers the number of tasks for a node until the additional ports fit beside them.
func (r *room) fitWith(node int, s *shape, tasks int, more int32) int {
	for tasks > 0 && int64(r.nodes[node].ports) < int64(tasks)*int64(s.ports)+int64(more) {
		tasks--
	}
	return tasks
}
