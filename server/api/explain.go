package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const (
	blockersNamed = 3 // jobs that are waited for, in a sentence
	nodesNamed    = 3 // of a running job, in a sentence
)

// ExplainJob answers why a job is in the state it is in: for a pending one the
// controller's dominant reason, for the others what their records say.
func (s *cluster) ExplainJob(ctx context.Context, req *pb.ExplainJobRequest) (*pb.Explanation, error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return nil, err
	}
	x := &pb.Explanation{JobId: job.Id, State: job.State, Events: st.JobEvents(job.Id)}
	if job.State == pb.JobState_JOB_STATE_PENDING {
		explainPending(s.waiting(job), x)
		if len(job.BlockedBy) == 0 && job.Parent == "" {
			s.whatIf(ctx, job.Spec, job.User, x)
		}
	} else if isParent(job) {
		s.explainParent(job, x)
	} else {
		explainPlaced(st, job, x)
	}
	if last := endedAttempt(st, job); last != nil && last.Cause != "" {
		x.Details = append(x.Details, fmt.Sprintf("attempt %d ended: %s", last.Epoch, last.Cause))
	}
	return x, nil
}

// explainPending fills what the controller says of a job that waits.
func explainPending(why, x *pb.Explanation) {
	if why.GetReason() == "" {
		x.Reason, x.Remedy = "the scheduler has not looked at it yet", "ask again in a moment"
		return
	}
	x.Reason, x.Remedy, x.Details = why.Reason, why.Remedy, why.Details
	x.ExpectedStartMs, x.WouldStart = why.ExpectedStartMs, why.WouldStart
}

// waiting gives why a pending job waits: for other jobs, as its record says, or else as
// the controller says.
func (s *cluster) waiting(job *pb.Job) *pb.Explanation {
	if len(job.BlockedBy) == 0 {
		return s.b.Explain(job.Id)
	}
	named := strings.Join(job.BlockedBy[:min(len(job.BlockedBy), blockersNamed)], ", ")
	if more := len(job.BlockedBy) - blockersNamed; more > 0 {
		named += fmt.Sprintf(" and %d more", more)
	}
	return &pb.Explanation{Reason: "waits for " + named, Remedy: "it is placed when these have ended as it asks; llmos why " + job.BlockedBy[0] + " says how far that is"}
}

// isParent says whether a job starts copies and never runs itself.
func isParent(job *pb.Job) bool {
	return job.GetSpec().GetArray() != nil || job.GetSpec().GetCron() != nil
}

// explainParent fills the reason of an array or a cron job.
func (s *cluster) explainParent(job *pb.Job, x *pb.Explanation) {
	done := job.Copies - job.CopiesUnfinished - job.CopiesFailed
	x.Details = append(x.Details, fmt.Sprintf("%d copies were made: %d unfinished, %d succeeded, %d failed", job.Copies, job.CopiesUnfinished, done, job.CopiesFailed))
	x.Reason = job.Reason
	switch {
	case finished(job.State):
		if x.Reason == "" {
			x.Reason = fmt.Sprintf("%d of its %d copies succeeded", done, job.Copies)
		}
	case job.State == pb.JobState_JOB_STATE_SCHEDULED:
		zone := job.Spec.Cron.TimeZone
		if zone == "" {
			zone = "UTC"
		}
		x.Reason = fmt.Sprintf("it starts a copy at each time of %s (%s)", job.Spec.Cron.Schedule, zone)
		x.ExpectedStartMs = s.nextCopy(job)
	case job.State == pb.JobState_JOB_STATE_STOPPING:
		x.Reason = fmt.Sprintf("it is being stopped; %d copies have not ended", job.CopiesUnfinished)
	default:
		x.Reason = fmt.Sprintf("%d of its %d copies have not ended", job.CopiesUnfinished, job.Copies)
		if most := job.Spec.GetArray().GetParallel(); most > 0 {
			x.Details = append(x.Details, fmt.Sprintf("at most %d of them run at a time", most))
		}
	}
}

// nextCopy gives the next time at which a cron job starts a copy, in Unix milliseconds; 0
// when its schedule cannot be read.
func (s *cluster) nextCopy(job *pb.Job) int64 {
	next, err := jobspec.CronTimes(job.GetSpec().GetCron())
	if err != nil {
		return 0
	}
	at := next(s.b.Now())
	if at.IsZero() {
		return 0
	}
	return at.UnixMilli()
}

// explainPlaced fills the reason of a job that is not pending.
func explainPlaced(st *state.State, job *pb.Job, x *pb.Explanation) {
	total, running, ended, silent := 0, 0, 0, 0
	for task := range st.JobTasks(job.Id, job.Epoch) {
		total++
		switch {
		case task.State == pb.TaskState_TASK_STATE_RUNNING:
			running++
		case task.State != pb.TaskState_TASK_STATE_ASSIGNED:
			ended++
		}
		if n := st.Node(task.NodeId); n != nil && n.State != pb.NodeState_NODE_STATE_READY {
			silent++
		}
	}
	x.Reason = job.Reason
	switch job.State {
	case pb.JobState_JOB_STATE_RUNNING:
		x.Reason = runningReason(st, job, running+ended, total)
		if silent > 0 {
			x.Details = append(x.Details, fmt.Sprintf("%d of its tasks are on nodes that do not answer; they run on", silent))
		}
	case pb.JobState_JOB_STATE_STOPPING:
		if x.Reason == "" {
			x.Reason = "it is being stopped"
		}
		x.Remedy = "nothing: its tasks have their grace period to end"
		x.Details = append(x.Details, fmt.Sprintf("%d of %d tasks have ended", ended, total))
	default:
		if x.Reason == "" {
			x.Reason = finishedReason(job)
		}
	}
}

// runningReason says how many tasks have started, on which nodes, and of an elastic job how
// many it might have.
func runningReason(st *state.State, job *pb.Job, started, total int) string {
	var names []string
	for task := range st.JobTasks(job.Id, job.Epoch) {
		name := task.NodeId
		if n := st.Node(task.NodeId); n != nil {
			name = n.Name
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	where := strings.Join(names, ", ")
	if len(names) > nodesNamed {
		where = fmt.Sprintf("%d nodes", len(names))
	}
	text := fmt.Sprintf("%d of %d tasks have started, on %s", started, total, where)
	if started == total && total == 1 {
		text = "its task is on " + where
	} else if started == total {
		text = fmt.Sprintf("all %d tasks are on %s", total, where)
	}
	most := 0
	for _, r := range job.GetSpec().GetRoles() {
		most += int(r.Count)
	}
	if total < most {
		text += fmt.Sprintf("; it is elastic and may have up to %d", most)
	}
	if job.Epoch > 1 {
		text += fmt.Sprintf(" (attempt %d)", job.Epoch)
	}
	return text
}

func finishedReason(job *pb.Job) string {
	switch job.State {
	case pb.JobState_JOB_STATE_SUCCEEDED:
		return "every task ended with exit code 0"
	case pb.JobState_JOB_STATE_FAILED:
		return fmt.Sprintf("it failed with exit code %d", job.ExitCode)
	case pb.JobState_JOB_STATE_CANCELLED:
		return "it was stopped on request"
	}
	return ""
}

// endedAttempt gives the newest attempt of the job that has a cause of its end.
func endedAttempt(st *state.State, job *pb.Job) *pb.Attempt {
	var last *pb.Attempt
	for a := range st.Attempts(job.Id) {
		if a.State != pb.AttemptState_ATTEMPT_STATE_LIVE && (last == nil || a.Epoch > last.Epoch) {
			last = a
		}
	}
	return last
}
