package controller

import (
	"cmp"
	"slices"
	"time"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
	"llmos/server/scheduler/predict"
)

// outlook is a predicted run time, and when it was worked out. Predictions are costly
// beside a pass, and change slowly.
type outlook struct {
	at    time.Duration
	epoch uint64
	known bool
	q50   int64 // of the whole run, milliseconds
	q90   int64
}

// The prediction of a waiting job is renewed after outlookEvery; that of one that runs when its
// age has grown by a part of 1/outlookPart since, at the latest after outlookMost.
const (
	outlookEvery = time.Minute
	outlookMost  = 10 * time.Minute
	outlookPart  = 8
)

// newcomers remembers what is predicted of jobs that have not run yet: many wait that are alike.
// It is forgotten every outlookEvery.
type newcomers struct {
	at   time.Duration
	seen map[predict.Key]predict.Prediction
}

func (c *Controller) predictNew(key predict.Key) predict.Prediction {
	n := &c.newcomers
	if n.seen == nil || c.now-n.at > outlookEvery {
		n.at, n.seen = c.now, map[predict.Key]predict.Prediction{}
	}
	p, known := n.seen[key]
	if !known {
		p = c.history.Predict(key, 0, predict.Progress{}, 0)
		n.seen[key] = p
	}
	return p
}

// runsToBelieve is how many runs of the same job outweigh the user's own estimate.
const runsToBelieve = 3

// recall teaches the history and the ranks what the state still knows of finished jobs, in
// the order in which they ended: what a new leader has instead of its predecessor's memory.
func (c *Controller) recall(st *state.State) {
	var finished []*pb.Job
	for j := range st.Jobs() {
		if j.State == pb.JobState_JOB_STATE_SUCCEEDED {
			finished = append(finished, j)
		}
	}
	slices.SortStableFunc(finished, func(a, b *pb.Job) int { return cmp.Compare(a.FinishedMs, b.FinishedMs) })
	for _, j := range finished {
		c.teach(j)
	}
}

// teach observes a job that has ended by itself. Groups of copies never ran.
func (c *Controller) teach(j *pb.Job) {
	if j == nil || j.State != pb.JobState_JOB_STATE_SUCCEEDED || j.RunMs <= 0 {
		return
	}
	c.history.Observe(keyOf(j.GetSpec(), j.User), j.RunMs)
	v := SpecValue(j.GetSpec())
	c.ranks.Observe(kindOf(v.Queue, j.User, widthOf(&v)), j.RunMs)
}

func keyOf(spec *pb.JobSpec, user string) predict.Key {
	gpus := 0
	for _, r := range spec.GetRoles() {
		gpus += int(r.Count) * int(r.GetResources().GetGpus())
	}
	return predict.NewKey(user, state.JobName(spec), gpus)
}

// foresee gives the predicted run time of a job that has run for ageMS, by its runs before,
// the user's word and what its tasks report.
func (c *Controller) foresee(spec *pb.JobSpec, user string, ageMS int64) (q50, q90 int64) {
	var p predict.Prediction
	if key, limit := keyOf(spec, user), spec.GetTimeLimitMs(); ageMS == 0 && limit == 0 {
		p = c.predictNew(key)
	} else {
		p = c.history.Predict(key, ageMS, predict.Progress{}, limit)
	}
	if expected := spec.GetExpectedMs(); expected > 0 && p.Jobs < runsToBelieve {
		if ageMS < expected {
			return expected, max(expected, spec.GetTimeLimitMs())
		}
		return max(p.Q50, ageMS), max(p.Q90, ageMS)
	}
	if p.Jobs == 0 {
		return 0, spec.GetTimeLimitMs() // a limit bounds a run, and says nothing of its length
	}
	return p.Q50, p.Q90
}

// predictPending fills in the predicted run time of a waiting job.
func (c *Controller) predictPending(e *jobEntry, job *scheduler.Job) {
	o := &e.outlook
	if !o.known || o.epoch != e.job.Epoch || c.now-o.at > outlookEvery {
		*o = outlook{at: c.now, epoch: e.job.Epoch, known: true}
		o.q50, o.q90 = c.foresee(e.job.GetSpec(), e.job.User, 0)
	}
	job.Q50, job.Q90 = remaining(o.q50, e.job.RunMs), remaining(o.q90, e.job.RunMs)
}

// remaining is what is left of a predicted run after a time of running; 0: unknown.
func remaining(run, before int64) int64 {
	if run == 0 {
		return 0
	}
	return max(1, run-before)
}

// predictRunning fills in the predicted end of a live attempt: from the steps that are left
// where its tasks report them, else from the runs before.
func (c *Controller) predictRunning(e *jobEntry, r *scheduler.Running, nowMS int64) {
	began := cmp.Or(e.attempt.GetRunningMs(), e.attempt.GetPlacedMs())
	if left, ok := e.heard.leftMS(e.job.Epoch); ok {
		at := nowMS + left
		r.EndQ50, r.EndQ90 = at, at+left/10
		return
	}
	o := &e.outlook
	age := max(0, nowMS-began)
	grown := time.Duration(age/outlookPart) * time.Millisecond
	if !o.known || o.epoch != e.job.Epoch || c.now-o.at > max(time.Second, min(outlookMost, grown)) {
		*o = outlook{at: c.now, epoch: e.job.Epoch, known: true}
		o.q50, o.q90 = c.foresee(e.job.GetSpec(), e.job.User, e.job.RunMs+age)
	}
	if o.q50 > 0 {
		r.EndQ50 = max(nowMS+1, began+o.q50-e.job.RunMs)
	}
	if o.q90 > 0 {
		r.EndQ90 = max(nowMS+1, began+o.q90-e.job.RunMs)
	}
}
