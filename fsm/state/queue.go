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
