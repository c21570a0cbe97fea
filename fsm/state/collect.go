package state

// FinishedBefore gives at most limit IDs of jobs that finished before a time, oldest first. It
// leaves out those that still hold an allocation, because a lost task may yet run, and those that
// others have still to hear of. The copies of an array are kept as long as the array, and come
// before it; a cron job is kept as long as a copy of it is.
func (t *Txn) FinishedBefore(ms int64, limit int) (ids []string) {
	if ms <= 0 {
		return nil
	}
	for id := range values(t.finished.root(), nil) {
		if len(ids) >= limit || t.Job(id).GetFinishedMs() >= ms {
			break
		}
		whole := true
		for copyID := range values(t.children.root(), terminated(id)) {
			if len(ids) == limit || !t.arrayCopy(t.Job(copyID)) || !t.forgettable(copyID) {
				whole = false
				break
			}
			ids = append(ids, copyID)
		}
		if whole && len(ids) < limit && t.forgettable(id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// forgettable reports whether a finished job holds nothing and nothing waits for its end.
func (t *Txn) forgettable(id string) bool {
	return !holds(&t.allocations.edit, terminated(id)) && !holds(&t.unsettled, unsettledKey(unsettledEnd, id))
}

// ForgetJob removes a finished job that holds nothing, with its attempts, tasks and events.
func (t *Txn) ForgetJob(id string) {
	j := t.Job(id)
	if j == nil {
		return
	}
	for _, r := range t.tasks.collect(terminated(id), -1) {
		t.tasks.removeRec(taskKey(id, r.rec.Epoch, r.rec.Rank))
	}
	for _, r := range t.attempts.collect(terminated(id), -1) {
		t.attempts.removeRec(attemptKey(id, r.rec.Epoch))
	}
	t.forgetEvents(jobScope(id))
	t.forgetCheckpoints(id)
	t.finished.remove(timeKey(j.FinishedMs, id))
	t.jobs.removeRec([]byte(id))
	t.jobOrder.remove(orderKey(j))
	if j.Parent != "" {
		t.children.remove(childKey(j))
	} else {
		t.jobNames.remove(nameKey(JobName(j.Spec), j))
	}
	t.watches.remove([]byte(id))
	t.touched = ""
}
