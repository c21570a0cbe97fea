package scheduler

func (r *round) resize() {}

func (r *round) wanted(j *Job) int { return j.steps() }
