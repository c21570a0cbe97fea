package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// cronStopsMax bounds how many unfinished copies a new one of a cron job replaces at once.
const cronStopsMax = 100

// jobsOf is how many jobs a submit of a spec makes.
func jobsOf(spec *pb.JobSpec) int { return 1 + int(spec.GetArray().GetCount()) }

// waitingOf is how many of them wait for a placement.
func waitingOf(spec *pb.JobSpec) int {
	switch {
	case spec.Array != nil:
		return int(spec.Array.Count)
	case spec.Cron != nil:
		return 0
	}
	return 1
}

// copySpec is the spec of a parent's copies. All copies of an array share one.
func copySpec(parent *pb.JobSpec) *pb.JobSpec {
	spec := proto.CloneOf(parent)
	spec.Array, spec.Cron = nil, nil
	return spec
}

// makeCopy makes the nth copy of a parent; the counts of the parent are the caller's.
func (a *applier) makeCopy(parent *pb.Job, spec *pb.JobSpec, n int32, blocked []string) (*pb.Job, *pb.Fault) {
	c := &pb.Job{Id: state.CopyID(parent.Id, n), Parent: parent.Id, Spec: spec, State: pb.JobState_JOB_STATE_PENDING, SubmitIndex: a.txn.Index(),
		SubmitOrdinal: a.txn.NextSubmit(), User: parent.User, SubmittedMs: a.txn.TimeMS(), Reason: waitsForPlacement, RetriesLeft: spec.Retries,
		BlockedBy: blocked}
	if parent.Spec.Array != nil {
		c.ArrayIndex = n
	}
	if len(blocked) > 0 {
		c.Reason = waitsFor(blocked)
	} else {
		c.ReadyMs = a.readyMS()
	}
	return c, a.txn.PutJob(c)
}

// makeArray makes all copies of an array.
func (a *applier) makeArray(parent *pb.Job, blocked []string) *pb.Fault {
	spec := copySpec(parent.Spec)
	for n := range parent.Copies {
		if _, f := a.makeCopy(parent, spec, n, blocked); f != nil {
			return f
		}
	}
	return nil
}

// copyEnded counts the end of a copy in its parent. With its last copy an array ends.
func (a *applier) copyEnded(c *pb.Job) *pb.Fault {
	parent := a.txn.Job(c.Parent)
	if parent == nil {
		return nil
	}
	next := state.CopyJob(parent)
	next.CopiesUnfinished--
	if c.State != pb.JobState_JOB_STATE_SUCCEEDED {
		next.CopiesFailed++
	}
	if next.Spec.Array == nil || next.CopiesUnfinished > 0 {
		return a.txn.PutJob(next)
	}
	switch {
	case next.CopiesFailed == 0:
		return a.finishJob(next, pb.JobState_JOB_STATE_SUCCEEDED, 0, "every copy succeeded")
	case next.StopRequested:
		final, code := stoppedAs(next)
		return a.finishJob(next, final, code, next.Reason)
	}
	return a.finishJob(next, pb.JobState_JOB_STATE_FAILED, 1, fmt.Sprintf("%d of %d copies failed or were cancelled", next.CopiesFailed, next.Copies))
}

// fireCron starts the copy of a cron job that was due at a time, as its rule for overlaps says. A
// time that is not newer than the last one does nothing: a new leader may propose it again.
func (a *applier) fireCron(c *pb.FireCron, r *pb.Result) *pb.Fault {
	job := a.txn.Job(c.JobId)
	switch {
	case job == nil:
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "", "there is no job %q", cut(c.JobId))
	case job.Spec.GetCron() == nil:
		return conflict("", "job %s is no cron job", job.Id)
	case job.State != pb.JobState_JOB_STATE_SCHEDULED || c.DueMs <= max(job.FiredMs, job.SubmittedMs):
		return nil
	case c.DueMs > a.txn.TimeMS():
		return invalid("due_ms", "the copy of job %s is due at %d, and it is %d", job.Id, c.DueMs, a.txn.TimeMS())
	}
	next := state.CopyJob(job)
	next.FiredMs = c.DueMs
	if why := a.skipped(job); why != "" {
		if f := a.txn.PutJob(next); f != nil {
			return f
		}
		a.event("cron.skipped", job.Id, "", "", "no copy was started for %s: %s", clock(c.DueMs), why)
		return nil
	}
	made, f := a.makeCopy(job, copySpec(job.Spec), job.Copies, nil)
	if f != nil {
		return f
	}
	next.Copies++
	next.CopiesUnfinished++
	if f := a.txn.PutJob(next); f != nil {
		return f
	}
	a.event("cron.fired", job.Id, "", "", "copy %s was started for %s", made.Id, clock(c.DueMs))
	a.event("job.submitted", made.Id, "", "", "submitted by cron job %s with %s", job.Id, tasksPhrase(state.WorldSize(made.Spec)))
	r.JobId = made.Id
	if job.Spec.Cron.Overlap != pb.CronOverlap_CRON_OVERLAP_REPLACE {
		return nil
	}
	for _, id := range a.txn.OpenCopies(job.Id, cronStopsMax) {
		if id == made.Id {
			continue
		}
		if f := a.stop(a.txn.Job(id), "replaced by "+made.Id, false); f != nil {
			return f
		}
	}
	return nil
}

// skipped says why no copy of a cron job can be started; empty when one can.
func (a *applier) skipped(job *pb.Job) string {
	overlap := job.Spec.Cron.Overlap
	if overlap != pb.CronOverlap_CRON_OVERLAP_ALLOW && overlap != pb.CronOverlap_CRON_OVERLAP_REPLACE && job.CopiesUnfinished > 0 {
		return "the one before has not finished"
	}
	if a.txn.UnfinishedJobs() >= unfinishedJobsMax {
		return "the cluster has too many unfinished jobs"
	}
	if f := a.admitQueue(copySpec(job.Spec), 1); f != nil {
		return f.Message
	}
	return ""
}
