package main

import (
	"fmt"
	"math"
	"slices"
)

// The clock of the simulation (POLLUX.md 3).
const (
	tickS    = 60      // s; time step and scheduling interval
	rescaleS = 30      // s without progress after every new placement
	ticksMax = 200_000 // a run that takes longer is broken: 139 days
)

// request is one line of a workload.
type request struct {
	name   string
	submit int // s
	app    *application
	gpus   int // tuned count
	batch  int // tuned total batch
}

// job is a request under way.
type job struct {
	request
	row       int
	nodes     []int // node of each rank, in order; nil: waits
	place     []int // run lengths of nodes
	split     split
	adapts    func(*job) // chooses the split anew; nil: the batch is fixed
	progress  float64    // steps at the initial batch size
	epoch     int
	rescale   int // s still without progress
	restarts  int // -1: never started
	attained  int // GPU-s, restarts included
	first     int // s; first placement
	completed int // s; 0: not yet
	ranBatch  int // total batch of the last step; 0: never ran
	seen      []seen
}

// seen is a measurement a job made of itself.
type seen struct {
	nodes, gpus int
	split       split
	step, sync  float64 // s
}

func (j *job) jct() int { return j.completed - j.submit }

// policy decides each round; it may keep state of its own over one run.
type policy interface {
	// decide gives the node of each rank for every job that is to run. The slices given
	// before may be kept; a job whose slice is equal to its former one goes on undisturbed.
	decide(now int, active []*job) [][]int
	// start is called for a job whose placement has just changed.
	start(j *job)
}

// simulate runs one workload under a policy and gives the jobs in row order.
func simulate(requests []request, p policy) ([]*job, error) {
	jobs := make([]*job, len(requests))
	for i, r := range requests {
		jobs[i] = &job{request: r, row: i, restarts: -1}
	}
	now, left := 0, len(jobs)
	active := make([]*job, 0, len(jobs))
	for tick := 0; left > 0; tick++ {
		if tick == ticksMax {
			return nil, fmt.Errorf("%d jobs are not complete after %d s", left, now)
		}
		for _, j := range jobs {
			if j.completed == 0 && j.place != nil {
				j.advance(now, tickS)
			}
		}
		now += tickS
		active, left = active[:0], 0
		for _, j := range jobs {
			if j.completed == 0 {
				left++
				if j.submit <= now {
					active = append(active, j)
				}
			}
		}
		if len(active) == 0 {
			continue
		}
		if err := apply(now, active, p.decide(now, active), p); err != nil {
			return nil, err
		}
	}
	return jobs, nil
}

// apply puts a decision into effect after it was checked.
func apply(now int, active []*job, decision [][]int, p policy) error {
	var used [clusterNodes]int
	for i, nodes := range decision {
		for _, n := range nodes {
			if n < 0 || n >= clusterNodes {
				return fmt.Errorf("at %d s: job %s is placed on node %d", now, active[i].name, n)
			}
			if used[n]++; used[n] > nodeGPUs {
				return fmt.Errorf("at %d s: node %d holds more than %d GPUs", now, n, nodeGPUs)
			}
		}
	}
	for i, j := range active {
		if slices.Equal(j.nodes, decision[i]) {
			continue
		}
		j.nodes = decision[i]
		if len(j.nodes) == 0 {
			j.nodes, j.place = nil, nil
			continue
		}
		j.place, j.rescale = runLengths(j.nodes), rescaleS
		if j.restarts++; j.restarts == 0 {
			j.first = now
		}
		p.start(j)
		if j.split.local < j.app.minLocal || j.split.local > j.app.maxLocal || j.split.batch(len(j.nodes)) > j.app.maxBatch {
			return fmt.Errorf("at %d s: job %s runs batch %+v on %d GPUs", now, j.name, j.split, len(j.nodes))
		}
	}
	return nil
}

func runLengths(nodes []int) []int {
	var out []int
	for i, n := range nodes {
		if i > 0 && nodes[i-1] == n {
			out[len(out)-1]++
		} else {
			out = append(out, 1)
		}
	}
	return out
}

// advance lets a placed job run for s seconds from now (POLLUX.md 5).
func (j *job) advance(now, s int) {
	all := s
	d := min(j.rescale, s)
	j.rescale -= d
	s -= d
	t := now + d
	for s > 0 && j.completed == 0 {
		j.observe()
		rate := j.app.rate(j.place, j.split, j.epoch)
		end := j.app.prog[j.epoch+1]
		if next := j.progress + float64(rate*float64(s)); next < end {
			j.progress, t, s = next, t+s, 0
		} else {
			delta := int(math.RoundToEven((end - j.progress) / rate))
			j.progress, t, s = end, t+delta, s-delta
			if j.epoch++; j.epoch == j.app.epochs {
				j.completed = t
				all = t - now
			}
		}
		if j.adapts != nil && j.completed == 0 {
			j.adapts(j)
		}
	}
	j.attained += all * len(j.nodes)
}

// observe notes what the job measures of its own steps in this configuration.
func (j *job) observe() {
	j.ranBatch = j.split.batch(len(j.nodes))
	for _, o := range j.seen {
		if o.nodes == len(j.place) && o.gpus == len(j.nodes) && o.split == j.split {
			return
		}
	}
	step, sync := j.app.step(j.place, j.split.local)
	j.seen = append(j.seen, seen{nodes: len(j.place), gpus: len(j.nodes), split: j.split, step: step, sync: sync})
}
