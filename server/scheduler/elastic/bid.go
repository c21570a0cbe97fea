package elastic

import (
	"cmp"
	"math"
	"slices"
)

// choice is one size of an offer and what it is worth.
type choice struct {
	size  Size
	value float64
}

// offer is what one job bids: its sizes in ascending order, none first.
type offer struct {
	job     *Job
	one     float64 // speed of one GPU, steps/s
	left    float64 // s it needs on one GPU
	price   float64 // of a GPU-second, job-seconds
	choices []choice
	chosen  int
	guarded bool
}

func byDescending(a, b float64) int { return cmp.Compare(b, a) }

// bids works out what each size is worth to each job.
//
// The value of speed follows from what a schedule does that minimises the mean completion
// time. While i jobs are left, all served ones gain the same from one GPU more: the price of
// a GPU-second, which grows with i, as everything behind waits for it. A job whose work takes
// w steps and that runs at its best size k for the price y costs (1 + y*k) * w / speed(k) in
// time of its own and of others, so that a step is worth
//
//	v = min over k of (1 + y*k) / speed(k)
//
// and the cluster does best to maximise the sum of v*speed. y is Price*i/GPUs with i the rank
// of the job counted from the longest: when it ends, the i-1 longer ones are still there. For
// equal power-law speeds this is the known optimum (heSRPT: Berg, Vesilo, Harchol-Balter,
// 2020) up to its factor; for jobs that scale differently it weighs each by its own curve.
func (p Policy) bids(offers []offer, total int) {
	by := make([]int, len(offers))
	for i := range offers {
		by[i] = i
		offers[i].reckon(p)
	}
	slices.SortFunc(by, func(a, b int) int {
		x, y := &offers[a], &offers[b]
		return cmp.Or(byDescending(x.left, y.left), cmp.Compare(min(1, x.job.held()), min(1, y.job.held())), b-a)
	})
	for at, i := range by {
		offers[i].price = p.Price * float64(at+1) / float64(max(1, total))
		offers[i].bid(p, total)
	}
}

// reckon estimates the job's speed on one GPU and the time it needs there.
func (o *offer) reckon(p Policy) {
	j := o.job
	if len(j.Curve.Sizes) == 0 {
		return
	}
	s := &j.Curve.Sizes[0]
	o.one = o.speed(s) / float64(s.GPUs)
	switch {
	case j.Curve.Fresh:
		o.left = p.FreshS
	case j.Left >= 0:
		o.left = max(j.Left/o.one, 1)
	default: // the longer it ran, the longer it will
		o.left = max(classed(j.Done/o.one), p.FreshS)
	}
}

// ageClass is the factor between classes of jobs whose length is unknown.
const ageClass = 16

// classed rounds up to a power of ageClass. Guesses of the time left that grow with the time
// run are taken in these classes, lest jobs of one age overtake each other at every decision.
func classed(x float64) float64 {
	if x <= 0 {
		return 0
	}
	return math.Pow(ageClass, math.Ceil(math.Log(x)/math.Log(ageClass)))
}

// freshScaling is the power of GPUs by which a job is taken to speed up before it ran.
const freshScaling = 0.7

func (o *offer) speed(s *Size) float64 {
	if o.job.Curve.Fresh {
		return math.Pow(float64(s.GPUs), freshScaling)
	}
	return s.Speed
}

// limit is the most GPUs the job may have now: sizes far from those it ran with are guesses.
// Its smallest size it may always have.
func (o *offer) limit(p Policy, total int) int {
	most := max(p.FirstGPUs, p.Growth*o.job.Widest)
	if sizes := o.job.Curve.Sizes; len(sizes) > 0 {
		most = max(most, sizes[0].GPUs)
	}
	return min(most, total)
}

// bid fills in the choices.
func (o *offer) bid(p Policy, total int) {
	j, limit, held := o.job, o.limit(p, total), o.job.held()
	o.choices = append(o.choices[:0], choice{})
	worth := math.Inf(1)
	for i := range j.Curve.Sizes {
		s := &j.Curve.Sizes[i]
		if s.GPUs > limit {
			break
		}
		worth = min(worth, (1+o.price*float64(s.GPUs))/o.speed(s))
	}
	if j.Weight > 0 {
		worth *= j.Weight
	}
	for i := range j.Curve.Sizes {
		s := &j.Curve.Sizes[i]
		if s.GPUs > limit {
			break
		}
		value := worth * o.speed(s)
		if held > 0 && s.GPUs != held {
			value *= o.afterRestart(p, s)
		}
		o.choices = append(o.choices, choice{*s, value})
	}
	if held == 0 {
		return
	}
	if s := j.Curve.at(held); s != nil { // to stop costs a restart later
		o.choices[0].value = -worth * o.speed(s) * j.RestartS / o.horizon(p)
	}
}

// horizon is how long a change is taken to last, s: as long as what the job has has lasted.
func (o *offer) horizon(p Policy) float64 {
	return min(max(o.job.SinceS, p.SettleS), p.HorizonS)
}

// afterRestart is the part of the horizon, or of the time the job still needs if that is
// less, which a change of size leaves for work.
func (o *offer) afterRestart(p Policy, s *Size) float64 {
	h := max(1, min(o.horizon(p), o.left*o.one/o.speed(s)))
	return max(0, h-o.job.RestartS) / h
}
