package state

import (
	"fmt"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// The legal transitions. A record may also be rewritten in the state that it has; a new record
// starts in the state listed under UNSPECIFIED. Everything else is a fault: states only go
// forward, but for a job that is tried again and a node that answers again. An array runs from the
// start, and a cron job is scheduled, because neither is ever placed itself.

var jobTransitions = map[pb.JobState][]pb.JobState{
	pb.JobState_JOB_STATE_UNSPECIFIED: {pb.JobState_JOB_STATE_PENDING, pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_SCHEDULED},
	pb.JobState_JOB_STATE_PENDING:     {pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_CANCELLED, pb.JobState_JOB_STATE_FAILED},
	pb.JobState_JOB_STATE_SCHEDULED:   {pb.JobState_JOB_STATE_CANCELLED, pb.JobState_JOB_STATE_FAILED},
	pb.JobState_JOB_STATE_RUNNING: {pb.JobState_JOB_STATE_PENDING, pb.JobState_JOB_STATE_STOPPING,
		pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_FAILED},
	pb.JobState_JOB_STATE_STOPPING: {pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_CANCELLED, pb.JobState_JOB_STATE_FAILED},
}

var attemptTransitions = map[pb.AttemptState][]pb.AttemptState{
	pb.AttemptState_ATTEMPT_STATE_UNSPECIFIED: {pb.AttemptState_ATTEMPT_STATE_LIVE},
	pb.AttemptState_ATTEMPT_STATE_LIVE:        {pb.AttemptState_ATTEMPT_STATE_ENDING, pb.AttemptState_ATTEMPT_STATE_ENDED},
	pb.AttemptState_ATTEMPT_STATE_ENDING:      {pb.AttemptState_ATTEMPT_STATE_ENDED},
}

var taskTransitions = map[pb.TaskState][]pb.TaskState{
	pb.TaskState_TASK_STATE_UNSPECIFIED: {pb.TaskState_TASK_STATE_ASSIGNED},
	pb.TaskState_TASK_STATE_ASSIGNED: {pb.TaskState_TASK_STATE_RUNNING, pb.TaskState_TASK_STATE_SUCCEEDED,
		pb.TaskState_TASK_STATE_FAILED, pb.TaskState_TASK_STATE_STOPPED, pb.TaskState_TASK_STATE_LOST},
	pb.TaskState_TASK_STATE_RUNNING: {pb.TaskState_TASK_STATE_SUCCEEDED, pb.TaskState_TASK_STATE_FAILED,
		pb.TaskState_TASK_STATE_STOPPED, pb.TaskState_TASK_STATE_LOST},
}

var nodeTransitions = map[pb.NodeState][]pb.NodeState{
	pb.NodeState_NODE_STATE_UNSPECIFIED: {pb.NodeState_NODE_STATE_READY},
	pb.NodeState_NODE_STATE_READY:       {pb.NodeState_NODE_STATE_SILENT, pb.NodeState_NODE_STATE_LOST},
	pb.NodeState_NODE_STATE_SILENT:      {pb.NodeState_NODE_STATE_READY, pb.NodeState_NODE_STATE_LOST},
	pb.NodeState_NODE_STATE_LOST:        {pb.NodeState_NODE_STATE_READY},
}

// stateEnum is any of the state enumerations.
type stateEnum interface {
	comparable
	String() string
}

func checkTransition[S stateEnum](table map[S][]S, what, id string, from, to S) *pb.Fault {
	var none S
	if from == to && from != none || slices.Contains(table[from], to) {
		return nil
	}
	return defect("%s %s cannot go from %s to %s", what, id, Word(from), Word(to))
}

// Word gives the plain word of an enumeration's value, such as "running".
func Word(s fmt.Stringer) string {
	name := s.String()
	for _, part := range []string{"_STATE_", "_HEALTH_", "_DESIRED_", "_ROLE_"} {
		if _, word, ok := strings.Cut(name, part); ok {
			return strings.ToLower(word)
		}
	}
	return name
}

// JobFinished reports whether a job's state is final.
func JobFinished(s pb.JobState) bool {
	return s == pb.JobState_JOB_STATE_SUCCEEDED || s == pb.JobState_JOB_STATE_FAILED || s == pb.JobState_JOB_STATE_CANCELLED
}

// TaskLive reports whether a task may run: it is assigned or running.
func TaskLive(s pb.TaskState) bool {
	return s == pb.TaskState_TASK_STATE_ASSIGNED || s == pb.TaskState_TASK_STATE_RUNNING
}

// TaskTerminal reports whether a task's state is final. LOST is: its attempt does not wait for it.
func TaskTerminal(s pb.TaskState) bool {
	switch s {
	case pb.TaskState_TASK_STATE_SUCCEEDED, pb.TaskState_TASK_STATE_FAILED, pb.TaskState_TASK_STATE_STOPPED,
		pb.TaskState_TASK_STATE_LOST:
		return true
	}
	return false
}
