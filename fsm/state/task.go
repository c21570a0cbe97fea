package state

import (
	"iter"

	pb "llmos/proto/llmos/v1"
)

// Task gives the task of an ID; nil when there is none.
func (s *State) Task(id string) *pb.Task {
	key, ok := taskIDKey(id)
	if !ok {
		return nil
	}
	return lookup(s.tasks, key)
}

// JobTasks walks the tasks of an attempt by rank.
func (s *State) JobTasks(jobID string, epoch uint64) iter.Seq[*pb.Task] {
	return records(s.tasks, attemptKey(jobID, epoch))
}

// NodeTasks walks the tasks that hold an allocation on a node: those assigned or running, and
// lost ones for which the node has not answered.
func (s *State) NodeTasks(nodeID string) iter.Seq[*pb.Task] {
	return values(s.nodeTasks.Root(), terminated(nodeID))
}

// Task gives the task of an ID; nil when there is none.
func (t *Txn) Task(id string) *pb.Task {
	key, ok := taskIDKey(id)
	if !ok {
		return nil
	}
	return t.tasks.rec(key)
}

// JobTasks gives the tasks of an attempt by rank.
func (t *Txn) JobTasks(jobID string, epoch uint64) (tasks []*pb.Task) {
	for r := range values(t.tasks.root(), attemptKey(jobID, epoch)) {
		tasks = append(tasks, r.rec)
	}
	return tasks
}

// NodeTasks gives the tasks that hold an allocation on a node.
func (t *Txn) NodeTasks(nodeID string) []*pb.Task {
	return t.nodeTasks.collect(terminated(nodeID), -1)
}

// CopyTask copies a task so that its fields can be set.
func CopyTask(k *pb.Task) *pb.Task {
	return &pb.Task{Id: k.Id, JobId: k.JobId, Epoch: k.Epoch, Role: k.Role, Index: k.Index, Rank: k.Rank, NodeId: k.NodeId,
		Desired: k.Desired, State: k.State, ExitCode: k.ExitCode, Signal: k.Signal, Reason: k.Reason,
		AssignedMs: k.AssignedMs, StartedMs: k.StartedMs, EndedMs: k.EndedMs, LocalRank: k.LocalRank, ModifyIndex: k.ModifyIndex}
}

// PutTask writes a task, new or changed. An illegal transition is refused. The attempt of a new
// task must have been written before.
func (t *Txn) PutTask(k *pb.Task) *pb.Fault {
	key := taskKey(k.JobId, k.Epoch, k.Rank)
	old := t.tasks.rec(key)
	if f := checkTransition(taskTransitions, "task", k.Id, old.GetState(), k.State); f != nil {
		return f
	}
	if old.GetDesired() == pb.TaskDesired_TASK_DESIRED_STOP && k.Desired != pb.TaskDesired_TASK_DESIRED_STOP {
		return defect("task %s cannot be asked to run after it was asked to stop", k.Id)
	}
	k.ModifyIndex = t.index
	t.tasks.putRec(key, k)
	t.countTask(old, k)
	if _, held := t.allocations.get(key); held {
		t.nodeTasks.put(nodeTaskKey(k.NodeId, key), k)
	}
	t.touch(k.JobId)
	return nil
}

func (t *Txn) countTask(old, k *pb.Task) {
	if old != nil && old.State == k.State {
		return
	}
	key := attemptKey(k.JobId, k.Epoch)
	n, ok := t.tallies.get(key)
	if !ok {
		return
	}
	if TaskLive(k.State) && !TaskLive(old.GetState()) {
		n.live++
	}
	if !TaskLive(k.State) && TaskLive(old.GetState()) {
		n.live--
	}
	switch {
	case k.State == pb.TaskState_TASK_STATE_RUNNING:
		n.running++
	case old.GetState() == pb.TaskState_TASK_STATE_RUNNING:
		n.running--
	}
	if k.State == pb.TaskState_TASK_STATE_SUCCEEDED {
		n.succeeded++
	}
	t.tallies.put(key, n)
}

func nodeTaskKey(nodeID string, taskKey []byte) []byte { return append(terminated(nodeID), taskKey...) }
