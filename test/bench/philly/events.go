package main

import (
	"container/heap"
	"math"
	"slices"

	"llmos/server/scheduler/rank"
	"llmos/server/trace"
)

// The event simulation: whole devices counted node by node, no state machine and no
// controller, so that a policy runs over the whole trace in seconds. It is where the order
// of server/scheduler was chosen; llmos simulate judges the product itself.

// The rules of the simulation, the same for every policy.
const (
	nodeGPUs    = 8
	restartS    = 30.0  // a job that starts again holds its devices so long before it goes on
	checkpointS = 600.0 // work between two checkpoints: what lies behind the last one is lost
	boundS      = 10.0  // of the bounded slowdown
	tolerance   = 1e-6  // of sums of seconds
)

// job is one job under way.
type job struct {
	id, vc, class, width int
	arrive, run          float64 // s

	saved   float64 // s of work that a checkpoint holds
	held    float64 // s for which devices were held in ended runs
	started float64 // of the present run
	running bool
	done    bool
	slots   []slot
	finish  float64
	starts  int
	rank    float64 // lower first
	kind    rank.Kind
	seq     int // of the newest event; older ones are void
	place   int // index in the heap
	spot    int // index in running
}

type slot struct{ node, gpus int }

// at is what it holds of a node.
func (j *job) at(node int) int {
	for _, s := range j.slots {
		if s.node == node {
			return s.gpus
		}
	}
	return 0
}

// overhead is what the present run spends before it goes on.
func (j *job) overhead() float64 {
	if j.starts > 1 {
		return restartS
	}
	return 0
}

// progress is the work done by now.
func (j *job) progress(now float64) float64 {
	if !j.running {
		return j.saved
	}
	return j.saved + max(0, now-j.started-j.overhead())
}

// age is the time for which it has held devices.
func (j *job) age(now float64) float64 {
	if !j.running {
		return j.held
	}
	return j.held + now - j.started
}

// cluster is one run of one policy.
type cluster struct {
	now             float64
	free            []int
	on              [][]*job // running on each node
	total           int
	jobs            []*job
	pending         *queue
	running         []*job
	events          events
	policy          policy
	result          result
	held            int     // devices now
	busyWhileComing float64 // device seconds held until the last job came
	usage           []float64
	usedAt          []float64
	holding         []int
	left            int
}

type event struct {
	at  float64
	job *job
	seq int
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(a, b int) bool { return e[a].at < e[b].at }
func (e events) Swap(a, b int)      { e[a], e[b] = e[b], e[a] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

// queue is a heap of pending jobs by rank, then arrival.
type queue struct{ jobs []*job }

func (q *queue) Len() int { return len(q.jobs) }
func (q *queue) Less(a, b int) bool {
	return before(q.jobs[a], q.jobs[b])
}
func (q *queue) Swap(a, b int) {
	q.jobs[a], q.jobs[b] = q.jobs[b], q.jobs[a]
	q.jobs[a].place, q.jobs[b].place = a, b
}
func (q *queue) Push(x any) { j := x.(*job); j.place = len(q.jobs); q.jobs = append(q.jobs, j) }
func (q *queue) Pop() any {
	j := q.jobs[len(q.jobs)-1]
	q.jobs = q.jobs[:len(q.jobs)-1]
	return j
}

func before(a, b *job) bool {
	if a.rank != b.rank {
		return a.rank < b.rank
	}
	return a.id < b.id
}

// replay runs a trace under a policy on so many nodes.
func replay(jobs []trace.Job, nodes int, p policy) result {
	c := &cluster{policy: p, pending: &queue{}, total: nodes * nodeGPUs}
	for range nodes {
		c.free, c.on = append(c.free, nodeGPUs), append(c.on, nil)
	}
	vcs, classes := map[string]int{}, map[[2]int]int{}
	for i := range jobs {
		t := &jobs[i]
		vc, ok := vcs[t.Queue]
		if !ok {
			vc = len(vcs)
			vcs[t.Queue] = vc
		}
		key := [2]int{vc, t.Width()}
		class, ok := classes[key]
		if !ok {
			class = len(classes)
			classes[key] = class
		}
		c.jobs = append(c.jobs, &job{id: i, vc: vc, class: class, width: t.Width(),
			arrive: float64(t.Submit) / 1000, run: float64(t.Duration) / 1000,
			kind: rank.Kind{Group: t.Queue, Width: float64(t.Width())}})
	}
	c.usage, c.usedAt, c.holding = make([]float64, len(vcs)), make([]float64, len(vcs)), make([]int, len(vcs))
	p.begin(c, len(classes))
	c.left = len(c.jobs)
	c.loop()
	return c.measure(vcs)
}

func (c *cluster) loop() {
	next := 0
	for c.left > 0 {
		at := math.Inf(1)
		if next < len(c.jobs) {
			at = c.jobs[next].arrive
		}
		if len(c.events) > 0 {
			at = min(at, c.events[0].at)
		}
		if math.IsInf(at, 1) {
			panic("jobs wait for ever")
		}
		if next < len(c.jobs) {
			c.busyWhileComing += float64(c.held) * (at - c.now)
		}
		c.now = at
		for next < len(c.jobs) && c.jobs[next].arrive <= at {
			j := c.jobs[next]
			next++
			j.rank = c.policy.rank(c, j)
			heap.Push(c.pending, j)
		}
		for len(c.events) > 0 && c.events[0].at <= at {
			e := heap.Pop(&c.events).(event)
			if e.job.running && e.seq == e.job.seq {
				c.due(e.job)
			}
		}
		c.policy.schedule(c)
	}
}

// due is the end of a running job, or the time at which its rank changes.
func (c *cluster) due(j *job) {
	if j.progress(c.now) >= j.run-tolerance {
		c.release(j)
		j.done, j.finish = true, c.now
		c.left--
		c.policy.ended(c, j)
		return
	}
	j.rank = c.policy.rank(c, j)
	c.wake(j)
}

// wake plans the next event of a running job.
func (c *cluster) wake(j *job) {
	j.seq++
	end := j.started + j.overhead() + j.run - j.saved
	if step := c.policy.step(c, j); step > 0 {
		end = min(end, c.now+step)
	}
	heap.Push(&c.events, event{end, j, j.seq})
}

func (c *cluster) start(j *job, slots []slot) {
	for _, s := range slots {
		c.free[s.node] -= s.gpus
		c.on[s.node] = append(c.on[s.node], j)
	}
	j.slots, j.running, j.started = slots, true, c.now
	j.starts++
	c.held += j.width
	c.settle(j.vc)
	c.holding[j.vc] += j.width
	j.spot = len(c.running)
	c.running = append(c.running, j)
	c.wake(j)
}

// release ends the present run.
func (c *cluster) release(j *job) {
	for _, s := range j.slots {
		c.free[s.node] += s.gpus
		on := c.on[s.node]
		i := slices.Index(on, j)
		on[i] = on[len(on)-1]
		c.on[s.node] = on[:len(on)-1]
	}
	c.settle(j.vc)
	c.holding[j.vc] -= j.width
	held := c.now - j.started
	c.held -= j.width
	j.held += held
	j.running, j.slots = false, nil
	last := c.running[len(c.running)-1]
	c.running[j.spot], last.spot = last, j.spot
	c.running = c.running[:len(c.running)-1]
}

// preempt stops a job and puts it back.
func (c *cluster) preempt(j *job) {
	p := j.progress(c.now)
	kept := math.Max(j.saved, math.Floor(p/checkpointS)*checkpointS)
	c.result.lost += (p - kept + restartS) * float64(j.width)
	c.release(j)
	j.saved = kept
	j.seq++
	c.result.Preemptions++
	j.rank = c.policy.rank(c, j)
	heap.Push(c.pending, j)
}

// halfLifeS is that of past usage in fair share.
const halfLifeS = 7 * 86400.0

// settle brings the decayed usage of a virtual cluster up to now.
func (c *cluster) settle(vc int) {
	dt := c.now - c.usedAt[vc]
	decay := math.Exp2(-dt / halfLifeS)
	c.usage[vc] = c.usage[vc]*decay + float64(c.holding[vc])*(1-decay)*halfLifeS/math.Ln2
	c.usedAt[vc] = c.now
}

// fit finds room for a width: within one node where it has the least free, or on whole
// nodes. room may differ from what is free.
func fit(room []int, width int) []slot {
	if width <= nodeGPUs {
		best := -1
		for n, f := range room {
			if f >= width && (best < 0 || f < room[best]) {
				best = n
			}
		}
		if best < 0 {
			return nil
		}
		return []slot{{best, width}}
	}
	var out []slot
	for n, f := range room {
		if f == nodeGPUs && width > 0 {
			g := min(width, nodeGPUs)
			out = append(out, slot{n, g})
			width -= g
		}
	}
	if width > 0 {
		return nil
	}
	return out
}
