package elastic

import (
	"slices"
	"strings"
)

// Policy are the constants of a decision. One set serves every load.
type Policy struct {
	Price     float64 // what a GPU-second is worth, in job-seconds, is this x rank / GPUs; see bid
	FreshS    float64 // GPU-s that a job is taken to need of which nothing is known
	FirstGPUs int     // most GPUs of a job that never ran
	Growth    int     // a job may grow to this many times the most GPUs it ever ran on
	SettleS   float64 // a change must pay for its restart within as long as the last one lasted, but at least this
	HorizonS  float64 // and at most this
	StarvedS  float64 // a job that waited this long in a row gets its least size first
	TurnS     float64 // and keeps it for this long
}

// Standard is the policy llmos uses. DESIGN.md has what other values give.
func Standard() Policy {
	return Policy{Price: 4, FreshS: 120, FirstGPUs: 4, Growth: 4, SettleS: 120, HorizonS: 1200, StarvedS: 7200, TurnS: 1800}
}

// PerNode gives how many GPUs count as a whole node: the most that any node has.
func PerNode(nodes []Node) int {
	per := 0
	for _, n := range nodes {
		per = max(per, n.GPUs)
	}
	return per
}

// Decide gives every job what it is to have, in the order of the jobs. Curves must be of
// nodes with PerNode(nodes) GPUs. The same jobs and nodes in another order give the same
// allocations; jobs and nodes are known by their IDs, which must differ.
func Decide(jobs []Job, nodes []Node, policy Policy) []Allocation {
	order := make([]int, len(jobs))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(jobs[a].ID, jobs[b].ID) })
	offers := make([]offer, len(jobs))
	for rank, i := range order {
		offers[rank].job = &jobs[i]
	}
	total := 0
	for _, n := range nodes {
		total += n.GPUs
	}
	policy.bids(offers, total)
	policy.guard(offers, total)
	share(offers, total)
	out := make([]Allocation, len(jobs))
	for rank, a := range pack(offers, nodes) {
		out[order[rank]] = a
	}
	return out
}

// guard lifts what the longest waiting jobs bid for their least size above every other bid,
// for a quarter of the GPUs together, one job in any case, so that none waits for ever.
func (p Policy) guard(offers []offer, total int) {
	var starved []int
	for i := range offers {
		j := offers[i].job
		waits := j.held() == 0 && j.SinceS >= p.StarvedS
		turn := j.Rescued && j.held() > 0 && j.SinceS < p.TurnS
		if (waits || turn) && len(offers[i].choices) > 1 {
			starved = append(starved, i)
		}
	}
	slices.SortStableFunc(starved, func(a, b int) int {
		x, y := offers[a].job, offers[b].job
		if held := min(y.held(), 1) - min(x.held(), 1); held != 0 {
			return held // turns go on
		}
		return byDescending(x.SinceS, y.SinceS)
	})
	left := total / guardShare
	for at, i := range starved {
		o := &offers[i]
		least := o.choices[1].size.GPUs
		if at > 0 && least > left || least > total {
			continue
		}
		left -= least
		for k := 1; k < len(o.choices); k++ {
			o.choices[k].value += guardValue
		}
		o.guarded = true
	}
}

const (
	guardShare = 4   // a quarter of the GPUs
	guardValue = 1e6 // above any sum of bids; a bid is the share of a job done in a second, weighed
)

// Remaining estimates the steps a job has still to do from its reports. total is what it
// declared of steps at the initial batch, 0 if nothing; else epochs done of epochs declared
// with the progress at which the current epoch began are used. Below 0: unknown.
func Remaining(done, total, epochBegan float64, epoch, epochs int) float64 {
	switch {
	case total > 0:
		return max(0, total-done)
	case epochs > 0 && epoch > 0:
		return max(0, epochBegan/float64(epoch)*float64(epochs)-done)
	case epochs > 0:
		// In the first epoch: as much of it is still to come as is done.
		return done * float64(2*epochs-1)
	}
	return -1
}
