// Package rank says which of the jobs of equal priority should run first when nobody knows
// how long they will take: those that are expected to end soonest for what they hold, judged
// by the run times of finished jobs of the same group and width, and by how long a job has
// run already. A new job is probably short and goes first; one that has outlived most of its
// kind gives way. It is Gittins' index for mean slowdown, see Index.
//
// The package is pure: run times and ages are arguments, in milliseconds. It does not know
// queues, jobs or time; server/controller teaches it and fills scheduler.Job.Index with it.
package rank

import (
	"math"
	"slices"
)

// Bounds and weights of what is remembered.
const (
	groupsMax  = 4096 // kinds; those that were taught longest ago are forgotten
	windowMax  = 500  // newest run times of a group
	sharedMax  = 2000 // newest run times of everybody
	sharedMass = 20.0 // what those count together, in run times of the group itself
	tailMass   = 0.2  // what each of tailMS counts: no job is ever sure to end
	relearn    = 10   // a table is made anew once a tenth more run times are known
	boundMS    = 10_000
)

// tailMS are run times that are always thought possible, up to two months.
var tailMS = [...]float64{1e6, 1e7, 1e8, 1e9, 5e9}

// The ages at which an index may change: a fixed grid, so that it does not move with every
// pass. gridFirst ms, then the square root of 2 times as much each.
const (
	gridFirst = 8000.0
	gridSteps = 39
)

// Ranker remembers run times. The zero value is empty and ready. Not safe for concurrent use.
type Ranker struct {
	groups map[Kind]*group
	shared []float64 // ring of run times
	next   int
	taught uint64
	nobody group // has no run times of its own
}

// Kind names jobs that are alike: of one user or queue, and of one width.
type Kind struct {
	Group string
	Width float64 // devices; for jobs without devices a small number
}

type group struct {
	runs  []float64 // ring
	next  int
	fresh int // run times since the table was made
	last  uint64
	table []float64 // expected cost of a unit of worth at each grid age; nil: to be made
}

// Observe takes in that a job of the kind has ended after runMS of running, over all of its
// attempts. Times below 1 are taken as 1.
func (r *Ranker) Observe(k Kind, runMS int64) {
	run := float64(max(1, runMS))
	r.taught++
	if len(r.shared) < sharedMax {
		r.shared = append(r.shared, run)
	} else {
		r.shared[r.next] = run
		r.next = (r.next + 1) % sharedMax
	}
	if r.nobody.fresh++; r.nobody.fresh*relearn >= len(r.shared) {
		r.nobody.table = nil
	}
	g := r.group(k)
	g.last = r.taught
	if len(g.runs) < windowMax {
		g.runs = append(g.runs, run)
	} else {
		g.runs[g.next] = run
		g.next = (g.next + 1) % windowMax
	}
	g.fresh++
	if g.fresh*relearn >= len(g.runs) {
		g.table = nil
	}
}

func (r *Ranker) group(k Kind) *group {
	if g := r.groups[k]; g != nil {
		return g
	}
	if r.groups == nil {
		r.groups = map[Kind]*group{}
	}
	if len(r.groups) >= groupsMax {
		r.forget()
	}
	g := &group{}
	r.groups[k] = g
	return g
}

// forget drops the quarter of the groups that was taught longest ago.
func (r *Ranker) forget() {
	taught := make([]uint64, 0, len(r.groups))
	for _, g := range r.groups { // unordered: sorted below
		taught = append(taught, g.last)
	}
	slices.Sort(taught) // no two are equal: one group is taught at a time
	old := taught[len(taught)/4]
	for k, g := range r.groups { // unordered: each is judged by itself
		if g.last < old {
			delete(r.groups, k)
		}
	}
}

// Index gives the rank of a job of the kind that has held its devices for ageMS so far:
// lower first, always above 0. It is sqrt(width) / G, where G is the most worth per second
// that any further stretch of running gives,
//
//	G = max over d of E[1/max(T, 10 s); T <= age + d | T > age] / E[min(T - age, d) | T > age],
//
// which is Gittins' index (Bandit processes and dynamic allocation indices, 1979) when the
// end of a job is worth what it adds to mean bounded slowdown. The square root stands between
// counting devices fully and not at all: on the Philly trace it was best (ORDER in DESIGN.md).
func (r *Ranker) Index(k Kind, ageMS int64) float64 {
	g := r.groups[k]
	if g == nil {
		g = &r.nobody
	}
	if g.table == nil {
		g.table, g.fresh = r.compute(g.runs), 0
	}
	return g.table[level(ageMS)] * math.Sqrt(max(k.Width, math.SmallestNonzeroFloat32))
}

// NextAge gives the age at which the index of a job of this age changes next; 0: never.
func NextAge(ageMS int64) int64 {
	n := level(ageMS)
	if n == gridSteps {
		return 0
	}
	return gridAge(n + 1)
}

// gridAge is the age at which a level begins, in whole milliseconds.
func gridAge(level int) int64 {
	if level == 0 {
		return 0
	}
	return int64(math.Ceil(gridFirst * math.Exp2(float64(level-1)/2)))
}

// level is the last one that begins at the age or before.
func level(ageMS int64) int {
	if ageMS < gridFirst {
		return 0
	}
	n := min(gridSteps, 1+int(2*math.Log2(float64(ageMS)/gridFirst)))
	for n < gridSteps && gridAge(n+1) <= ageMS { // rounding
		n++
	}
	for gridAge(n) > ageMS {
		n--
	}
	return n
}

type sample struct{ run, mass float64 }

// compute makes the table of a group.
func (r *Ranker) compute(runs []float64) []float64 {
	samples := make([]sample, 0, len(runs)+len(r.shared)+len(tailMS))
	for _, run := range runs {
		samples = append(samples, sample{run, 1})
	}
	for _, run := range r.shared {
		samples = append(samples, sample{run, sharedMass / float64(len(r.shared))})
	}
	for _, run := range tailMS {
		samples = append(samples, sample{run, tailMass})
	}
	slices.SortFunc(samples, func(a, b sample) int {
		switch {
		case a.run < b.run:
			return -1
		case a.run > b.run:
			return 1
		}
		return 0
	})
	left := 0.0 // mass of the samples from here on
	mass := make([]float64, len(samples)+1)
	for i := len(samples) - 1; i >= 0; i-- {
		left += samples[i].mass
		mass[i] = left
	}
	table := make([]float64, gridSteps+1)
	from := 0
	for n := range table {
		age := float64(gridAge(n))
		for from < len(samples) && samples[from].run <= age {
			from++
		}
		table[n] = cost(samples[from:], mass[from:], age)
	}
	return table
}

// cost is 1 / G for samples above an age; mass[i] is that of samples[i:].
func cost(samples []sample, mass []float64, age float64) float64 {
	best, gain, spent, before := 0.0, 0.0, 0.0, age
	for i, s := range samples {
		spent += mass[i] * (s.run - before)
		before = s.run
		gain += s.mass / max(s.run, boundMS)
		if gain > best*spent {
			best = gain / spent
		}
	}
	if best == 0 { // older than anything that is thought possible
		return max(age, boundMS) * tailMS[len(tailMS)-1]
	}
	return 1 / best
}
