package scheduler

import (
	"fmt"
	"slices"

	"llmos/server/scheduler/fair"
)

// shrunk is the victim that goes on with fewer tasks instead of being stopped: the highest
// ranks of its elastic roles stop, but for so many of those that could.
func (a *attack) shrunk(run *Running, v *victim, spared int) (victim, bool) {
	counts := run.counts()
	if counts == nil || len(run.Elastic) == 0 {
		return victim{}, false
	}
	small := *v
	small.counts, small.frees, small.keeps = append([]int32(nil), counts...), nil, []int{}
	for _, e := range run.Elastic {
		small.counts[e.Role] = min(e.Min, counts[e.Role])
	}
	rank := 0
	for role, count := range counts {
		least := small.counts[role]
		for n := range count {
			switch {
			case n < least:
				small.keeps = append(small.keeps, rank)
			case spared > 0:
				spared--
				small.counts[role]++
				small.keeps = append(small.keeps, rank)
			default:
				if part, ok := a.now.room.partOf(&run.Slots[rank]); ok {
					small.frees = append(small.frees, part)
				}
			}
			rank++
		}
	}
	small.useful = a.usefulOf(small.frees)
	return small, small.useful > 0
}

// spare lets the victims of a set that shrink keep as many tasks as they can.
func (a *attack) spare(set []int) {
	for _, i := range set {
		v := a.victims[i]
		if v.keeps == nil {
			continue
		}
		low, high := 0, len(v.frees)-1
		for low < high {
			middle := (low + high + 1) / 2
			small, ok := a.shrunk(&a.s.Running[v.run], &v, middle)
			if a.victims[i] = small; ok && a.enough(set) {
				low = middle
			} else {
				high = middle - 1
			}
		}
		a.victims[i], _ = a.shrunk(&a.s.Running[v.run], &v, low)
	}
}

// counts gives the tasks of each role of an attempt, nil when they are not known.
func (r *Running) counts() []int32 {
	total := 0
	for _, n := range r.Counts {
		total += int(n)
	}
	if len(r.Counts) > 0 && total == len(r.Slots) {
		return r.Counts
	}
	if len(r.Elastic) == 1 && r.Elastic[0].Role == 0 && int(r.Elastic[0].Count) == len(r.Slots) {
		return []int32{r.Elastic[0].Count}
	}
	return nil
}

// resizesMax bounds the attempts that one plan gives another size because of a wish.
const resizesMax = 4

// resize gives running elastic jobs the sizes that are wished for: fewer tasks at once, more
// where there is room that nobody who waits, and has no wish of its own, could want.
func (r *round) resize() {
	if len(r.s.Sizes) == 0 {
		return
	}
	r.viewAll()
	idle := !r.wantsRoom()
	done := 0
	for at := range r.s.Running {
		run := &r.s.Running[at]
		want, ok := r.wish(run.JobID)
		counts := run.counts()
		if !ok || done == resizesMax || run.Ending || r.stopped[run.JobID] || len(want) != len(counts) ||
			r.s.NowMS-run.StartedMS < r.minRun(run) {
			continue
		}
		var claim *Claim
		switch less, more := compareCounts(want, counts, run.Elastic); {
		case less && !more:
			claim = shrunkTo(run, want, counts)
		case more && !less && idle && run.Job != nil:
			claim, ok = r.grownTo(run, want)
		default:
			ok = false
		}
		if ok {
			r.enterResize(run, claim, total(counts), total(want))
			done++
		}
	}
}

// wantsRoom says whether a job waits for room that it could have, and no wish is there for it.
func (r *round) wantsRoom() bool {
	for n, job := range r.starved {
		if _, wished := r.wish(job.ID); !wished && (n >= starvedMax || r.couldRun(job)) {
			return true
		}
	}
	return false
}

// starvedMax bounds the waiting jobs that are looked at closely for that.
const starvedMax = 64

// enterResize stops an attempt that goes on with another number of tasks.
func (r *round) enterResize(run *Running, claim *Claim, from, to int32) {
	claim.Kind, claim.UntilMS = ClaimResize, r.s.NowMS+r.policy.ClaimMS
	reason := fmt.Sprintf("goes on with %d tasks instead of %d", to, from)
	r.stopped[run.JobID] = true
	r.plan.Evictions = append(r.plan.Evictions, Eviction{JobID: run.JobID, Epoch: run.Epoch, Kind: EvictResize, Reason: reason})
	r.plan.Claims = append(r.plan.Claims, NewClaim{JobID: run.JobID, Claim: claim, Reason: reason})
	r.keepClaim(run.JobID, claim, forever)
}

// wish gives the counts that a job should have.
func (r *round) wish(jobID string) ([]int32, bool) {
	if r.wishes == nil {
		r.wishes = make(map[string][]int32, len(r.s.Sizes))
		for i := range r.s.Sizes {
			r.wishes[r.s.Sizes[i].JobID] = r.s.Sizes[i].Counts
		}
	}
	counts, ok := r.wishes[jobID]
	return counts, ok
}

// wanted is the size, in steps above the least, with which a pending elastic job should start
// at most.
func (r *round) wanted(j *Job) int {
	steps := j.steps()
	if len(r.s.Sizes) == 0 {
		return steps
	}
	counts, ok := r.wish(j.ID)
	if !ok || len(counts) != len(j.Roles) {
		return steps
	}
	most := 0
	for i := range j.Roles {
		if role := &j.Roles[i]; role.elastic() {
			span := int(role.Count - role.Min)
			most = max(most, (min(span, max(0, int(counts[i]-role.Min)))*steps+span-1)/span)
		}
	}
	return most
}

func total(counts []int32) int32 {
	sum := int32(0)
	for _, n := range counts {
		sum += n
	}
	return sum
}

// compareCounts says whether a wish asks for fewer, or for more, tasks of some role. What is
// not elastic, or out of bounds, makes it ask for neither.
func compareCounts(want, counts []int32, elastic []Elastic) (less, more bool) {
	for role := range counts {
		if want[role] == counts[role] {
			continue
		}
		at := slices.IndexFunc(elastic, func(e Elastic) bool { return e.Role == role })
		if at < 0 || want[role] < elastic[at].Min || want[role] > elastic[at].Max {
			return false, false
		}
		less = less || want[role] < counts[role]
		more = more || want[role] > counts[role]
	}
	return less, more
}

// shrunkTo keeps the lowest ranks of each role.
func shrunkTo(run *Running, want, counts []int32) *Claim {
	claim := &Claim{Counts: slices.Clone(want)}
	rank := 0
	for role, n := range counts {
		for k := range n {
			if k < want[role] {
				claim.Slots = append(claim.Slots, run.Slots[rank])
			}
			rank++
		}
	}
	return claim
}

// grownTo adds tasks on what is free now to the slots that the attempt has.
func (r *round) grownTo(run *Running, want []int32) (*Claim, bool) {
	job := run.Job.withCounts(want)
	if !r.mayGrow(run, job.Demand(nil)) {
		return nil, false
	}
	own := &claimed{Claim: &Claim{Slots: run.Slots}}
	for i := range run.Slots {
		if part, ok := r.now.room.partOf(&run.Slots[i]); ok {
			own.parts, own.slots = append(own.parts, part), append(own.slots, i)
		}
	}
	r.lend(own)
	mark := len(r.now.room.trail)
	entries, ok := r.putOn(&job, own, true)
	var need []held
	if ok {
		parts := r.now.room.partsSince(mark)
		for _, at := range entries {
			need = append(need, parts[at-mark])
		}
		r.now.room.rollback(mark)
	}
	r.take(own)
	if !ok {
		return nil, false
	}
	claim := &Claim{Counts: slices.Clone(want), Slots: r.slotsFor(need)}
	return claim, !r.byModel || r.mayGrow(run, slotsDemand(claim.Slots))
}

// mayGrow says whether quotas admit that the attempt holds this instead of what it holds.
func (r *round) mayGrow(run *Running, d fair.Demand) bool {
	tree := r.turns.tree
	if tree == nil {
		return true
	}
	leaf := tree.Leaf(run.Queue)
	tree.End(leaf, run.User, run.Demand())
	verdict := tree.Admits(leaf, run.User, d, run.NoPreempt)
	tree.Start(leaf, run.User, run.Demand())
	return verdict.OK
}
