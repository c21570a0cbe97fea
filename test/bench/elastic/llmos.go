package main

import (
	"fmt"

	"llmos/server/scheduler/elastic"
)

// knows says how much of its length a job reports.
type knows int

const (
	knowsNothing knows = iota // Pollux' view: own profile, gradient noise, attained service
	knowsEpochs               // and epochs done of epochs declared
	knowsSteps                // and steps declared from the start
)

// llmos runs server/scheduler/elastic on what jobs report.
type llmos struct {
	knows  knows
	policy elastic.Policy
	nodes  []elastic.Node
	state  map[*job]*view
}

// view is what the scheduler keeps of one job.
type view struct {
	limits  elastic.Limits
	profile elastic.Profile
	used    int // of job.seen
	curve   *elastic.Curve
	epoch   int // of the curve's noise
	fits    int // of the curve's profile
	waited  int
	last    int
	widest  int
	began   float64 // progress at which the epoch began
	split   elastic.Split
}

func newLlmos(k knows, policy elastic.Policy) *llmos {
	l := &llmos{knows: k, policy: policy, state: map[*job]*view{}}
	for n := range clusterNodes {
		l.nodes = append(l.nodes, elastic.Node{ID: fmt.Sprintf("%02d", n), GPUs: nodeGPUs})
	}
	return l
}

func (l *llmos) view(j *job, now int) *view {
	v := l.state[j]
	if v == nil {
		v = &view{last: j.submit, epoch: -1, limits: elastic.Limits{GPUsMin: 1, BatchMin: j.app.minBatch, BatchMax: j.app.maxBatch,
			LocalMin: j.app.minLocal, LocalMax: j.app.maxLocal}}
		if j.app.name == "ncf" { // as Pollux has it: one GPU and its tuned batch
			v.limits.GPUsMax = 1
		}
		l.state[j] = v
		j.adapts = func(j *job) { l.adapt(j) }
	}
	if j.nodes == nil {
		v.waited += now - v.last
	}
	v.last = now
	v.widest = max(v.widest, len(j.nodes))
	v.learn(j)
	return v
}

// learn takes over what the job measured since.
func (v *view) learn(j *job) {
	for ; v.used < len(j.seen); v.used++ {
		s := j.seen[v.used]
		v.profile = v.profile.Observe(elastic.Observation{Nodes: s.nodes, GPUs: s.gpus, Local: s.split.local, StepS: s.step, SyncS: s.sync})
		v.fits++
		v.curve = nil
	}
}

// noise is what the job measures of its gradients at the batch it runs or last ran with.
func (v *view) noise(j *job) elastic.Noise {
	if j.ranBatch == 0 || j.completed != 0 {
		return elastic.Noise{}
	}
	sqr, variance := j.app.gradient(float64(j.ranBatch), j.epoch)
	return elastic.Noise{Sqr: sqr, Var: variance}
}

// adapt chooses the batch anew, as the job's own agent does between steps.
func (l *llmos) adapt(j *job) {
	v := l.state[j]
	v.learn(j)
	v.began = j.app.prog[j.epoch]
	if j.app.name == "ncf" {
		return
	}
	s, _, ok := elastic.Best(&v.profile, v.noise(j), v.limits, len(j.place), len(j.nodes))
	if ok {
		j.split = split{local: s.Local, accumulate: s.Accumulate}
	}
}

func (l *llmos) start(j *job) {
	v := l.state[j]
	if j.app.name == "ncf" {
		j.split = j.app.divide(j.batch, len(j.nodes))
		return
	}
	s, _, ok := elastic.Best(&v.profile, v.noise(j), v.limits, len(j.place), len(j.nodes))
	if !ok {
		panic(fmt.Sprintf("job %s: no batch for %v", j.name, j.place))
	}
	j.split = split{local: s.Local, accumulate: s.Accumulate}
}

func (l *llmos) decide(now int, active []*job) [][]int {
	jobs := make([]elastic.Job, len(active))
	for i, j := range active {
		v := l.view(j, now)
		if v.curve == nil || v.epoch != j.epoch {
			v.curve = elastic.NewCurve(&v.profile, v.noise(j), v.limits, nodeGPUs, clusterNodes)
			v.epoch = j.epoch
		}
		jobs[i] = elastic.Job{ID: fmt.Sprintf("%06d", j.row), Limits: v.limits, Curve: v.curve, Done: j.progress, Left: -1,
			AgeS: float64(now - j.submit), WaitedS: float64(v.waited), Attained: float64(j.attained), Widest: v.widest,
			Restarts: max(0, j.restarts), RestartS: rescaleS}
		if len(j.seen) > 0 {
			switch l.knows {
			case knowsEpochs:
				jobs[i].Left = elastic.Remaining(j.progress, 0, v.began, j.epoch, j.app.epochs)
			case knowsSteps:
				jobs[i].Left = elastic.Remaining(j.progress, j.app.prog[j.app.epochs], 0, 0, 0)
			}
		}
		for _, n := range j.nodes {
			id := l.nodes[n].ID
			held := jobs[i].Held
			if k := len(held); k > 0 && held[k-1].Node == id {
				held[k-1].GPUs++
			} else {
				jobs[i].Held = append(held, elastic.Part{Node: id, GPUs: 1})
			}
		}
	}
	decision := make([][]int, len(active))
	for i, a := range elastic.Decide(jobs, l.nodes, l.policy) {
		for _, p := range a.Parts {
			var n int
			fmt.Sscanf(p.Node, "%d", &n)
			for range p.GPUs {
				decision[i] = append(decision[i], n)
			}
		}
	}
	return decision
}
