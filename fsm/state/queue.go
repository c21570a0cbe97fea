package state

import (
	"iter"

	pb "llmos/proto/llmos/v1"
)

// Queue gives the queue of a name; nil when there is none.
func (s *State) Queue(name string) *pb.Queue { return lookup(s.queues, []byte(name)) }

// Queues walks the queues by name.
func (s *State) Queues() iter.Seq[*pb.Queue] { return records(s.queues, nil) }

// Queue gives the queue of a name; nil when there is none.
func (t *Txn) Queue(name string) *pb.Queue { return t.queues.rec([]byte(name)) }

// PutQueue writes a queue.
func (t *Txn) PutQueue(q *pb.Queue) { t.queues.putRec([]byte(q.Name), q) }

// ForgetQueue removes a queue.
func (t *Txn) ForgetQueue(name string) { t.queues.removeRec([]byte(name)) }

// Queues gives all queues by name: few, fsm bounds them.
func (t *Txn) Queues() (out []*pb.Queue) {
	for r := range values(t.queues.root(), nil) {
		out = append(out, r.rec)
	}
	return out
}

// IsInnerQueue reports whether a queue has queues below it: it takes no jobs.
func (t *Txn) IsInnerQueue(name string) bool {
	return holds(&t.queues.edit, []byte(name+QueueSeparator))
}

// LeavesBelow gives at most limit names of the queues below a queue ("": of all) that take jobs.
func (t *Txn) LeavesBelow(name string, limit int) (leaves []string) {
	prefix := []byte(nil)
	if name != "" {
		prefix = []byte(name + QueueSeparator)
	}
	for r := range values(t.queues.root(), prefix) {
		if len(leaves) == limit {
			break
		}
		if !t.IsInnerQueue(r.rec.Name) {
			leaves = append(leaves, r.rec.Name)
		}
	}
	return leaves
}

// QueueSeparator parts the names in a queue's path.
const QueueSeparator = "/"

// QueueParent is the name of the queue above; empty directly below the root.
func QueueParent(name string) string {
	parent, _, below := cutLast(name, QueueSeparator)
	if !below {
		return ""
	}
	return parent
}
