package scheduler

import (
	"cmp"
	"fmt"
	"slices"

	"llmos/server/scheduler/fair"
	"llmos/server/scheduler/victims"
)

// Bounds of preemption in one pass.
const (
	preemptsMax   = 8       // jobs for which victims are looked for
	scansMax      = 100_000 // attempts that are looked at for all of them, but for a single job
	victimsMax    = 1024    // attempts among which they are looked for
	nodesPerTask  = 4       // nodes that are looked at for each task of the gang,
	nodesAtLeast  = 256     // and at least so many
	preemptedMax  = 6       // preemptions beyond which an attempt's price no longer doubles
	cpuPerGPU     = 16_000
	fairFactor    = 2 // an attempt's index must be so many times a waiting job's to be stopped for it
	tierShrink    = 0
	tierStop      = 1
	tierFair      = 2
	emptyTreeLeaf = -1
)

// victim is an attempt that may be stopped, or shrunk, for a job.
type victim struct {
	run    int // index in Snapshot.Running
	kind   EvictionKind
	leaf   int // of the queue tree
	lost   float64
	useful float64 // GPUs that it frees for the job
	frees  []held
	keeps  []int   // of an elastic one that shrinks: the ranks that stay
	counts []int32 // and the tasks of each role that it goes on with
}

// preempt looks for attempts to stop so that a job, which is blocked for that reason, can
// start. It enters their evictions and the claim of the job into the plan, and says how many.
func (r *round) preempt(i int, why block) int {
	job := &r.jobs[i]
	if r.policy.NoPreempt || len(r.s.Running) == 0 || r.claims[job.ID] != nil {
		return 0
	}
	switch why.verdict.Why {
	case fair.CauseNone, fair.CauseQuota, fair.CauseLent, fair.CauseGuarantee:
	default:
		return 0 // limits on the number of jobs, and users' limits, are no reason to stop others
	}
	if len(r.lost) > 0 && r.hopeless(i) {
		return 0
	}
	if r.preempts >= preemptsMax || (r.scans > 0 && r.scans+len(r.s.Running) > scansMax) {
		r.plan.Limited = true
		return 0
	}
	r.scans += len(r.s.Running)
	a := r.attackFor(i)
	if !a.candidates() || !a.withinReach() {
		a.note()
		return 0
	}
	r.preempts++
	chosen, ok := a.choose()
	if ok {
		return a.enter(chosen)
	}
	if !a.soon {
		a.note()
	}
	return 0
}

func (r *round) attackFor(i int) *attack {
	small := r.jobs[i].sized(0)
	a := &attack{round: r, i: i, job: &small, demand: small.Demand(nil), leaf: emptyTreeLeaf, groups: r.now.room.groups(&small)}
	a.lead = hardestFirst(a.groups)[0].shape
	if r.turns.tree != nil {
		a.leaf = r.turns.leaf[i]
		a.reclaims = r.turns.admits(i, a.demand, false).Reclaim
	}
	return a
}

// attack is the search for the victims of one job.
type attack struct {
	*round
	i        int
	job      *Job // with the fewest tasks
	groups   []group
	lead     shape // of the role that asks most of a node
	demand   fair.Demand
	leaf     int
	reclaims bool         // with the job its queue would be within its guarantee
	from     map[int]bool // by leaf: what it holds may be reclaimed
	victims  []victim
	trial    *trial
	soon     bool // it fits when those have stopped that are being stopped
}

// kindFor says for which reason the attempt may be stopped for the job; EvictResize: it may
// only shrink; 0: neither.
func (a *attack) kindFor(run *Running, leaf int) EvictionKind {
	switch {
	case run.Ending || run.NoPreempt || (len(a.stopped) > 0 && a.stopped[run.JobID]):
		return 0
	case a.s.NowMS-run.StartedMS < a.minRun(run):
		return 0
	case run.Priority < a.job.Priority:
		if a.turns.tree == nil || !a.turns.tree.Protects(leaf, a.leaf) {
			return EvictPriority
		}
		return 0
	case a.turns.tree != nil && a.reclaims && a.mayReclaim(leaf):
		return EvictReclaim
	case a.policy.Order == OrderIndex && run.Priority == a.job.Priority && run.Index > fairFactor*a.job.Index &&
		(a.turns.tree == nil || !a.turns.tree.Protects(leaf, a.leaf)):
		return EvictFair
	case run.Priority == a.job.Priority && len(run.Elastic) > 0:
		return EvictResize // what it has beyond its minimum is lent to it
	}
	return 0
}

// mayReclaim asks the tree once for each leaf.
func (a *attack) mayReclaim(leaf int) bool {
	may, known := a.from[leaf]
	if !known {
		if a.from == nil {
			a.from = map[int]bool{}
		}
		may = a.turns.tree.MayReclaim(a.leaf, leaf, a.demand)
		a.from[leaf] = may
	}
	return may
}

func (r *round) minRun(run *Running) int64 {
	if run.MinRunMS > 0 {
		return run.MinRunMS
	}
	return max(0, r.policy.MinRunMS)
}

// candidates lists the attempts that may be stopped and would help.
func (a *attack) candidates() bool {
	for at := range a.s.Running {
		run := &a.s.Running[at]
		leaf := emptyTreeLeaf
		if a.turns.tree != nil {
			leaf = a.usage.leaf(at)
		}
		kind := a.kindFor(run, leaf)
		if kind == 0 {
			continue
		}
		v := victim{run: at, kind: kind, leaf: leaf, lost: a.lostWork(run), frees: a.partsOfRun(at)}
		if v.useful = a.usefulOf(v.frees); v.useful == 0 {
			continue
		}
		if kind == EvictResize {
			if small, ok := a.shrunk(run, &v, 0); ok {
				a.victims = append(a.victims, small)
			}
			continue
		}
		if kind == EvictFair {
			v.lost = worth(run)
		} else if small, ok := a.shrunk(run, &v, 0); ok {
			a.victims = append(a.victims, small)
		}
		a.victims = append(a.victims, v)
	}
	return len(a.victims) > 0
}

// usefulOf is how much of what is freed the job could use, in GPUs or their like in CPUs.
func (a *attack) usefulOf(frees []held) float64 {
	sum := 0.0
	for i := range frees {
		if !a.now.room.nodes[frees[i].node].usable {
			continue
		}
		if a.lead.gpus == 0 {
			sum += float64(frees[i].cpu) / cpuPerGPU
			continue
		}
		for _, g := range frees[i].devices {
			if a.now.room.devices[g.device].suits(&a.lead) {
				sum += float64(g.share) / deviceWhole
			}
		}
	}
	return sum
}

// lostWork is what is lost by stopping an attempt: what it has computed since its newest
// checkpoint and what a restart costs, in GPU seconds, doubled for each time that it was
// stopped for others before.
func (r *round) lostWork(run *Running) float64 {
	size := sizeOf(run)
	restart := run.RestartMS
	if restart <= 0 {
		restart = r.policy.RestartMS
	}
	since := max(run.StartedMS, run.CheckpointMS)
	lost := size * float64(max(0, r.s.NowMS-since)+restart) / 1000
	return lost * float64(int64(1)<<min(preemptedMax, max(0, run.Preemptions)))
}

// worth is what stopping an attempt costs when its turn is over: the more the lower its index
// is, for each GPU that it holds. On the Philly trace this does better than least lost work.
func worth(run *Running) float64 {
	return sizeOf(run) / run.Index
}

// sizeOf is what an attempt holds, in GPUs or their like in CPUs.
func sizeOf(run *Running) float64 {
	var cpu, share int64
	for i := range run.Slots {
		cpu += run.Slots[i].CPU
		for j := range run.Slots[i].Devices {
			share += int64(run.Slots[i].Devices[j].Share)
		}
	}
	return float64(share)/deviceWhole + float64(cpu)/cpuPerGPU
}

// choose finds the cheapest victims with which the job places.
func (a *attack) choose() ([]int, bool) {
	nodes := a.promising()
	near := map[int32]bool{}
	for _, node := range nodes {
		near[node] = true
	}
	a.victims = slices.DeleteFunc(a.victims, func(v victim) bool {
		return !slices.ContainsFunc(v.frees, func(k held) bool { return near[k.node] })
	})
	if len(a.victims) > victimsMax {
		a.victims = a.victims[:victimsMax]
	}
	all := a.now.room.withRoom(a.groups)
	for i := range a.victims {
		for _, k := range a.victims[i].frees {
			all = append(all, k.node)
		}
	}
	ending := a.endingParts()
	for _, k := range ending {
		all = append(all, k.node)
	}
	a.trial = a.round.trial(all)
	a.trial.addAll(ending, 1)
	a.trial.asks(a.job)
	if a.soon = a.enough(nil); a.soon {
		return nil, a.job.Claim != nil && len(ending) > 0
	}
	candidates := make([]victims.Candidate, len(a.victims))
	for i := range a.victims {
		tier := tierStop
		switch {
		case a.victims[i].keeps != nil:
			tier = tierShrink
		case a.victims[i].kind == EvictFair:
			tier = tierFair
		}
		candidates[i] = victims.Candidate{Cost: a.victims[i].lost, Tier: tier}
	}
	return victims.Choose(candidates, [][]int{a.byPrice(), a.byNode(nodes)}, a.enough)
}

// endingParts is what attempts that are being stopped will release soon.
func (a *attack) endingParts() []held {
	var parts []held
	for i := range a.s.Running {
		if run := &a.s.Running[i]; run.Ending {
			parts = append(parts, a.partsOfRun(i)...)
		}
	}
	return parts
}

// promising gives the nodes that are cheapest to clear, cheapest first.
func (a *attack) promising() []int32 {
	type price struct{ lost, useful float64 }
	prices := map[int32]*price{}
	var nodes []int32
	for i := range a.victims {
		v := &a.victims[i]
		if v.keeps != nil && v.kind != EvictResize { // it is there whole, too
			continue
		}
		last := int32(-1)
		for j := range v.frees {
			node := v.frees[j].node
			p := prices[node]
			if p == nil {
				p = &price{}
				prices[node] = p
				nodes = append(nodes, node)
			}
			if node != last {
				p.lost += v.lost
			}
			last = node
			p.useful += a.usefulOf(v.frees[j : j+1])
		}
	}
	slices.Sort(nodes)
	slices.SortStableFunc(nodes, func(x, y int32) int {
		return cmp.Compare(prices[x].lost*prices[y].useful, prices[y].lost*prices[x].useful)
	})
	return nodes[:min(len(nodes), max(nodesAtLeast, nodesPerTask*a.job.world()))]
}

// byPrice orders the victims by lost work for each useful GPU.
func (a *attack) byPrice() []int {
	order := make([]int, len(a.victims))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int {
		v, w := &a.victims[x], &a.victims[y]
		return cmp.Compare(v.lost*w.useful, w.lost*v.useful)
	})
	return order
}

// byNode orders the victims so that one node after the other becomes free.
func (a *attack) byNode(nodes []int32) []int {
	on := map[int32][]int{}
	for _, i := range a.byPrice() {
		for j, k := range a.victims[i].frees {
			if j == 0 || a.victims[i].frees[j-1].node != k.node {
				on[k.node] = append(on[k.node], i)
			}
		}
	}
	seen := make([]bool, len(a.victims))
	var order []int
	for _, node := range nodes {
		for _, i := range on[node] {
			if !seen[i] {
				seen[i] = true
				order = append(order, i)
			}
		}
	}
	return order
}

// enough says whether quotas admit the job and it places once the victims of a set have
// stopped. Victims that may no longer be stopped, since those before them in the set took
// their queue down to its guarantee, do not count.
func (a *attack) enough(set []int) bool {
	used := a.end(set)
	ok := a.turns.tree == nil || a.turns.admits(a.i, a.demand, false).OK
	if ok {
		for _, v := range used {
			a.trial.addAll(a.victims[v].frees, 1)
		}
		ok = a.trial.mayFit() && a.fits()
		for _, v := range used {
			a.trial.addAll(a.victims[v].frees, -1)
		}
	}
	a.undo(used)
	return ok
}

// end books the ends of the victims of a set in the queue tree, and gives those that count:
// of one that could shrink or be stopped only the greater.
func (a *attack) end(set []int) []int {
	used := make([]int, 0, len(set))
	for _, i := range set {
		v := &a.victims[i]
		if v.keeps != nil && slices.ContainsFunc(set, func(j int) bool { return j != i && a.victims[j].run == v.run }) {
			continue
		}
		if a.turns.tree != nil {
			if v.kind == EvictReclaim && !a.turns.tree.MayReclaim(a.leaf, v.leaf, a.demand) {
				continue
			}
			if v.kind != EvictReclaim && a.turns.tree.Protects(v.leaf, a.leaf) {
				continue
			}
			a.turns.tree.End(v.leaf, a.s.Running[v.run].User, a.releasedBy(v))
		}
		used = append(used, i)
	}
	return used
}

func (a *attack) undo(used []int) {
	if a.turns.tree == nil {
		return
	}
	for _, i := range used {
		v := &a.victims[i]
		a.turns.tree.Start(v.leaf, a.s.Running[v.run].User, a.releasedBy(v))
	}
}

// releasedBy is what a victim no longer holds afterwards.
func (a *attack) releasedBy(v *victim) fair.Demand {
	run := &a.s.Running[v.run]
	if v.keeps == nil {
		return run.Demand()
	}
	var slots []Slot
	for rank := range run.Slots {
		if !slices.Contains(v.keeps, rank) {
			slots = append(slots, run.Slots[rank])
		}
	}
	return slotsDemand(slots)
}

// enter puts the evictions and claims into the plan, keeps the planned room, and counts the
// victims.
func (a *attack) enter(chosen []int) int {
	a.spare(chosen)
	used := a.end(chosen)
	for _, v := range used {
		a.trial.addAll(a.victims[v].frees, 1)
	}
	need, ok := a.put()
	a.undo(used)
	if !ok {
		return 0
	}
	job := &a.jobs[a.i]
	claim := &Claim{Kind: ClaimPreempt, UntilMS: a.s.NowMS + a.policy.ClaimMS, Slots: a.slotsFor(need)}
	if job.elastic() {
		claim.Counts = countsOf(a.job)
	}
	for _, at := range used {
		a.evict(&a.victims[at], job)
	}
	a.plan.Claims = append(a.plan.Claims, NewClaim{JobID: job.ID, Claim: claim,
		Reason: fmt.Sprintf("%s stopped for it", pluralAre(max(1, len(used))))})
	c := a.keepClaim(job.ID, claim, lengthOf(job))
	if a.turns.tree != nil {
		a.turns.placed(a.i, a.demand)
		a.quotasMoved()
		c.charged, c.leaf, c.user, c.demand = true, a.leaf, job.User, a.demand
	}
	return max(1, len(used))
}

func pluralAre(n int) string {
	if n == 1 {
		return "1 job is"
	}
	return fmt.Sprintf("%d jobs are", n)
}

// evict enters the eviction of one victim, and the claim of one that goes on smaller.
func (a *attack) evict(v *victim, job *Job) {
	run := &a.s.Running[v.run]
	a.stopped[run.JobID] = true
	e := Eviction{JobID: run.JobID, Epoch: run.Epoch, Kind: v.kind, For: job.ID}
	switch {
	case v.keeps != nil:
		e.Kind = EvictResize
		e.Reason = fmt.Sprintf("goes on with %d of %d tasks to make room for %s", len(v.keeps), len(run.Slots), job.ID)
		claim := &Claim{Kind: ClaimResize, UntilMS: a.s.NowMS + a.policy.ClaimMS, Counts: v.counts}
		for _, rank := range v.keeps {
			claim.Slots = append(claim.Slots, run.Slots[rank])
		}
		a.plan.Claims = append(a.plan.Claims, NewClaim{JobID: run.JobID, Claim: claim, Reason: e.Reason})
		a.keepClaim(run.JobID, claim, forever)
	case v.kind == EvictReclaim:
		e.Reason = fmt.Sprintf("queue %s takes back what it had lent, for %s", job.Queue, job.ID)
	case v.kind == EvictFair:
		e.Reason = fmt.Sprintf("has had its turn; %s is next", job.ID)
	default:
		e.Reason = fmt.Sprintf("makes room for %s, of higher priority", job.ID)
	}
	a.plan.Evictions = append(a.plan.Evictions, e)
}

// slotsFor names what the ranks will hold.
func (r *round) slotsFor(need []held) []Slot {
	slots := make([]Slot, len(need))
	for rank := range need {
		k := &need[rank]
		spec := &r.now.room.spec[k.node]
		slots[rank] = Slot{NodeID: spec.ID, CPU: k.cpu, Memory: k.memory, Ports: k.ports}
		for _, g := range k.devices {
			d := &spec.Devices[g.device-r.now.room.nodes[k.node].first]
			slots[rank].Devices = append(slots[rank].Devices, Grant{DeviceID: d.ID, Share: g.share, Memory: g.memory, Model: d.Model})
		}
	}
	return slots
}
