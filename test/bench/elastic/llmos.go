package main

import (
	"fmt"
	"strconv"

	"llmos/server/scheduler/elastic"
)

// knows says how much of its length a job reports.
type knows int

const (
	knowsNothing knows = iota // what Pollux saw: the job's own step times and gradient noise; its progress so far
	knowsEpochs               // and how many epochs of how many declared ones are done
	knowsSteps                // and, from its first step on, how many steps at the initial batch it has in all
)

// llmos runs server/scheduler/elastic on what jobs report. It reads the truth only where a
// job would measure it: the step times of configurations it ran (noise-free, as Pollux had
// them), the gradient at the batch it runs, its progress.
type llmos struct {
	knows  knows
	policy elastic.Policy
	nodes  []elastic.Node
	state  map[*job]*view
}

// view is what the scheduler keeps of one job.
type view struct {
	id      string
	limits  elastic.Limits
	profile elastic.Profile
	used    int            // of job.seen
	curve   *elastic.Curve // nil: to be computed anew
	epoch   int            // of the curve's noise
	widest  int            // most GPUs it ran on
	began   float64        // progress at which the current epoch began
	changed int            // s; when what it holds last changed
	rescued bool
}

func newLlmos(k knows, policy elastic.Policy) *llmos {
	l := &llmos{knows: k, policy: policy, state: map[*job]*view{}}
	for n := range clusterNodes {
		l.nodes = append(l.nodes, elastic.Node{ID: fmt.Sprintf("%02d", n), GPUs: nodeGPUs})
	}
	return l
}

func (l *llmos) view(j *job) *view {
	v := l.state[j]
	if v == nil {
		v = &view{id: fmt.Sprintf("%06d", j.row), changed: j.submit, limits: elastic.Limits{GPUsMin: 1,
			BatchMin: j.app.minBatch, BatchMax: j.app.maxBatch, LocalMin: j.app.minLocal, LocalMax: j.app.maxLocal}}
		if !j.elastic() {
			v.limits.GPUsMax = 1
		}
		l.state[j] = v
		j.adapts = l.adapt
	}
	v.learn(j)
	if v.curve == nil || v.epoch != j.epoch {
		v.curve = elastic.NewCurve(&v.profile, noise(j), v.limits, nodeGPUs, clusterNodes)
		v.epoch = j.epoch
	}
	return v
}

// elastic is false for ncf, which runs on one GPU with its tuned batch, as under Pollux.
func (j *job) elastic() bool { return j.app.name != "ncf" }

// learn takes over what the job has measured since.
func (v *view) learn(j *job) {
	for ; v.used < len(j.seen); v.used++ {
		s := j.seen[v.used]
		v.profile = v.profile.Observe(elastic.Observation{Nodes: s.nodes, GPUs: s.gpus, Local: s.split.local, StepS: s.step, SyncS: s.sync})
		v.curve = nil
	}
}

// noise is what the job measures of its gradients at the batch it runs or last ran with.
func noise(j *job) elastic.Noise {
	if j.ranBatch == 0 {
		return elastic.Noise{}
	}
	sqr, variance := j.app.gradient(float64(j.ranBatch), j.epoch)
	return elastic.Noise{Sqr: sqr, Var: variance}
}

// adapt chooses the batch anew, as the job's own agent does between steps.
func (l *llmos) adapt(j *job) {
	v := l.state[j]
	v.learn(j)
	v.began = j.app.prog[j.epoch] // the job's own progress when it began this epoch
	l.choose(j)
}

func (l *llmos) start(j *job) { l.choose(j) }

func (l *llmos) choose(j *job) {
	if !j.elastic() {
		j.split = j.app.divide(j.batch, len(j.nodes))
		return
	}
	v := l.state[j]
	if s, _, ok := elastic.Best(&v.profile, noise(j), v.limits, len(j.place), len(j.nodes)); ok {
		j.split = split{local: s.Local, accumulate: s.Accumulate}
	}
}

// left is how much the job lets the scheduler know of its length.
func (l *llmos) left(j *job, v *view) float64 {
	switch {
	case l.knows == knowsEpochs && j.ranBatch > 0:
		return elastic.Remaining(j.progress, 0, v.began, j.epoch, j.app.epochs)
	case l.knows == knowsSteps && j.ranBatch > 0:
		return elastic.Remaining(j.progress, j.app.prog[j.app.epochs], 0, 0, 0)
	}
	return -1
}

func (l *llmos) decide(now int, active []*job) [][]int {
	jobs := make([]elastic.Job, len(active))
	for i, j := range active {
		v := l.view(j)
		jobs[i] = elastic.Job{ID: v.id, Limits: v.limits, Curve: v.curve, Done: j.progress, Left: l.left(j, v),
			Widest: v.widest, RestartS: rescaleS, SinceS: float64(now - v.changed), Rescued: v.rescued}
		for at, n := range j.nodes {
			if at == 0 || j.nodes[at-1] != n {
				jobs[i].Held = append(jobs[i].Held, elastic.Part{Node: l.nodes[n].ID})
			}
			jobs[i].Held[len(jobs[i].Held)-1].GPUs++
		}
	}
	decision := make([][]int, len(active))
	for i, a := range elastic.Decide(jobs, l.nodes, l.policy) {
		v := l.state[active[i]]
		for _, p := range a.Parts {
			n, err := strconv.Atoi(p.Node)
			if err != nil {
				panic("elastic: a node that was not given: " + p.Node)
			}
			for range p.GPUs {
				decision[i] = append(decision[i], n)
			}
		}
		if a.Changed {
			v.changed = now
		}
		v.widest = max(v.widest, len(decision[i]))
		v.rescued = a.Rescued
	}
	return decision
}
