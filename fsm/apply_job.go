package fsm

import (
	"bytes"
	"crypto/sha256"
	"fmt"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// submitJob makes a pending job, or gives the job that the same request made before.
func (a *applier) submitJob(c *pb.SubmitJob, r *pb.Result) *pb.Fault {
	spec := c.GetSpec()
	if f := checkSpec(spec); f != nil {
		return f
	}
	if f := checkSchedule(spec); f != nil {
		return f
	}
	if f := checkResume(spec); f != nil {
		return f
	}
	if len(c.User) > state.IDBytesMax {
		return invalid("user", "the user's name is %d bytes long, at most %d", len(c.User), state.IDBytesMax)
	}
	encoded, err := proto.MarshalOptions{Deterministic: true}.Marshal(spec)
	if err != nil {
		return invalid("spec", "the job cannot be encoded: %v", err)
	}
	if len(encoded) > specBytesMax {
		return invalid("spec", "the job is %d bytes long, at most %d", len(encoded), specBytesMax)
	}
	if total := len(encoded) * int(spec.GetArray().GetCount()); total > arrayBytesMax {
		return hinted(invalid("array.count", "the copies of the array would take %d bytes, at most %d", total, arrayBytesMax), "make the job's text shorter, or fewer copies")
	}
	digest := sha256.Sum256(encoded)
	if c.RequestId != "" {
		if !state.ValidID(c.RequestId) {
			return invalid("request_id", "%q cannot be a request's ID", cut(c.RequestId))
		}
		if seen := a.txn.Request(c.RequestId); seen != nil {
			return repeated(seen, digest[:], r)
		}
	}
	if f := a.admit(spec); f != nil {
		return f
	}
	spec, blocked, f := a.resolve(spec)
	if f != nil {
		return f
	}
	spec, parts, f := a.resolveResume(spec, c.User)
	if f != nil {
		return f
	}
	if f := a.newJob(c, spec, blocked, digest[:], r); f != nil {
		return f
	}
	return a.takeOver(a.txn.Job(r.JobId), parts)
}

// repeated answers a request that was seen before with the first one's outcome.
func repeated(seen *pb.RequestRecord, digest []byte, r *pb.Result) *pb.Fault {
	if !bytes.Equal(seen.SpecSha256, digest) {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "use a new request ID for another job",
			"request %s has submitted another job before, %s", seen.RequestId, seen.JobId)
	}
	r.JobId, r.RepeatedRequest = seen.JobId, true
	return nil
}

// newJob makes the job of a spec that was checked and resolved, with its copies if it is an array.
func (a *applier) newJob(c *pb.SubmitJob, spec *pb.JobSpec, blocked []string, digest []byte, r *pb.Result) *pb.Fault {
	name := state.JobName(spec)
	job := &pb.Job{Id: state.JobID(name, a.txn.NextInSequence(name)), Spec: spec, State: pb.JobState_JOB_STATE_PENDING,
		SubmitIndex: a.txn.Index(), SubmitOrdinal: a.txn.NextSubmit(), User: c.User, SubmittedMs: a.txn.TimeMS(),
		Reason: waitsForPlacement, RetriesLeft: spec.Retries, RequestId: c.RequestId}
	with := tasksPhrase(state.WorldSize(spec))
	switch {
	case spec.Array != nil:
		job.State, job.Copies, job.CopiesUnfinished = pb.JobState_JOB_STATE_RUNNING, spec.Array.Count, spec.Array.Count
		job.Reason = fmt.Sprintf("runs in %d copies", job.Copies)
		with = fmt.Sprintf("%d copies of %s", job.Copies, with)
	case spec.Cron != nil:
		job.State, job.Reason = pb.JobState_JOB_STATE_SCHEDULED, cut("starts copies at "+spec.Cron.Schedule)
		with = fmt.Sprintf("copies of %s at %s", with, cut(spec.Cron.Schedule))
	case len(blocked) > 0:
		job.BlockedBy, job.Reason = blocked, waitsFor(blocked)
	default:
		job.ReadyMs = a.readyMS()
	}
	if f := a.txn.PutJob(job); f != nil {
		return f
	}
	if c.RequestId != "" {
		a.txn.PutRequest(&pb.RequestRecord{RequestId: c.RequestId, Index: a.txn.Index(), TimeMs: a.txn.TimeMS(),
			JobId: job.Id, SpecSha256: digest})
	}
	a.event("job.submitted", job.Id, "", "", "submitted%s with %s", by(c.User), with)
	r.JobId = job.Id
	if spec.Array != nil {
		return a.makeArray(job, blocked)
	}
	return nil
}

func tasksPhrase(n int) string {
	if n == 1 {
		return "1 task"
	}
	return fmt.Sprintf("%d tasks", n)
}

// stopJob cancels a pending job at once and asks the tasks of a running one to stop. A job
// that is stopping or has finished is left as it is.
func (a *applier) stopJob(c *pb.StopJob, r *pb.Result) *pb.Fault {
	job := a.txn.FindJob(c.JobId)
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos ps --all lists the jobs", "there is no job %q", cut(c.JobId))
	}
	r.JobId = job.Id
	why := "stopped"
	if c.User != "" {
		why += " by " + c.User
	}
	if c.Reason != "" {
		why += ": " + c.Reason
	}
	if c.Failed && c.Reason != "" {
		why = c.Reason // nobody stopped it: it failed
	}
	return a.stop(job, cut(why), c.Failed)
}

// stoppedExit is the exit code of a job that failed because it was stopped, as timeout(1) gives it.
const stoppedExit = 124

// stop cancels a pending job at once and asks the tasks of a running one to stop. Of an array the
// copies are stopped afterwards, so many an entry; the copies of a cron job go on. With failed the
// job fails with the reason instead.
func (a *applier) stop(job *pb.Job, why string, failed bool) *pb.Fault {
	next := state.CopyJob(job)
	next.StopRequested = true
	if failed {
		next.ExitCode = stoppedExit
	}
	switch job.State {
	case pb.JobState_JOB_STATE_PENDING, pb.JobState_JOB_STATE_SCHEDULED:
		final, code := stoppedAs(next)
		return a.finishJob(next, final, code, why)
	case pb.JobState_JOB_STATE_RUNNING:
		next.State, next.Reason, next.Claim = pb.JobState_JOB_STATE_STOPPING, why, nil
		if f := a.txn.PutJob(next); f != nil {
			return f
		}
		a.event("job.stopping", job.Id, "", "", "%s", why)
		return a.endAttempt(a.txn.Attempt(job.Id, job.Epoch), ending{cause: why})
	}
	return nil
}

// stoppedAs gives the final state of a job that was asked to stop. A stopping job has an exit code
// exactly when it was asked because it failed.
func stoppedAs(job *pb.Job) (pb.JobState, int32) {
	if job.ExitCode != 0 {
		return pb.JobState_JOB_STATE_FAILED, job.ExitCode
	}
	return pb.JobState_JOB_STATE_CANCELLED, 0
}

// finishJob writes a job's final state; the job is the caller's own copy.
func (a *applier) finishJob(job *pb.Job, final pb.JobState, exitCode int32, reason string) *pb.Fault {
	job.State, job.ExitCode, job.Reason, job.FinishedMs = final, exitCode, cut(reason), a.txn.TimeMS()
	job.Claim, job.BlockedBy = nil, nil
	a.countEnd(job)
	if f := a.txn.PutJob(job); f != nil {
		return f
	}
	a.event(finalEvents[final], job.Id, "", "", "%s", job.Reason)
	if job.Parent != "" {
		return a.copyEnded(job)
	}
	return nil
}

var finalEvents = map[pb.JobState]string{
	pb.JobState_JOB_STATE_SUCCEEDED: "job.succeeded",
	pb.JobState_JOB_STATE_FAILED:    "job.failed",
	pb.JobState_JOB_STATE_CANCELLED: "job.cancelled",
}
