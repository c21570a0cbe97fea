package main

import (
	"math"
	"slices"
)

// unfairAbove is the finish-time fairness above which a job counts as treated unfairly.
const unfairAbove = 1.05

// outcome is what became of one job under a policy.
type outcome struct {
	name     string
	app      *application
	submit   int // s
	jct      int // s
	restarts int
	gpuS     int // GPU-s held, restarts included; 0 where it is not known
}

// summary are the figures of one policy on one workload.
type summary struct {
	mean, p50, p99 float64 // s
	makespan       float64 // s
	restarts       float64 // per job
	gpuHours       float64 // per job
	unfair         float64 // fraction of jobs with rho above unfairAbove
	worst          float64 // largest rho
	rho99          float64 // its 99th percentile
	outcomes       []outcome
}

func summarise(outcomes []outcome) summary {
	s := summary{outcomes: outcomes}
	jcts := make([]float64, len(outcomes))
	n := float64(len(outcomes))
	for i, o := range outcomes {
		jcts[i] = float64(o.jct)
		s.mean += jcts[i] / n
		s.makespan = max(s.makespan, float64(o.submit+o.jct))
		s.restarts += float64(o.restarts) / n
		s.gpuHours += float64(o.gpuS) / 3600 / n
	}
	s.p50, s.p99 = percentile(jcts, 0.50), percentile(jcts, 0.99)
	rhos := fairness(outcomes)
	for _, r := range rhos {
		if r > unfairAbove {
			s.unfair += 1 / n
		}
		s.worst = max(s.worst, r)
	}
	s.rho99 = percentile(rhos, 0.99)
	return s
}

// percentile interpolates linearly between the two nearest ranks.
func percentile(values []float64, q float64) float64 {
	v := slices.Clone(values)
	slices.Sort(v)
	at := q * float64(len(v)-1)
	lo := int(at)
	hi := min(lo+1, len(v)-1)
	return v[lo] + (at-float64(lo))*(v[hi]-v[lo])
}

// fairness gives each job's finish-time fairness (Themis, NSDI'20): its completion time over
// the time it would have needed alone on an equal share of the cluster, 64/N GPUs, where N is
// the mean number of unfinished jobs while it was there, under the same policy. The time
// alone is the job's true best at each size not above the share (one GPU at 64/N of its
// time where the share is below one), with the wait for the first tick and one restart.
func fairness(outcomes []outcome) []float64 {
	rhos := make([]float64, len(outcomes))
	for i, o := range outcomes {
		from, to := o.submit, o.submit+o.jct
		together := 0
		for _, other := range outcomes {
			together += max(0, min(to, other.submit+other.jct)-max(from, other.submit))
		}
		n := max(1, float64(together)/float64(max(1, o.jct)))
		wait := (o.submit/tickS+1)*tickS - o.submit
		if o.submit%tickS == 0 {
			wait = 0
		}
		alone := o.app.alone(clusterGPUs/n) + float64(wait+rescaleS)
		rhos[i] = float64(o.jct) / alone
	}
	return rhos
}

// alone gives the seconds a job needs by itself on a share of GPUs, packed, at the best true
// batch of every epoch.
func (a *application) alone(share float64) float64 {
	if a.aloneS == nil {
		a.aloneS = make([]float64, clusterGPUs+1)
		best := math.Inf(1)
		for k := 1; k <= clusterGPUs; k++ {
			best = min(best, a.isolated(k))
			a.aloneS[k] = best
		}
	}
	k := int(share)
	if k < 1 {
		return a.aloneS[1] / share
	}
	return a.aloneS[k]
}

// packed gives the placement of so many GPUs on as few nodes as hold them.
func packed(gpus int) []int {
	var place []int
	for ; gpus > 0; gpus -= nodeGPUs {
		place = append(place, min(nodeGPUs, gpus))
	}
	return place
}

// localTried is how many local batch sizes the search for the true best looks at.
const localTried = 24

func (a *application) isolated(gpus int) float64 {
	if a.name == "ncf" && gpus > 1 {
		return math.Inf(1) // runs on one GPU only
	}
	place, total := packed(gpus), 0.0
	for e := range a.epochs {
		best := 0.0
		for acc := 0; gpus*a.minLocal*(acc+1) <= a.maxBatch; acc++ {
			most := min(a.maxLocal, a.maxBatch/(gpus*(acc+1)))
			for i := range localTried {
				s := split{local: a.minLocal + (most-a.minLocal)*i/(localTried-1), accumulate: acc}
				if b := s.batch(gpus); b < a.minBatch || gpus == 1 && b > a.minBatch && acc == 0 {
					continue
				}
				best = max(best, a.rate(place, s, e))
			}
		}
		total += (a.prog[e+1] - a.prog[e]) / best
	}
	return total
}
