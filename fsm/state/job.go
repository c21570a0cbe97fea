package state

import (
	"iter"
	"strconv"

	pb "llmos/proto/llmos/v1"
)

// AvoidedNodesMax is how many nodes a job avoids at most.
const AvoidedNodesMax = 16

// DefaultQueue is the queue of a job that names none.
const DefaultQueue = "default"

// JobName is the name under which a job is found: its own, or the one it was generated from.
func JobName(spec *pb.JobSpec) string {
	if spec.GetName() != "" {
		return spec.GetName()
	}
	return spec.GetGenerateName()
}

// JobQueue is the queue of a spec.
func JobQueue(spec *pb.JobSpec) string {
	if spec.GetQueue() == "" {
		return DefaultQueue
	}
	return spec.GetQueue()
}

// WorldSize is the number of tasks of a job, all roles together.
func WorldSize(spec *pb.JobSpec) int {
	n := 0
	for _, r := range spec.GetRoles() {
		n += int(r.GetCount())
	}
	return n
}

// Job gives the job of an ID; nil when there is none.
func (s *State) Job(id string) *pb.Job { return lookup(s.jobs, []byte(id)) }

// FindJob gives the job of an ID, else the newest job of that name, else copy n of the newest job
// called name for name_n, else nil.
func (s *State) FindJob(idOrName string) *pb.Job {
	if j := s.Job(idOrName); j != nil {
		return j
	}
	for id := range values(s.jobNames.Root(), terminated(idOrName)) {
		return s.Job(id)
	}
	if name, n, ok := copyName(idOrName); ok {
		for id := range values(s.jobNames.Root(), terminated(name)) {
			return s.Job(CopyID(id, n))
		}
	}
	return nil
}

// copyName parts <name of an array or cron job>_<number of a copy>.
func copyName(text string) (name string, n int32, ok bool) {
	name, number, ok := cutLast(text, "_")
	if !ok {
		return "", 0, false
	}
	i, err := strconv.ParseInt(number, 10, 32)
	return name, int32(i), err == nil && i >= 0
}

// WaitsSince is when a job last began to wait for a placement, in Unix milliseconds: when it was
// submitted, if nothing is known.
func WaitsSince(j *pb.Job) int64 {
	if j.GetReadyMs() == 0 {
		return j.GetSubmittedMs()
	}
	return j.ReadyMs
}

// Jobs walks all jobs in submit order.
func (s *State) Jobs() iter.Seq[*pb.Job] {
	return func(yield func(*pb.Job) bool) {
		s.jobOrder.Root().Walk(func(_ []byte, id string) bool { return !yield(s.Job(id)) })
	}
}

// JobCount is the number of jobs, finished ones included.
func (s *State) JobCount() int { return s.jobs.Len() }

// UnfinishedJobs walks the jobs that have not finished, in submit order. It does not visit others.
func (s *State) UnfinishedJobs() iter.Seq[*pb.Job] { return values(s.unfinished.Root(), nil) }

// Job gives the job of an ID; nil when there is none.
func (t *Txn) Job(id string) *pb.Job { return t.jobs.rec([]byte(id)) }

// FindJob finds as State.FindJob does.
func (t *Txn) FindJob(idOrName string) *pb.Job {
	if j := t.Job(idOrName); j != nil {
		return j
	}
	for id := range values(t.jobNames.root(), terminated(idOrName)) {
		return t.Job(id)
	}
	if name, n, ok := copyName(idOrName); ok {
		for id := range values(t.jobNames.root(), terminated(name)) {
			return t.Job(CopyID(id, n))
		}
	}
	return nil
}

// NameTaken gives the unfinished job that bears a name of its own in a queue; nil when none does.
func (t *Txn) NameTaken(queue, name string) *pb.Job {
	if id, ok := t.takenNames.get(terminated(queue, name)); ok {
		return t.Job(id)
	}
	return nil
}

// UnfinishedJobs is the number of jobs that have not finished.
func (t *Txn) UnfinishedJobs() int { return t.unfinished.len() }

// NextSubmit numbers the submits of this log entry, from 0.
func (t *Txn) NextSubmit() uint32 {
	t.submits++
	return t.submits - 1
}

// CopyJob copies a job so that its fields can be set. The spec, which never changes, is shared, and
// so are the claim and the lists: replace them, do not change them.
func CopyJob(j *pb.Job) *pb.Job {
	return &pb.Job{Id: j.Id, Spec: j.Spec, State: j.State, SubmitIndex: j.SubmitIndex, SubmitOrdinal: j.SubmitOrdinal,
		User: j.User, SubmittedMs: j.SubmittedMs, StartedMs: j.StartedMs, FinishedMs: j.FinishedMs, ExitCode: j.ExitCode,
		Reason: j.Reason, Epoch: j.Epoch, RetriesLeft: j.RetriesLeft, StopRequested: j.StopRequested,
		ModifyIndex: j.ModifyIndex, RequestId: j.RequestId, Parent: j.Parent, ArrayIndex: j.ArrayIndex,
		Copies: j.Copies, CopiesUnfinished: j.CopiesUnfinished, CopiesFailed: j.CopiesFailed, BlockedBy: j.BlockedBy,
		FiredMs: j.FiredMs, Preemptions: j.Preemptions, Resizes: j.Resizes, GpuMilliMs: j.GpuMilliMs, ReadyMs: j.ReadyMs,
		RunMs: j.RunMs, Claim: j.Claim, Avoid: j.Avoid, SavedMs: j.SavedMs, SavedStep: j.SavedStep, SavingRanks: j.SavingRanks}
}

// PutJob writes a job, new or changed. An illegal transition is refused.
func (t *Txn) PutJob(j *pb.Job) *pb.Fault {
	key := []byte(j.Id)
	old := t.jobs.rec(key)
	if f := checkTransition(jobTransitions, "job", j.Id, old.GetState(), j.State); f != nil {
		return f
	}
	j.ModifyIndex = t.index
	t.jobs.putRec(key, j)
	t.touch(j.Id)
	t.indexJob(old, j)
	return nil
}
