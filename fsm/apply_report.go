package fsm

import (
	"fmt"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// signalExit is added to a signal's number to make an exit code, as a shell does.
const signalExit = 128

// reportTasks takes what a node observed. A report that is stale, repeated or about a task of
// another node is ignored and counted: the sender is told in no other way.
func (a *applier) reportTasks(c *pb.ReportTasks, r *pb.Result) *pb.Fault {
	if a.txn.Node(c.NodeId) == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "register the node first", "there is no node %q", cut(c.NodeId))
	}
	if len(c.Reports) > reportsMax {
		return limit("report in parts", "%d reports came at once, at most %d", len(c.Reports), reportsMax)
	}
	for _, report := range c.Reports {
		task := a.txn.Task(report.GetTaskId())
		if task == nil || task.NodeId != c.NodeId || task.Epoch != report.Epoch {
			r.Ignored++
			continue
		}
		taken, f := a.reportTask(task, report)
		if f != nil {
			return f
		}
		if !taken {
			r.Ignored++
		}
	}
	return nil
}

// reportTask takes one report; false when it says nothing new.
func (a *applier) reportTask(task *pb.Task, report *pb.TaskReport) (bool, *pb.Fault) {
	if task.State == pb.TaskState_TASK_STATE_LOST {
		return a.returned(task, report), nil
	}
	if !state.TaskLive(task.State) {
		return false, nil
	}
	next := state.CopyTask(task)
	if report.StartedMs > 0 {
		next.StartedMs = min(report.StartedMs, timeMSMax)
	}
	switch {
	case report.State == pb.TaskState_TASK_STATE_RUNNING && task.State == pb.TaskState_TASK_STATE_ASSIGNED:
		next.State = report.State
		if f := a.txn.PutTask(next); f != nil {
			return false, f
		}
		if f := a.gangRuns(task.JobId, task.Epoch); f != nil {
			return false, f
		}
		return true, a.jobStarted(task.JobId)
	case state.TaskTerminal(report.State):
		next.State, next.Reason = report.State, cut(report.Reason)
		if report.EndedMs > 0 {
			next.EndedMs = min(report.EndedMs, timeMSMax)
		}
		if report.ResumeFailed {
			if f := a.refuseResume(task, next.Reason); f != nil {
				return false, f
			}
		}
		if report.State != pb.TaskState_TASK_STATE_SUCCEEDED {
			next.ExitCode, next.Signal = report.ExitCode, report.Signal
		}
		return true, a.taskEnded(next)
	}
	return false, nil
}

// returned takes the report of a task that was declared lost. Only its end frees what it holds:
// a task that still runs keeps its devices until the node has stopped it.
func (a *applier) returned(task *pb.Task, report *pb.TaskReport) bool {
	if !state.TaskTerminal(report.State) || a.txn.Allocation(task.Id) == nil {
		return false
	}
	a.release(task)
	a.event("task.returned", task.JobId, task.Id, task.NodeId, "the node answered for rank %d; what it held is free", task.Rank)
	return true
}

// gangRuns notes when the last task of an attempt has begun to run.
func (a *applier) gangRuns(jobID string, epoch uint64) *pb.Fault {
	attempt := a.txn.Attempt(jobID, epoch)
	_, running, succeeded := a.txn.AttemptTasks(jobID, epoch)
	if attempt.RunningMs != 0 || running+succeeded < attempt.WorldSize || !a.keepsTimes() {
		return nil
	}
	next := state.CopyAttempt(attempt)
	next.RunningMs = a.txn.TimeMS()
	return a.txn.PutAttempt(next)
}

func (a *applier) jobStarted(jobID string) *pb.Fault {
	job := a.txn.Job(jobID)
	if job.StartedMs != 0 {
		return nil
	}
	next := state.CopyJob(job)
	next.StartedMs = a.txn.TimeMS()
	if !next.StopRequested {
		next.Reason = "running"
	}
	if f := a.txn.PutJob(next); f != nil {
		return f
	}
	a.event("job.started", jobID, "", "", "the first task runs")
	if parent := a.txn.Job(job.Parent); parent.GetSpec().GetArray() != nil && parent.StartedMs == 0 {
		of := state.CopyJob(parent)
		of.StartedMs = a.txn.TimeMS()
		return a.txn.PutJob(of)
	}
	return nil
}

// taskEnded writes the end of a task that was live, frees what it held, and draws the
// conclusions for its attempt. The task is the caller's own copy.
func (a *applier) taskEnded(task *pb.Task) *pb.Fault {
	if task.State == pb.TaskState_TASK_STATE_FAILED && task.Desired == pb.TaskDesired_TASK_DESIRED_RUN {
		if f := a.avoid(task.JobId, task.NodeId); f != nil {
			return f
		}
	}
	failed := task.State != pb.TaskState_TASK_STATE_SUCCEEDED && a.txn.Attempt(task.JobId, task.Epoch).GetState() == pb.AttemptState_ATTEMPT_STATE_LIVE
	if failed && a.missesNode(task.JobId, task.Epoch) { // before it releases what it holds
		if f := a.keepSurvivors(task.JobId, task.Epoch); f != nil {
			return f
		}
	}
	if f := a.txn.PutTask(task); f != nil {
		return f
	}
	a.release(task)
	if task.StartedMs > 0 || task.State == pb.TaskState_TASK_STATE_SUCCEEDED {
		if f := a.jobStarted(task.JobId); f != nil {
			return f
		}
	}
	if task.State != pb.TaskState_TASK_STATE_SUCCEEDED {
		if f := a.endAttempt(a.txn.Attempt(task.JobId, task.Epoch), endedBy(task)); f != nil {
			return f
		}
	}
	return a.concludeAttempt(task.JobId, task.Epoch)
}

// endedBy says how a task that did not succeed ends its attempt.
func endedBy(task *pb.Task) ending {
	why := ending{task: task}
	switch {
	case task.State == pb.TaskState_TASK_STATE_LOST:
		why.lost, why.cause = true, fmt.Sprintf("rank %d: the node lost the task", task.Rank)
	case task.State == pb.TaskState_TASK_STATE_STOPPED:
		why.lost, why.cause = true, fmt.Sprintf("rank %d: stopped by its node", task.Rank)
	case task.Signal != 0:
		why.exitCode, why.cause = signalExit+task.Signal, fmt.Sprintf("rank %d: signal %d", task.Rank, task.Signal)
	case task.ExitCode != 0:
		why.exitCode, why.cause = task.ExitCode, fmt.Sprintf("rank %d: exit %d", task.Rank, task.ExitCode)
	default:
		why.exitCode, why.cause = 1, fmt.Sprintf("rank %d: could not start", task.Rank)
	}
	if task.Reason != "" && !strings.HasSuffix(why.cause, ": "+task.Reason) { // "exit 3 (exit 3)" says nothing more
		why.cause += " (" + task.Reason + ")"
	}
	return why
}

// loseTasks declares live tasks of a silent node lost. What they hold stays taken until the
// node answers for them or is removed: unreachable is not dead.
func (a *applier) loseTasks(c *pb.LoseTasks, r *pb.Result) *pb.Fault {
	node := a.txn.Node(c.NodeId)
	if node == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "", "there is no node %q", cut(c.NodeId))
	}
	if len(c.TaskIds) > reportsMax {
		return limit("report in parts", "%d tasks were lost at once, at most %d", len(c.TaskIds), reportsMax)
	}
	var hit []*pb.Task // the first of each attempt
	for _, id := range c.TaskIds {
		task := a.txn.Task(id)
		if task == nil || task.NodeId != c.NodeId || !state.TaskLive(task.State) {
			r.Ignored++
			continue
		}
		next := state.CopyTask(task)
		next.State, next.Reason = pb.TaskState_TASK_STATE_LOST, cut(c.Reason)
		next.Desired = pb.TaskDesired_TASK_DESIRED_STOP // should the node come back with it
		if f := a.txn.PutTask(next); f != nil {
			return f
		}
		a.event("task.lost", task.JobId, task.Id, task.NodeId, "rank %d was lost with node %s; what it holds stays taken until the node answers",
			task.Rank, node.Name)
		why := ending{task: next, lost: true, nodeLost: true, cause: fmt.Sprintf("rank %d: node %s was lost", task.Rank, node.Name)}
		if f := a.endAttempt(a.txn.Attempt(task.JobId, task.Epoch), why); f != nil {
			return f
		}
		if f := a.concludeAttempt(task.JobId, task.Epoch); f != nil {
			return f
		}
		if n := len(hit); n == 0 || hit[n-1].JobId != task.JobId || hit[n-1].Epoch != task.Epoch {
			hit = append(hit, task)
		}
	}
	for _, task := range hit {
		if f := a.keepSurvivors(task.JobId, task.Epoch); f != nil {
			return f
		}
	}
	return nil
}
