package scheduler

func (r *round) openWindows() {}
