package elastic

import (
	"cmp"
	"math"
	"slices"
	"strings"
)

// Policy are the constants of a decision. One set serves every load.
type Policy struct {
	Shortness float64 // exponent of the time left in a job's weight; 0: all progress is worth the same
	FreshS    float64 // GPU-s that a job of which nothing is known is taken to need
	FirstGPUs int     // most GPUs of a job that never ran
	Growth    int     // a job may grow to this many times the most GPUs it ever ran on
	HorizonS  float64 // over which a change must pay for its restart
}

// Standard is the policy llmos uses.
func Standard() Policy {
	return Policy{Shortness: 1, FreshS: 120, FirstGPUs: 4, Growth: 2, HorizonS: 600}
}

// Decide gives every job what it is to have, in the order of the jobs. The same jobs and
// nodes in another order give the same allocations.
func Decide(jobs []Job, nodes []Node, policy Policy) []Allocation {
	order := make([]int, len(jobs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(jobs[a].ID, jobs[b].ID) })
	total, per := 0, 0
	for _, n := range nodes {
		total += n.GPUs
		per = max(per, n.GPUs)
	}
	offers := make([]offer, len(jobs))
	for rank, i := range order {
		offers[rank] = policy.offer(&jobs[i], total)
	}
	share(offers, total)
	return pack(jobs, order, offers, nodes, per)
}

// choice is one size of an offer and what it is worth.
type choice struct {
	size  Size
	value float64
}

// offer is what one job bids: its sizes in ascending order, none first.
type offer struct {
	choices []choice
	chosen  int
}

// worth gives a job's value of speed: what one step per second is worth.
func (p Policy) offer(j *Job, total int) offer {
	o := offer{choices: []choice{{}}}
	weight := j.Weight
	if weight == 0 {
		weight = 1
	}
	limit := p.FirstGPUs
	if j.Widest > 0 {
		limit = max(p.FirstGPUs, p.Growth*j.Widest)
	}
	held := j.held()
	limit = max(min(limit, total), j.Limits.GPUsMin)
	var per float64 // speed of one GPU
	for _, s := range j.Curve.Sizes {
		if s.GPUs > limit {
			break
		}
		if j.Widest == 0 {
			s.Speed = float64(s.GPUs)
		}
		if per == 0 {
			per = s.Speed / float64(s.GPUs)
		}
		left := p.FreshS
		if j.Widest > 0 {
			left = j.left(p, per)
		}
		relative := s.Speed / per
		value := weight * relative / math.Pow(left, p.Shortness)
		if held > 0 && s.GPUs != held {
			h := min(p.HorizonS, left/relative)
			value *= max(0, h-j.RestartS) / h
		}
		o.choices = append(o.choices, choice{s, value})
	}
	if held > 0 {
		// Stopping costs a restart later.
		if s := j.Curve.at(held); s != nil {
			relative := s.Speed / per
			left := j.left(p, per)
			o.choices[0].value = -weight * relative / math.Pow(left, p.Shortness) * j.RestartS / p.HorizonS
		}
	}
	return o
}

// left gives the time a job still needs on one GPU, s. A job that does not tell is taken to
// be half done: the longer it ran, the longer it will.
func (j *Job) left(p Policy, per float64) float64 {
	if j.Left >= 0 {
		return max(j.Left/per, 1)
	}
	return max(j.Done/per, p.FreshS)
}

// share chooses sizes within the total, by the best gain per GPU.
func share(offers []offer, total int) {
	left := total
	for {
		best, bestTo, bestGain := -1, 0, 0.0
		for i := range offers {
			o := &offers[i]
			from := o.choices[o.chosen]
			for to := o.chosen + 1; to < len(o.choices); to++ {
				more := o.choices[to].size.GPUs - from.size.GPUs
				if more > left {
					break
				}
				if gain := (o.choices[to].value - from.value) / float64(more); gain > bestGain {
					best, bestTo, bestGain = i, to, gain
				}
			}
		}
		if best < 0 {
			return
		}
		o := &offers[best]
		left -= o.choices[bestTo].size.GPUs - o.choices[o.chosen].size.GPUs
		o.chosen = bestTo
	}
}

// Remaining estimates the steps a job has still to do from its reports. total is what it
// declared of steps at the initial batch, 0 if nothing; else epochs done of epochs declared
// with the progress at which the current epoch began are used. Below 0: unknown.
func Remaining(done, total, epochBegan float64, epoch, epochs int) float64 {
	switch {
	case total > 0:
		return max(0, total-done)
	case epochs > 0 && epoch > 0:
		each := epochBegan / float64(epoch)
		return max(each*float64(epochs)-done, 0)
	case epochs > 0:
		// In the first epoch: as much of it is still to come as is done.
		return done * float64(2*epochs-1)
	}
	return -1
}

func byValue(a, b float64) int { return cmp.Compare(b, a) }
