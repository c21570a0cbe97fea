package server

import (
	"container/list"
	"sync"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// Limits of telemetry, which is kept in the leader's memory alone.
const (
	progressTasksMax  = 65536 // tasks remembered; the longest silent goes first
	progressValuesMax = 32    // values of one task
	progressKeyMax    = 64    // bytes of a value's name
)

// progressTable remembers what each task last said about itself.
type progressTable struct {
	mu    sync.Mutex
	tasks map[string]*list.Element
	order *list.List // of *pb.Progress, newest first
}

func newProgressTable() *progressTable {
	return &progressTable{tasks: map[string]*list.Element{}, order: list.New()}
}

// Note keeps what a node's tasks say. What is not about a task of that node is dropped.
func (t *progressTable) Note(s *state.State, nodeID string, all []*pb.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		task := s.Task(p.GetTaskId())
		if task == nil || task.NodeId != nodeID {
			continue
		}
		for key := range p.Values {
			if len(key) > progressKeyMax {
				delete(p.Values, key)
			}
		}
		if len(p.Values) > progressValuesMax {
			p.Values = nil
		}
		p.Rank = task.Rank
		if e, ok := t.tasks[p.TaskId]; ok {
			e.Value = p
			t.order.MoveToFront(e)
			continue
		}
		t.tasks[p.TaskId] = t.order.PushFront(p)
		if t.order.Len() > progressTasksMax {
			oldest := t.order.Back()
			delete(t.tasks, oldest.Value.(*pb.Progress).TaskId)
			t.order.Remove(oldest)
		}
	}
}

// Of gives what the tasks of a job's newest attempt last said, by rank. The records are
// not changed afterwards.
func (t *progressTable) Of(s *state.State, jobID string) []*pb.Progress {
	job := s.Job(jobID)
	if job == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []*pb.Progress
	for task := range s.JobTasks(jobID, job.Epoch) {
		if e, ok := t.tasks[task.Id]; ok {
			out = append(out, e.Value.(*pb.Progress))
		}
	}
	return out
}
