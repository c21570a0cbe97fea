package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// result is how one policy fared; times in seconds.
type result struct {
	Policy      string  `json:"policy"`
	SlowMean    float64 `json:"slowdown_mean"` // bounded slowdown, bound 10 s
	SlowP99     float64 `json:"slowdown_p99"`
	WaitMean    float64 `json:"wait_mean_s"` // end - submit - run time, restarts and lost work included
	WaitP50     float64 `json:"wait_p50_s"`
	WaitP99     float64 `json:"wait_p99_s"`
	JCTMean     float64 `json:"jct_mean_s"`
	JCTP50      float64 `json:"jct_p50_s"`
	JCTP99      float64 `json:"jct_p99_s"`
	Utilisation float64 `json:"utilisation"` // devices held while jobs came
	Preemptions int     `json:"preemptions"`
	LostH       float64 `json:"lost_gpu_h"` // work done again and restarts
	Worst       string  `json:"worst_cluster"`
	WorstSlow   float64 `json:"worst_cluster_slowdown"` // highest mean of a virtual cluster
	WorstWait   float64 `json:"worst_cluster_wait_s"`
	Starved     int     `json:"starved_clusters"`

	lost float64 // device seconds
}

// A virtual cluster is starved when its mean slowdown is above both.
const (
	starvedRatio = 10.0 // times that of all jobs
	starvedFloor = 10.0
)

func (c *cluster) measure(vcs map[string]int) result {
	r := c.result
	var slow, wait, jct []float64
	ofVC, waitOfVC := make([][]float64, len(vcs)), make([][]float64, len(vcs))
	for _, j := range c.jobs {
		t := j.finish - j.arrive
		s := max(1, t/max(j.run, boundS))
		slow, wait, jct = append(slow, s), append(wait, t-j.run), append(jct, t)
		ofVC[j.vc], waitOfVC[j.vc] = append(ofVC[j.vc], s), append(waitOfVC[j.vc], t-j.run)
	}
	r.SlowMean, _, r.SlowP99 = spread(slow)
	r.WaitMean, r.WaitP50, r.WaitP99 = spread(wait)
	r.JCTMean, r.JCTP50, r.JCTP99 = spread(jct)
	span := c.jobs[len(c.jobs)-1].arrive - c.jobs[0].arrive
	r.Utilisation = c.busyWhileComing / (float64(c.total) * span)
	r.LostH = r.lost / 3600
	names := make([]string, len(vcs))
	for name, vc := range vcs { // unordered: by index below
		names[vc] = name
	}
	for vc, name := range names {
		m := mean(ofVC[vc])
		if m > r.WorstSlow {
			r.Worst, r.WorstSlow, r.WorstWait = name, m, mean(waitOfVC[vc])
		}
		if m > starvedFloor && m > starvedRatio*r.SlowMean {
			r.Starved++
		}
	}
	return r
}

// spread gives the mean, the median and the 99th percentile by the nearest rank.
func spread(v []float64) (mid, p50, p99 float64) {
	slices.SortFunc(v, cmp.Compare)
	at := func(q float64) float64 { return v[int(math.Ceil(q*float64(len(v))))-1] }
	return mean(v), at(0.5), at(0.99)
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

func header() {
	fmt.Printf("%-14s %9s %9s %9s %6s %9s %9s %6s %9s %6s %8s %8s  %s\n", "policy", "slowdown", "p99", "wait s", "p50", "p99", "JCT s", "p50", "p99",
		"used %", "stops", "lost h", "worst virtual cluster: slowdown, wait s; starved")
}

func (r *result) show() {
	number := func(x float64) string {
		if x >= 1000 {
			return fmt.Sprintf("%.0f", x)
		}
		return fmt.Sprintf("%.3f", x)
	}
	fmt.Printf("%-14s %9s %9s %9.0f %6.0f %9.0f %9.0f %6.0f %9.0f %6.1f %8d %8.0f  %s: %s, %.0f; %d\n", r.Policy, number(r.SlowMean), number(r.SlowP99),
		r.WaitMean, r.WaitP50, r.WaitP99, r.JCTMean, r.JCTP50, r.JCTP99, 100*r.Utilisation, r.Preemptions, r.LostH, r.Worst, number(r.WorstSlow), r.WorstWait, r.Starved)
}
