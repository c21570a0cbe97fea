package main

import "slices"

// fixed gives a job its tuned batch on every start.
type fixed struct{}

func (fixed) start(j *job) { j.split = j.app.divide(j.batch, len(j.nodes)) }

// grab places a job as Tiresias and Optimus do: the node with most free GPUs first.
func grab(free *[clusterNodes]int, gpus int) []int {
	var nodes []int
	for len(nodes) < gpus {
		best := 0
		for n := range free {
			if free[n] > free[best] {
				best = n
			}
		}
		take := min(free[best], gpus-len(nodes))
		free[best] -= take
		for range take {
			nodes = append(nodes, best)
		}
	}
	return nodes
}

func fullCluster() [clusterNodes]int {
	var free [clusterNodes]int
	for n := range free {
		free[n] = nodeGPUs
	}
	return free
}

// keep gives each job what it has and counts what is left.
func keep(active []*job) (decision [][]int, free [clusterNodes]int, left int) {
	free, left = fullCluster(), clusterGPUs
	decision = make([][]int, len(active))
	for i, j := range active {
		decision[i] = j.nodes
		left -= len(j.nodes)
		for _, n := range j.nodes {
			free[n]--
		}
	}
	return decision, free, left
}

// fifo starts jobs in order, never preempts; strict: the first that does not fit blocks.
type fifo struct {
	fixed
	strict bool
}

func (f *fifo) decide(_ int, active []*job) [][]int {
	decision, free, left := keep(active)
	for i, j := range active {
		if decision[i] != nil {
			continue
		}
		if j.gpus > left {
			if f.strict {
				break
			}
			continue
		}
		decision[i] = grab(&free, j.gpus)
		left -= j.gpus
	}
	return decision
}

// tiresiasThresholdGPUs is the attained service at which a job leaves the first queue, GPU-s.
const tiresiasThresholdGPUs = 57_600

// tiresias is least attained service in two queues (POLLUX.md 7).
type tiresias struct {
	fixed
	queues   [2][]*job
	known    map[*job]bool
	executed map[*job]int // s
	running  map[*job]bool
	last     int // s
}

func newTiresias() *tiresias {
	return &tiresias{known: map[*job]bool{}, executed: map[*job]int{}, running: map[*job]bool{}}
}

func (t *tiresias) decide(now int, active []*job) [][]int {
	index := map[*job]int{}
	for i, j := range active {
		index[j] = i
	}
	for q := range t.queues {
		t.queues[q] = slices.DeleteFunc(t.queues[q], func(j *job) bool { return j.completed != 0 })
	}
	for _, j := range active {
		if !t.known[j] {
			t.known[j] = true
			t.queues[0] = append(t.queues[0], j)
			continue
		}
		if !t.running[j] {
			continue
		}
		t.executed[j] += now - t.last
		if at := slices.Index(t.queues[0], j); at >= 0 && t.executed[j]*j.gpus >= tiresiasThresholdGPUs {
			t.queues[0] = slices.Delete(t.queues[0], at, at+1)
			t.queues[1] = append(t.queues[1], j)
		}
	}
	t.last = now
	order := slices.Concat(t.queues[0], t.queues[1])
	left := clusterGPUs
	for _, j := range order {
		if t.running[j] = j.gpus <= left; t.running[j] {
			left -= j.gpus
		}
	}
	decision := make([][]int, len(active))
	free := fullCluster()
	for i, j := range active {
		if t.running[j] {
			decision[i] = j.nodes
			for _, n := range j.nodes {
				free[n]--
			}
		}
	}
	for _, j := range order {
		if i := index[j]; t.running[j] && decision[i] == nil {
			decision[i] = grab(&free, j.gpus)
		}
	}
	return decision
}
