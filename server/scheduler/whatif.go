package scheduler

import (
	"slices"
	"strings"
)

// WouldStart gives changes with each of which a waiting job would start now, such as "with 6
// GPUs" or "without within: rack"; nil when there are none among those that are tried, when
// something other than the nodes is in its way, or when it does not wait. It costs several
// placements that are tried out, so that a list of jobs should not ask for it.
func (p *Plan) WouldStart(jobID string) []string {
	i := slices.IndexFunc(p.jobs, func(j Job) bool { return j.ID == jobID })
	if i < 0 || p.placed[i] {
		return nil
	}
	if _, other := p.blocks[i]; other {
		return nil
	}
	p.left.busy.Lock()
	defer p.left.busy.Unlock()
	job := &p.jobs[i]
	if p.startsNow(job) {
		return nil // it waits for its turn alone
	}
	return p.startsWith(job)
}

// startsWith tries the changes one by one.
func (p *Plan) startsWith(job *Job) []string {
	var changes []string
	for _, c := range []struct {
		asked  bool
		text   string
		change func(*Job)
	}{
		{job.Within != "", "without within: " + job.Within, func(j *Job) { j.Within = "" }},
		{job.Spread != "", "without spread: " + job.Spread, func(j *Job) { j.Spread = "" }},
		{len(job.Near) > 0, "without near: " + strings.Join(job.Near, ", "), func(j *Job) { j.Near = nil }},
		{len(job.Apart) > 0, "without apart: " + strings.Join(job.Apart, ", "), func(j *Job) { j.Apart = nil }},
		{job.Where != nil, "without where: " + job.Where.String(), func(j *Job) { j.Where = nil }},
	} {
		other := *job
		if c.change(&other); c.asked && p.startsNow(&other) {
			changes = append(changes, c.text)
		}
	}
	for _, text := range []string{p.startsOnModel(job), p.startsSmaller(job)} {
		if text != "" {
			changes = append(changes, text)
		}
	}
	return changes
}

// startsOnModel tries the job on any model.
func (p *Plan) startsOnModel(job *Job) string {
	other := *job
	other.Roles = slices.Clone(job.Roles)
	asked := ""
	for i := range other.Roles {
		t := &other.Roles[i].Task
		if t.wanted() != "" && t.Profile == "" {
			asked = t.wanted()
			t.Model, t.Models = "", nil
		}
	}
	if asked == "" || !p.startsNow(&other) {
		return ""
	}
	return "without gpu_model: " + asked
}

// startsSmaller looks by halves for the most tasks, or devices of a single task, that a job
// of one role would start with.
func (p *Plan) startsSmaller(job *Job) string {
	if len(job.Roles) != 1 {
		return ""
	}
	role := job.Roles[0]
	low, high := 0, int(role.least())-1
	if role.least() == 1 {
		high = int(role.Task.GPUs) - 1
	}
	for low < high {
		middle := (low + high + 1) / 2
		other := *job
		smaller := role
		smaller.Min = 0
		if role.least() == 1 {
			smaller.Task.GPUs = int32(middle)
			smaller.Task.CPU = role.Task.CPU * int64(middle) / int64(role.Task.GPUs)
			smaller.Task.Memory = role.Task.Memory * int64(middle) / int64(role.Task.GPUs)
			smaller.Count = 1
		} else {
			smaller.Count = int32(middle)
		}
		other.Roles = []Role{smaller}
		if p.startsNow(&other) {
			low = middle
		} else {
			high = middle - 1
		}
	}
	switch {
	case low == 0:
		return ""
	case role.least() == 1:
		return "with " + gpus(int64(low), role.Task.wanted())
	}
	return "with " + plural(int64(low), "task")
}

// startsNow says whether a job would find room beside the placements and what is kept.
func (p *Plan) startsNow(job *Job) bool {
	r := p.after()
	for _, k := range p.keeps {
		k.apply(r)
	}
	pl := p.placerAfter()
	mark := len(r.trail)
	_, ok := pl.put(job)
	r.rollback(mark)
	for _, k := range p.keeps {
		k.lift(r)
	}
	return ok
}
