package scheduler

import (
	"slices"
	"strings"

	"llmos/server/scheduler/fair"
)

// queueTree builds the queue tree with what attempts hold; nil when there are no queues. An
// attempt that is being stopped holds until it has stopped.
func (r *round) queueTree() *fair.Tree {
	if len(r.s.Queues) == 0 {
		return nil
	}
	tree := fair.New(r.s.Queues, r.s.Past, r.now.room.capacity())
	r.usage.update(r.s.Running)
	r.usage.book(tree)
	return tree
}

// leastDemand is what the job asks at least: of an elastic one the fewest tasks.
func leastDemand(j *Job) fair.Demand { return j.Demand(leastCounts(j)) }

// modelsMatter says whether some quota is by device model.
func (r *round) modelsMatter() bool {
	for i := range r.s.Queues {
		for _, l := range r.s.Queues[i].Limits {
			if strings.HasPrefix(l.Resource, "gpu:") {
				return true
			}
		}
	}
	return false
}

// takenSince is what the room gave since the trail had this length, by device model.
func (r *room) takenSince(mark int) fair.Demand {
	var d fair.Demand
	for _, entry := range r.trail[mark:] {
		d.CPU += entry.cpu
		d.Memory += entry.memory
		spec, first := &r.spec[entry.node], r.nodes[entry.node].first
		for _, g := range r.granted[entry.first:entry.last] {
			d.Share += int64(g.share)
			d.Models = addShare(d.Models, spec.Devices[g.device-first].Model, int64(g.share))
		}
	}
	return d
}

// placeByModel tries the models one by one that a job accepts and its quotas admit, smallest
// device memory first.
func (r *round) placeByModel(p *placer, i int, job *Job) (tasks []TaskPlacement, counts []int32, ok bool) {
	for _, model := range p.room.openModels(job) {
		narrow := job.onModel(model)
		if !r.turns.admits(i, leastDemand(&narrow), r.claims[job.ID] != nil).OK {
			continue
		}
		if tasks, counts, ok = r.placeIn(p, i, &narrow); ok {
			return tasks, counts, true
		}
	}
	return nil, nil, false
}

// onModel is the job with every role on the model that leaves the choice and accepts it.
func (j *Job) onModel(model string) Job {
	narrow := *j
	narrow.Roles = slices.Clone(j.Roles)
	for i := range narrow.Roles {
		task := &narrow.Roles[i].Task
		open := task.Model == "" && task.Models == nil || slices.Contains(task.Models, model)
		if task.GPUs > 0 && open {
			task.Model, task.Models = model, nil
		}
	}
	return narrow
}

// openModels gives the models among which some role of the job leaves the choice.
func (r *room) openModels(job *Job) []string {
	var models []string
	for _, g := range r.groups(job) {
		if g.shape.gpus == 0 || g.shape.model >= 0 {
			continue
		}
		for _, m := range r.modelsOf(&g.shape) {
			if name := r.models[m]; !slices.Contains(models, name) {
				models = append(models, name)
			}
		}
	}
	return models
}

// put places the job in the trial on devices that quotas by model admit: as it is, or else on
// one model. What the victims release is booked before.
func (a *attack) put() ([]held, bool) {
	if !a.byModel {
		return a.trial.put(a.job)
	}
	if need, ok := a.putAs(a.job); ok {
		return need, true
	}
	for _, model := range a.now.room.openModels(a.job) {
		narrow := a.job.onModel(model)
		if need, ok := a.putAs(&narrow); ok {
			return need, true
		}
	}
	return nil, false
}

func (a *attack) putAs(job *Job) ([]held, bool) {
	mark := len(a.trial.room.trail)
	need, ok := a.trial.put(job)
	if ok && !a.turns.admits(a.i, a.trial.room.takenSince(mark), false).OK {
		a.trial.room.rollback(mark)
		return nil, false
	}
	return need, ok
}

// fits is put without taking anything.
func (a *attack) fits() bool {
	if !a.byModel {
		return a.trial.fits(a.job)
	}
	mark := len(a.trial.room.trail)
	_, ok := a.put()
	a.trial.room.rollback(mark)
	return ok
}
