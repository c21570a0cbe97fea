package controller

import (
	"llmos/server/scheduler"
	"llmos/server/scheduler/rank"
)

// usageFloor keeps a queue that has used nothing lately from outranking everybody by far.
const usageFloor = 0.02

// rankJobs fills in the index of waiting and running jobs when the policy orders by it: what
// a job is expected to need still, see package rank, times what its queue has had lately of
// what all queues had, beside its weight.
func (c *Controller) rankJobs(s *scheduler.Snapshot) {
	if c.policy().Order != scheduler.OrderIndex {
		return
	}
	turns := c.turnsOf(s)
	for i := range s.Pending {
		j := &s.Pending[i]
		age := int64(0)
		if e := c.world.jobs[j.ID]; e != nil {
			age = e.job.RunMs
		}
		j.Index = turns.of(j.Queue) * c.ranks.Index(kindOf(j.Queue, j.User, widthOf(j)), age)
	}
	for i := range s.Running {
		r := &s.Running[i]
		e := c.world.jobs[r.JobID]
		age := e.job.RunMs
		if began := e.attempt.GetRunningMs(); began > 0 {
			age += max(0, s.NowMS-began)
		}
		r.Index = turns.of(r.Queue) * c.ranks.Index(kindOf(r.Queue, r.User, e.width()), age)
	}
}

// width is that of the job, whatever an elastic attempt has of it.
func (e *jobEntry) width() float64 { return widthOf(&e.value) }

// cpuAsGPU is how many millicores count as a device in the width of a job.
const cpuAsGPU = 8000

// widthOf is what a job holds in devices, shares in part, or their like in CPUs.
func widthOf(j *scheduler.Job) float64 {
	d := j.Demand(nil)
	return max(float64(d.Share)/1000, float64(d.CPU)/cpuAsGPU, 1e-3)
}

func kindOf(queue, user string, width float64) rank.Kind {
	return rank.Kind{Group: queue + "\x00" + user, Width: width}
}

// turns is by how much each queue's jobs are held back for what it has used.
type turns struct {
	factor map[string]float64
	other  float64 // of queues that have used nothing
}

func (t turns) of(queue string) float64 {
	if f, known := t.factor[queue]; known {
		return f
	}
	return t.other
}

func (c *Controller) turnsOf(s *scheduler.Snapshot) turns {
	weights, sum := map[string]float64{}, 0.0
	for i := range s.Queues {
		weights[s.Queues[i].Name] = max(1, s.Queues[i].Weight)
		sum += max(1, s.Queues[i].Weight)
	}
	t := turns{factor: map[string]float64{}, other: 1}
	used, total := map[string]float64{}, 0.0
	for _, p := range s.Past {
		used[p.Queue] += p.Part
		total += p.Part
	}
	if total <= 0 || len(weights) < 2 {
		return t
	}
	t.other = usageFloor
	for queue, part := range used { // unordered: each entry is worked out by itself
		fair := sum / float64(len(weights)) // the weight of a queue like the others
		t.factor[queue] = usageFloor + part/total*fair/max(1, weights[queue])
	}
	return t
}
