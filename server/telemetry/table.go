// Package telemetry keeps, on the leader, what tasks last said of themselves and how fast they
// went, and tells which of them make no progress. Nothing of it is replicated: a new leader
// learns it anew. It reads no clock. Package server fills it and the API reads it.
package telemetry

import (
	"container/list"
	"sync"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// Limits of what is kept.
const (
	tasksMax  = 65536 // tasks remembered; the longest silent goes first
	valuesMax = 32    // values of one task
	keyMax    = 64    // bytes of a value's name
)

// Table remembers what each task last said. Safe for concurrent use.
type Table struct {
	mu    sync.Mutex
	tasks map[string]*list.Element
	order *list.List // of *entry, newest first
}

// entry is one task. Times are the agent's clock, in milliseconds.
type entry struct {
	said    *pb.Progress // not changed afterwards
	movedMS int64        // when its step last grew; 0: it has told none
	paceMS  float64      // of a step, as of late; 0: unknown
}

// paceWeight is the weight of the newest steps in the pace.
const paceWeight = 0.2

// NewTable makes an empty table.
func NewTable() *Table { return &Table{tasks: map[string]*list.Element{}, order: list.New()} }

// Len is how many tasks are remembered.
func (t *Table) Len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.order.Len()
}

// Note keeps what a node's tasks say. What is not about a task of that node is dropped.
func (t *Table) Note(s *state.State, nodeID string, all []*pb.Progress) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, p := range all {
		task := s.Task(p.GetTaskId())
		if task == nil || task.NodeId != nodeID {
			continue
		}
		for key := range p.Values {
			if len(key) > keyMax {
				delete(p.Values, key)
			}
		}
		if len(p.Values) > valuesMax {
			p.Values = nil
		}
		p.Rank = task.Rank
		t.keep(p)
	}
}

func (t *Table) keep(p *pb.Progress) {
	e, known := t.tasks[p.TaskId]
	if !known {
		e = t.order.PushFront(&entry{})
		t.tasks[p.TaskId] = e
		if t.order.Len() > tasksMax {
			oldest := t.order.Back()
			delete(t.tasks, oldest.Value.(*entry).said.TaskId)
			t.order.Remove(oldest)
		}
	}
	e.Value.(*entry).take(p)
	t.order.MoveToFront(e)
}

// take notes a step that has grown, and the pace.
func (e *entry) take(p *pb.Progress) {
	before := e.said.GetStep()
	e.said = p
	switch {
	case p.Step <= 0 || p.TimeMs <= 0 || (p.Step == before && e.movedMS > 0):
		return
	case e.movedMS > 0 && p.Step > before && p.TimeMs > e.movedMS:
		pace := float64(p.TimeMs-e.movedMS) / float64(p.Step-before)
		if e.paceMS > 0 {
			pace = e.paceMS + paceWeight*(pace-e.paceMS)
		}
		e.paceMS = pace
	}
	e.movedMS = p.TimeMs
}

// Of gives what the tasks of a job's newest attempt last said, by rank. The records are
// not changed afterwards.
func (t *Table) Of(s *state.State, jobID string) []*pb.Progress {
	var out []*pb.Progress
	t.each(s, jobID, func(e *entry) { out = append(out, e.said) })
	return out
}

// Stalls names the ranks of a job's newest attempt that make no progress; see Judge.
func (t *Table) Stalls(s *state.State, jobID string, nowMS int64) []*pb.Stall {
	var ranks []Rank
	t.each(s, jobID, func(e *entry) {
		if e.movedMS > 0 {
			ranks = append(ranks, Rank{Rank: e.said.Rank, Step: e.said.Step, Steps: e.said.Steps, MovedMS: e.movedMS, PaceMS: e.paceMS})
		}
	})
	return Judge(ranks, nowMS)
}

func (t *Table) each(s *state.State, jobID string, f func(*entry)) {
	job := s.Job(jobID)
	if job == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for task := range s.JobTasks(jobID, job.Epoch) {
		if e, ok := t.tasks[task.Id]; ok {
			f(e.Value.(*entry))
		}
	}
}
