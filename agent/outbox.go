package agent

import (
	"sort"
	"sync"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// Bounds of what travels: more than that waits here, where a newer report of a task takes
// the place of its older one.
const (
	reportsPerMessage = 512
	unackedMax        = 64 // messages
)

// outbox holds what the servers are to be told. A report is kept until the server has
// acknowledged it or a newer one of the same task has taken its place; it is sent again
// over every new session, in which the sequence begins at 1 again. Its size is bounded by the number of tasks. Safe for concurrent
// use.
type outbox struct {
	mu       sync.Mutex
	seq      uint64                    // of the session's newest message
	acked    uint64                    // of the session's newest acknowledged one; at most seq
	pending  map[string]*pb.TaskReport // task ID -> newest, unacknowledged
	sentAs   map[string]uint64         // task ID -> seq under which the pending report was sent; absent: unsent
	progress map[string]*pb.Progress   // changed since it was last sent
	node     *pb.NodeSample            // newest, unsent
	reports  chan struct{}             // has a token when there may be unsent reports

	saved  map[string]*savedReport               // of checkpoints, by what they are about; unacknowledged
	stored func(recorded []*pb.CheckpointReport) // is told what was acknowledged of them; nil: nobody
}

// savedReport is a report of a checkpoint that waits.
type savedReport struct {
	report *pb.CheckpointReport
	sentAs uint64 // 0: unsent
}

func newOutbox() *outbox {
	return &outbox{pending: map[string]*pb.TaskReport{}, sentAs: map[string]uint64{}, progress: map[string]*pb.Progress{},
		reports: make(chan struct{}, 1), saved: map[string]*savedReport{}}
}

func (o *outbox) wake() {
	select {
	case o.reports <- struct{}{}:
	default:
	}
}

// put queues a report, in place of an older one of the same task.
func (o *outbox) put(r *pb.TaskReport) {
	o.mu.Lock()
	o.pending[r.GetTaskId()] = r
	delete(o.sentAs, r.GetTaskId())
	o.mu.Unlock()
	o.wake()
}

// putCheckpoint queues a report of a checkpoint, in place of an older one about the same.
func (o *outbox) putCheckpoint(r *pb.CheckpointReport) {
	c := r.GetCheckpoint()
	about := keyOf(c).String()
	if len(c.GetManifestSha256()) == 0 { // refused: of its name
		about += " refused " + c.GetName()
	}
	o.mu.Lock()
	o.saved[about] = &savedReport{report: r}
	o.mu.Unlock()
	o.wake()
}

// putProgress queues a task's newest progress.
func (o *outbox) putProgress(p *pb.Progress) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.progress[p.GetTaskId()] = p
}

// takeProgress gives what has changed, by task ID, and counts it as sent.
func (o *outbox) takeProgress() []*pb.Progress {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make([]*pb.Progress, 0, len(o.progress))
	for _, p := range o.progress {
		out = append(out, p)
	}
	clear(o.progress)
	sort.Slice(out, func(a, b int) bool { return out[a].GetTaskId() < out[b].GetTaskId() })
	return out
}

// putNode queues what the node has left, in place of what it said before.
func (o *outbox) putNode(s *pb.NodeSample) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.node = s
}

// takeNode gives what is queued of the node and counts it as sent; nil: nothing.
func (o *outbox) takeNode() *pb.NodeSample {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.node
	o.node = nil
	return s
}

// take gives the next message of unsent reports; nil when there is none, or when too many
// messages wait for their acknowledgement.
func (o *outbox) take() *pb.Reports {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.seq-o.acked >= unackedMax {
		return nil
	}
	var ids []string
	for id := range o.pending {
		if _, sent := o.sentAs[id]; !sent {
			ids = append(ids, id)
		}
	}
	about := o.unsentSaved()
	if len(ids) == 0 && len(about) == 0 {
		return nil
	}
	sort.Strings(ids)
	if len(ids) > reportsPerMessage {
		ids = ids[:reportsPerMessage]
		o.wake()
	}
	o.seq++
	m := &pb.Reports{Seq: o.seq}
	for _, id := range ids {
		o.sentAs[id] = o.seq
		m.Reports = append(m.Reports, proto.CloneOf(o.pending[id]))
	}
	for _, key := range about {
		o.saved[key].sentAs = o.seq
		m.Checkpoints = append(m.Checkpoints, o.saved[key].report)
	}
	return m
}

// unsentSaved gives what the next message says of checkpoints; the caller holds the lock.
func (o *outbox) unsentSaved() (about []string) {
	for key, s := range o.saved {
		if s.sentAs == 0 {
			about = append(about, key)
		}
	}
	sort.Strings(about)
	if len(about) > reportsPerMessage {
		about = about[:reportsPerMessage]
		o.wake()
	}
	return about
}

// acknowledge drops what was sent up to seq and gives it.
func (o *outbox) acknowledge(seq uint64) []*pb.TaskReport {
	done, saved := o.settle(seq)
	if len(saved) > 0 && o.stored != nil {
		o.stored(saved)
	}
	return done
}

func (o *outbox) settle(seq uint64) ([]*pb.TaskReport, []*pb.CheckpointReport) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.acked = max(o.acked, min(seq, o.seq))
	var done []*pb.TaskReport
	for id, sent := range o.sentAs {
		if sent <= o.acked {
			done = append(done, o.pending[id])
			delete(o.pending, id)
			delete(o.sentAs, id)
		}
	}
	var saved []*pb.CheckpointReport
	for key, s := range o.saved {
		if s.sentAs > 0 && s.sentAs <= o.acked {
			saved = append(saved, s.report)
			delete(o.saved, key)
		}
	}
	if len(o.sentAs) < len(o.pending) || len(o.saved) > 0 {
		o.wake()
	}
	return done, saved
}

// unacknowledged says how many messages of the session wait for their acknowledgement.
func (o *outbox) unacknowledged() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seq - o.acked
}

// reconnected begins a new session's sequence: everything unacknowledged is unsent again.
func (o *outbox) reconnected() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seq, o.acked = 0, 0
	clear(o.sentAs)
	for _, s := range o.saved {
		s.sentAs = 0
	}
	if len(o.pending) > 0 || len(o.saved) > 0 {
		o.wake()
	}
}

// forget drops what concerns the task.
func (o *outbox) forget(id string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.pending, id)
	delete(o.sentAs, id)
	delete(o.progress, id)
}
