package scheduler

func (r *round) preempt(i int, why block) int { return 0 }
