package api

import (
	"context"
	"fmt"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
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
		explainPending(s.b.Explain(job.Id), x)
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
		if x.Reason == "" {
			x.Reason = fmt.Sprintf("it runs: attempt %d, %d of %d tasks started", job.Epoch, running+ended, total)
		}
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
