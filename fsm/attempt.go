package fsm

import (
	"fmt"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// ending is why an attempt ends.
type ending struct {
	cause    string
	task     *pb.Task // that caused it; nil when a user did
	exitCode int32
	lost     bool
	nodeLost bool         // with its whole node: the deeper cause of what its peers told before
	eviction *pb.Eviction // nil but when a plan ends it
}

// endAttempt asks the tasks of a live attempt to stop. The first cause stays: an attempt that
// is ending already is left as it is, unless a node turns out to be lost.
func (a *applier) endAttempt(attempt *pb.Attempt, why ending) *pb.Fault {
	switch {
	case attempt.GetState() == pb.AttemptState_ATTEMPT_STATE_ENDING && why.nodeLost && !attempt.Lost && !attempt.Preempted:
		return a.blameNode(attempt, why)
	case attempt.GetState() != pb.AttemptState_ATTEMPT_STATE_LIVE:
		return nil
	}
	next := state.CopyAttempt(attempt)
	next.State, next.Cause, next.ExitCode, next.Lost = pb.AttemptState_ATTEMPT_STATE_ENDING, cut(why.cause), why.exitCode, why.lost
	if why.task != nil {
		next.CauseTask = why.task.Id
	}
	if why.eviction != nil {
		next.Preempted, next.Eviction, next.EvictedFor = true, why.eviction.Kind, why.eviction.ForJob
	}
	if f := a.txn.PutAttempt(next); f != nil {
		return f
	}
	for _, task := range a.txn.JobTasks(attempt.JobId, attempt.Epoch) {
		if !state.TaskLive(task.State) || task.Desired == pb.TaskDesired_TASK_DESIRED_STOP {
			continue
		}
		stop := state.CopyTask(task)
		stop.Desired = pb.TaskDesired_TASK_DESIRED_STOP
		if f := a.txn.PutTask(stop); f != nil {
			return f
		}
	}
	return nil
}

// blameNode makes a lost node the cause of an attempt that is ending already. When a host dies,
// the ranks elsewhere lose their peer and give up long before the node is known to be lost; what
// they said is kept behind the cause, and the job pays no retry for it.
func (a *applier) blameNode(attempt *pb.Attempt, why ending) *pb.Fault {
	next := state.CopyAttempt(attempt)
	next.Lost, next.ExitCode, next.CauseTask = true, 0, why.task.Id
	next.Cause = cut(fmt.Sprintf("%s; before that, %s", why.cause, attempt.Cause))
	return a.txn.PutAttempt(next)
}

// concludeAttempt ends the job's attempt when none of its tasks is live any more, and decides
// what becomes of the job: done, cancelled, tried again or failed.
func (a *applier) concludeAttempt(jobID string, epoch uint64) *pb.Fault {
	attempt := a.txn.Attempt(jobID, epoch)
	if attempt == nil || attempt.State == pb.AttemptState_ATTEMPT_STATE_ENDED {
		return nil
	}
	live, _, succeeded := a.txn.AttemptTasks(jobID, epoch)
	if live > 0 {
		return nil
	}
	next := state.CopyAttempt(attempt)
	next.State, next.EndedMs = pb.AttemptState_ATTEMPT_STATE_ENDED, a.txn.TimeMS()
	if f := a.txn.PutAttempt(next); f != nil {
		return f
	}
	job := state.CopyJob(a.txn.Job(jobID))
	if attempt.RunningMs > 0 {
		job.RunMs += a.txn.TimeMS() - attempt.RunningMs
	}
	if f := a.chargeNow(job); f != nil {
		return f
	}
	switch {
	case succeeded == attempt.WorldSize:
		return a.finishJob(job, pb.JobState_JOB_STATE_SUCCEEDED, 0, "every task succeeded")
	case job.StopRequested:
		final, code := stoppedAs(job)
		return a.finishJob(job, final, code, job.Reason)
	case attempt.Preempted:
		return a.requeueEvicted(job, attempt)
	case attempt.Lost && a.stranded(job):
		return a.finishJob(job, pb.JobState_JOB_STATE_FAILED, 1, attempt.Cause)
	case attempt.Lost:
		if n := a.txn.LostAttempts(jobID); n >= lostAttemptsMax {
			return a.finishJob(job, pb.JobState_JOB_STATE_FAILED, 1, fmt.Sprintf("%s; %d attempts were lost with their nodes", attempt.Cause, n))
		}
		return a.requeue(job, attempt)
	case job.RetriesLeft > 0:
		job.RetriesLeft--
		return a.requeue(job, attempt)
	}
	return a.finishJob(job, pb.JobState_JOB_STATE_FAILED, attempt.ExitCode, attempt.Cause)
}

// requeue makes a job wait for another placement; the job is the caller's own copy.
func (a *applier) requeue(job *pb.Job, attempt *pb.Attempt) *pb.Fault {
	job.State, job.ReadyMs = pb.JobState_JOB_STATE_PENDING, a.readyMS()
	job.Reason = cut(fmt.Sprintf("attempt %d ended (%s); waits for another placement", attempt.Epoch, attempt.Cause))
	if f := a.txn.PutJob(job); f != nil {
		return f
	}
	a.event("job.requeued", job.Id, attempt.CauseTask, "", "%s; %d retries left", job.Reason, job.RetriesLeft)
	return nil
}
