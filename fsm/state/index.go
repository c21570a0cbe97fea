package state

import (
	"iter"
	"slices"

	pb "llmos/proto/llmos/v1"
)

// IsParent reports whether a job only stands for its copies: an array or a cron job. It is never
// placed itself and has no attempt.
func IsParent(j *pb.Job) bool { return j.GetSpec().GetArray() != nil || j.GetSpec().GetCron() != nil }

// QueueCount is how many unfinished jobs a queue has, those of queues below it aside.
type QueueCount struct {
	Pending int32 // wait, for a placement or for another job
	Running int32 // have an attempt that has not ended
	Parents int32 // arrays and cron jobs
}

// Unfinished is all of them.
func (q QueueCount) Unfinished() int { return int(q.Pending) + int(q.Running) + int(q.Parents) }

// QueueCount gives how many unfinished jobs a queue has.
func (s *State) QueueCount(queue string) QueueCount {
	n, _ := s.queueCounts.Get([]byte(queue))
	return n
}

// QueueCounts walks the queues that have unfinished jobs by name.
func (s *State) QueueCounts() iter.Seq2[string, QueueCount] {
	return func(yield func(string, QueueCount) bool) {
		s.queueCounts.Root().Walk(func(queue []byte, n QueueCount) bool { return !yield(string(queue), n) })
	}
}

// QueueCount gives how many unfinished jobs a queue has.
func (t *Txn) QueueCount(queue string) QueueCount {
	n, _ := t.queueCounts.get([]byte(queue))
	return n
}

// Children walks the copies of an array or a cron job in the order in which they were made.
func (s *State) Children(parentID string) iter.Seq[*pb.Job] {
	return s.jobsOf(s.children, terminated(parentID))
}

// CronJobs walks the cron jobs that start copies by ID.
func (s *State) CronJobs() iter.Seq[*pb.Job] { return s.jobsOf(s.cronJobs, nil) }

// ClaimedJobs walks the jobs for which something is kept by ID.
func (s *State) ClaimedJobs() iter.Seq[*pb.Job] { return s.jobsOf(s.claims, nil) }

// Dependents walks the jobs that wait for a job to end, by ID.
func (s *State) Dependents(jobID string) iter.Seq[*pb.Job] {
	return s.jobsOf(s.dependents, terminated(jobID))
}

// ClaimedJobs gives the IDs of the jobs for which something is kept.
func (t *Txn) ClaimedJobs() []string { return t.claims.collect(nil, -1) }

// ClaimCount is the number of jobs for which something is kept.
func (t *Txn) ClaimCount() int { return t.claims.len() }

// OpenCopies gives at most limit IDs of unfinished copies of a parent that were not asked to stop.
func (t *Txn) OpenCopies(parentID string, limit int) []string {
	return t.openCopies.collect(terminated(parentID), limit)
}

// Dependents gives at most limit IDs of jobs that wait for a job to end.
func (t *Txn) Dependents(jobID string, limit int) []string {
	return t.dependents.collect(terminated(jobID), limit)
}

// indexJob brings the indexes in line with a job that was just written; old is what it was.
func (t *Txn) indexJob(old, j *pb.Job) {
	order := orderKey(j)
	if old == nil {
		t.jobOrder.put(order, j.Id)
		t.nameJob(j)
	}
	if !JobFinished(j.State) {
		t.unfinished.put(order, j)
	} else if old == nil || !JobFinished(old.State) {
		t.indexEnd(old, j, order)
	}
	t.countJob(old, j)
	sameMember(&t.claims, j.Id, old.GetClaim() != nil, j.Claim != nil)
	sameMember(&t.cronJobs, j.Id, old.GetState() == pb.JobState_JOB_STATE_SCHEDULED, j.State == pb.JobState_JOB_STATE_SCHEDULED)
	if j.Parent != "" {
		t.indexCopy(old, j)
	}
	if len(old.GetBlockedBy()) > 0 || len(j.BlockedBy) > 0 {
		t.indexBlocked(old, j)
	}
	t.indexUnsettled(j)
}

// nameJob makes a new job found by its name; a copy is found by its parent.
func (t *Txn) nameJob(j *pb.Job) {
	if j.Parent != "" {
		t.children.put(childKey(j), j.Id)
		return
	}
	name := JobName(j.Spec)
	t.jobNames.put(nameKey(name, j), j.Id)
	if j.Spec.GetName() != "" && !JobFinished(j.State) {
		t.takenNames.put(terminated(JobQueue(j.Spec), name), j.Id)
	}
}

func (t *Txn) indexEnd(old, j *pb.Job, order []byte) {
	if !t.arrayCopy(j) {
		t.finished.put(timeKey(j.FinishedMs, j.Id), j.Id)
	}
	if old == nil {
		return
	}
	t.unfinished.remove(order)
	if j.Spec.GetName() != "" && j.Parent == "" {
		t.takenNames.remove(terminated(JobQueue(j.Spec), j.Spec.Name))
	}
}

// arrayCopy reports whether a job is one of an array, which is kept as long as the array is.
func (t *Txn) arrayCopy(j *pb.Job) bool {
	return j.GetParent() != "" && t.Job(j.Parent).GetSpec().GetArray() != nil
}

func sameMember(e *edit[string], id string, was, is bool) {
	if is && !was {
		e.put([]byte(id), id)
	} else if was && !is {
		e.remove([]byte(id))
	}
}

// countClass tells the counts of a queue apart.
func countClass(j *pb.Job) func(*QueueCount) *int32 {
	switch {
	case j == nil || JobFinished(j.State):
		return nil
	case IsParent(j):
		return func(n *QueueCount) *int32 { return &n.Parents }
	case j.State == pb.JobState_JOB_STATE_PENDING:
		return func(n *QueueCount) *int32 { return &n.Pending }
	}
	return func(n *QueueCount) *int32 { return &n.Running }
}

func (t *Txn) countJob(old, j *pb.Job) {
	if old != nil && old.State == j.State {
		return
	}
	was, is := countClass(old), countClass(j)
	if was == nil && is == nil {
		return
	}
	key := []byte(JobQueue(j.Spec))
	n, _ := t.queueCounts.get(key)
	before := n
	if was != nil {
		*was(&n)--
	}
	if is != nil {
		*is(&n)++
	}
	switch {
	case n == before:
	case n == QueueCount{}:
		t.queueCounts.remove(key)
	default:
		t.queueCounts.put(key, n)
	}
}

// indexCopy keeps openCopies: the copies that a stop of their parent has still to reach.
func (t *Txn) indexCopy(old, j *pb.Job) {
	is := openCopy(j)
	if openCopy(old) == is {
		return
	}
	key := childKey(j)
	if is {
		t.openCopies.put(key, j.Id)
		return
	}
	t.openCopies.remove(key)
	if !holds(&t.openCopies, terminated(j.Parent)) {
		t.unsettled.remove(unsettledKey(unsettledStop, j.Parent))
	}
}

func openCopy(j *pb.Job) bool { return j != nil && !JobFinished(j.State) && !j.StopRequested }

// indexBlocked keeps dependents: who waits for whom.
func (t *Txn) indexBlocked(old, j *pb.Job) {
	for _, id := range old.GetBlockedBy() {
		if slices.Contains(j.BlockedBy, id) {
			continue
		}
		t.dependents.remove(terminated(id, j.Id))
		if !holds(&t.dependents, terminated(id)) {
			t.unsettled.remove(unsettledKey(unsettledEnd, id))
		}
	}
	for _, id := range j.BlockedBy {
		if !slices.Contains(old.GetBlockedBy(), id) {
			t.dependents.put(terminated(id, j.Id), j.Id)
		}
	}
}
