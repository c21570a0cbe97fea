package state

import (
	"math"

	pb "llmos/proto/llmos/v1"
)

// EventsKept is how many of the newest events are kept of each job, of each node, and of the
// cluster itself.
const EventsKept = 64

// A scope is what an event is about: its job, else its node, else the cluster.
const clusterScope = "c"

func jobScope(id string) string  { return "j/" + id }
func nodeScope(id string) string { return "n/" + id }

func eventScope(e *pb.Event) string {
	switch {
	case e.GetJobId() != "":
		return jobScope(e.JobId)
	case e.GetNodeId() != "":
		return nodeScope(e.NodeId)
	}
	return clusterScope
}

// JobEvents gives the newest events of a job, oldest first.
func (s *State) JobEvents(jobID string) []*pb.Event { return s.scopeEvents(jobScope(jobID)) }

// NodeEvents gives the newest events of a node that are not about a job, oldest first.
func (s *State) NodeEvents(nodeID string) []*pb.Event { return s.scopeEvents(nodeScope(nodeID)) }

// ClusterEvents gives the newest events that are about neither a job nor a node, oldest first.
func (s *State) ClusterEvents() []*pb.Event { return s.scopeEvents(clusterScope) }

func (s *State) scopeEvents(scope string) (out []*pb.Event) {
	for e := range records(s.events, terminated(scope)) {
		out = append(out, e)
	}
	return out
}

// AddEvent stamps an event with the entry's index, an ordinal and the time, writes it, and
// forgets the oldest of its scope above EventsKept.
func (t *Txn) AddEvent(e *pb.Event) {
	if t.events == math.MaxUint32 {
		return
	}
	e.Index, e.Ordinal, e.TimeMs = t.index, t.events, t.timeMS
	t.events++
	t.diary.putRec(eventKey(e), e)
	scope := terminated(eventScope(e))
	var oldest *pb.Event
	kept := 0
	for r := range values(t.diary.root(), scope) {
		if kept == 0 {
			oldest = r.rec
		}
		kept++
	}
	if kept > EventsKept {
		t.diary.removeRec(eventKey(oldest))
	}
}

// AddOnlyEvent adds an event in the place of earlier ones of its kind and scope: what comes again
// and again must not push the rest of a diary out.
func (t *Txn) AddOnlyEvent(e *pb.Event) {
	for _, r := range t.diary.collect(terminated(eventScope(e)), -1) {
		if r.rec.Kind == e.Kind {
			t.diary.removeRec(eventKey(r.rec))
		}
	}
	t.AddEvent(e)
}

func (t *Txn) forgetEvents(scope string) {
	for _, r := range t.diary.collect(terminated(scope), -1) {
		t.diary.removeRec(eventKey(r.rec))
	}
}
