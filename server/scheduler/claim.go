package scheduler

import (
	"slices"

	"llmos/server/scheduler/fair"
)

// claimed is a claim that binds: its room is taken out for everybody but its owner.
type claimed struct {
	*Claim
	jobID  string
	length int64  // of its owner's run, where it is known
	parts  []held // those on nodes that are there
	slots  []int  // index in Claim.Slots of each part
	kept   bool   // out of the room now

	charged bool // its queue is charged for it: somebody else's quota is being emptied for its owner
	leaf    int
	user    string
	demand  fair.Demand
}

// keepClaims takes the claims of pending jobs, and of attempts that are being ended for
// another try, out of the room. Claims that have lapsed bind nobody.
func (r *round) keepClaims() {
	for i := range r.jobs {
		if j := &r.jobs[i]; j.Claim != nil && j.Claim.UntilMS > r.s.NowMS {
			c := r.keepClaim(j.ID, j.Claim, lengthOf(j))
			if c.Kind != ClaimRepair && r.turns.tree != nil {
				c.leaf, c.user, c.demand = r.turns.leaf[i], j.User, j.Demand(c.Counts)
				r.charge(c, true)
			}
		}
	}
	for i := range r.s.Running {
		if run := &r.s.Running[i]; run.Claim != nil && run.Claim.UntilMS > r.s.NowMS {
			r.keepClaim(run.JobID, run.Claim, forever)
		}
	}
}

func (r *round) keepClaim(jobID string, claim *Claim, length int64) *claimed {
	c := &claimed{Claim: claim, jobID: jobID, length: length}
	for i := range claim.Slots {
		if part, ok := r.now.room.partOf(&claim.Slots[i]); ok {
			c.parts, c.slots = append(c.parts, part), append(c.slots, i)
		}
	}
	if r.claims == nil {
		r.claims = map[string]*claimed{}
	}
	r.claims[jobID] = c
	r.claimList = append(r.claimList, c)
	r.take(c)
	return c
}

// charge books what the claim's owner will hold on its queue, or takes it back.
func (r *round) charge(c *claimed, charged bool) {
	switch {
	case r.turns.tree == nil || c.leaf == 0 || charged == c.charged:
		return
	case charged:
		r.turns.tree.Start(c.leaf, c.user, c.demand)
	default:
		r.turns.tree.End(c.leaf, c.user, c.demand)
	}
	c.charged = charged
}

// take keeps the claim's room from others.
func (r *round) take(c *claimed) {
	for i := range c.parts {
		r.now.room.add(&c.parts[i], -1)
	}
	c.kept = true
}

// lend gives the claim's room back, to its owner or to everybody.
func (r *round) lend(c *claimed) {
	for i := range c.parts {
		r.now.room.add(&c.parts[i], 1)
	}
	c.kept = false
}

// admits asks the quotas. For the owner of a claim only what attempts really hold counts: it
// came first, and those who claimed something since will wait for it.
func (r *round) admits(i int, d fair.Demand, claim *claimed) fair.Verdict {
	if claim == nil || r.turns.tree == nil {
		return r.turns.admits(i, d, claim != nil)
	}
	var others []*claimed
	for _, c := range r.claimList {
		if c.charged {
			r.charge(c, false)
			others = append(others, c)
		}
	}
	v := r.turns.admits(i, d, true)
	for _, c := range others {
		r.charge(c, true)
	}
	return v
}

// startOnClaim places a job on the room that is kept for it, which is lent to it now: on
// exactly its slots when the claim is for the whole gang, with replacements for what a repair
// lacks, or anywhere when that fits earlier.
func (r *round) startOnClaim(i int, c *claimed) bool {
	job := &r.jobs[i]
	r.view(job)
	mark := len(r.now.room.trail)
	if tasks, ok := r.placeOn(i, c); ok {
		r.accept(i, tasks, r.countsOn(job, c), mark, claimReasons[c.Kind])
		return true
	}
	fresh := r.another() // more is free for the owner than for those before it
	asked := *job
	if len(c.Counts) == len(job.Roles) && job.elastic() {
		asked = job.withCounts(c.Counts)
	}
	if tasks, counts, ok := r.placeIn(fresh, i, &asked); ok {
		if counts == nil {
			counts = r.countsOn(job, c)
		}
		r.accept(i, tasks, counts, mark, "fits without the room that was kept for it")
		r.forget()
		return true
	}
	return false
}

var claimReasons = map[ClaimKind]string{
	ClaimRepair:  "runs again on the nodes that were kept for it and on a replacement",
	ClaimPreempt: "the jobs that were stopped for it have ended",
	ClaimResize:  "goes on with another number of tasks",
}

func (r *round) countsOn(job *Job, c *claimed) []int32 {
	switch {
	case !job.elastic():
		return nil
	case len(c.Counts) == len(job.Roles):
		return slices.Clone(c.Counts)
	}
	return countsOf(job)
}

// forget drops what failed before: more is free now than was then.
func (r *round) forget() {
	r.now = r.another()
	clear(r.views)
	r.lost = r.lost[:0]
}

// placeOn places the gang on the claim's slots, and what they do not cover beside them.
func (r *round) placeOn(i int, c *claimed) ([]TaskPlacement, bool) {
	job := &r.jobs[i]
	asked := *job
	if len(c.Counts) == len(job.Roles) {
		asked = job.withCounts(c.Counts)
	}
	mark := len(r.now.room.trail)
	entries, ok := r.putOn(&asked, c, c.Kind == ClaimRepair)
	if ok && r.byModel && !r.admits(i, r.now.room.takenSince(mark), c).OK {
		r.now.room.rollback(mark) // another has used up the quota of the model since
		ok = false
	}
	if !ok {
		return nil, false
	}
	return r.grant(job, entries), true
}

// putOn takes the claim's slots for the gang, and room for the tasks that find none of them
// if more says so. It takes everything or nothing.
func (r *round) putOn(asked *Job, c *claimed, more bool) (entries []int, ok bool) {
	room := r.now.room
	mark := len(room.trail)
	slotOf, missing := c.assign(asked)
	if missing > 0 && !more {
		return nil, false
	}
	// What others have claimed of the same nodes was planned beside these slots, and may count
	// on what has not been released yet: it does not bind here.
	var others []*claimed
	for _, o := range r.claimList {
		if o.kept {
			r.lend(o)
			others = append(others, o)
		}
	}
	entries, ok = r.takeSlots(asked, c, slotOf)
	for _, o := range others {
		r.take(o)
	}
	if ok && missing > 0 {
		ok = r.placeRest(asked, slotOf, entries)
	}
	if !ok {
		room.rollback(mark)
	}
	return entries, ok
}

// takeSlots takes the parts that the ranks were assigned, until one is not free.
func (r *round) takeSlots(asked *Job, c *claimed, slotOf []int) (entries []int, ok bool) {
	entries, ok = make([]int, len(slotOf)), true
	groups := r.now.room.groups(asked)
	for g := range groups {
		for rank := groups[g].firstRank; rank < groups[g].firstRank+groups[g].count && ok; rank++ {
			if slotOf[rank] < 0 {
				continue
			}
			ports := groups[g].shape.ports
			if groups[g].rendezvous && rank == groups[g].firstRank {
				ports++
			}
			entries[rank], ok = r.now.room.takeExactly(&c.parts[slotOf[rank]], ports)
		}
	}
	return entries, ok
}

// assign gives each rank one of the claim's parts that is what it asks, -1 for those that
// find none.
func (c *claimed) assign(job *Job) (slotOf []int, missing int) {
	used := make([]bool, len(c.parts))
	for i := range job.Roles {
		t := &job.Roles[i].Task
		for range job.Roles[i].Count {
			at := -1
			for k := range c.parts {
				if !used[k] && c.parts[k].suits(&c.Slots[c.slots[k]], t) {
					at = k
					used[k] = true
					break
				}
			}
			if at < 0 {
				missing++
			}
			slotOf = append(slotOf, at)
		}
	}
	return slotOf, missing
}

// suits says whether the slot is what a task asks, and all its devices are there.
func (k *held) suits(s *Slot, t *Request) bool {
	return s.CPU == t.CPU && s.Memory == t.Memory && len(s.Devices) == int(t.GPUs) && len(k.devices) == len(s.Devices)
}

// takeExactly takes a part from the room, with so many ports, if it is all free.
func (r *room) takeExactly(k *held, ports int32) (entry int, ok bool) {
	n := &r.nodes[k.node]
	if !n.usable || n.cpu < k.cpu || n.memory < k.memory || n.ports < ports {
		return 0, false
	}
	for _, g := range k.devices {
		d := &r.devices[g.device]
		if !d.available || d.shareFree < g.share || d.memFree < g.memory {
			return 0, false
		}
	}
	e := taken{node: k.node, ports: ports, cpu: k.cpu, memory: k.memory, first: int32(len(r.granted))}
	r.granted = append(r.granted, k.devices...)
	e.last = int32(len(r.granted))
	n.cpu -= e.cpu
	n.memory -= e.memory
	n.ports -= e.ports
	for _, g := range k.devices {
		r.change(n, g.device, -g.share, -g.memory)
	}
	r.trail = append(r.trail, e)
	r.touch(int(k.node))
	return len(r.trail) - 1, true
}

// placeRest places the ranks without a slot, in the topology domain of those that have one
// where the job must run in one.
func (r *round) placeRest(job *Job, slotOf []int, entries []int) bool {
	rest, ranks := r.rest(job, slotOf, func(rank int) *Node { return &r.now.room.spec[r.now.room.trail[entries[rank]].node] })
	more, ok := r.another().put(&rest)
	if !ok {
		return false
	}
	for i, rank := range ranks {
		entries[rank] = more[i]
	}
	return true
}

// rest is the part of the gang that has no slot, as a job, and the ranks of its tasks. nodeOf
// gives the node of a rank that has one.
func (r *round) rest(job *Job, slotOf []int, nodeOf func(rank int) *Node) (Job, []int) {
	rest := *job
	rest.Roles = slices.Clone(job.Roles)
	rest.Rendezvous = job.Rendezvous && slotOf[0] < 0
	var ranks []int
	var domain *Node
	rank := 0
	for i := range job.Roles {
		role := &rest.Roles[i]
		role.Count, role.Min = 0, 0
		for range job.Roles[i].Count {
			if slotOf[rank] < 0 {
				ranks = append(ranks, rank)
				role.Count++
			} else if domain == nil {
				domain = nodeOf(rank)
			}
			rank++
		}
	}
	rest.Roles = slices.DeleteFunc(rest.Roles, func(r Role) bool { return r.Count == 0 })
	if job.Within != "" && domain != nil {
		match := Match{Key: job.Within, Values: []string{domain.Labels[job.Within]}}
		if job.Within == "node" {
			match.Values[0] = domain.ID
		}
		here := []Expr{{Match: &match}}
		if job.Where != nil {
			here = append(here, *job.Where)
		}
		rest.Where = &Expr{All: here}
	}
	return rest, ranks
}

// stopping counts the attempts that are being stopped on the claim's nodes.
func (r *round) stopping(c *claimed) int {
	n := 0
	for i := range r.s.Running {
		run := &r.s.Running[i]
		if run.Ending && slices.ContainsFunc(run.Slots, func(s Slot) bool {
			return slices.ContainsFunc(c.Slots, func(k Slot) bool { return k.NodeID == s.NodeID })
		}) {
			n++
		}
	}
	return n
}

// keepForRest keeps room for the tasks of a gang whose own slots are claimed: the best
// replacement for what it lost is held as it frees up.
func (r *round) keepForRest(job *Job, c *claimed) (*keep, bool) {
	asked := *job
	if len(c.Counts) == len(job.Roles) {
		asked = job.withCounts(c.Counts)
	}
	slotOf, missing := c.assign(&asked)
	if missing == 0 {
		return nil, false
	}
	rest, _ := r.rest(&asked, slotOf, func(rank int) *Node { return &r.now.room.spec[c.parts[slotOf[rank]].node] })
	rest.WaitedMS = r.policy.HoldAfterMS // it has waited for its first start already
	k, ok := r.keepFor(&rest)
	if ok {
		k.job = job
	}
	return k, ok
}
