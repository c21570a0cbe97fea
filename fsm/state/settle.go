package state

import pb "llmos/proto/llmos/v1"

// The end of a job may concern any number of jobs that wait for it, and the stop of an array any
// number of copies. A command does not go through them: it leaves the job in the index of what is
// unsettled, and package fsm settles so many a log entry. The index follows from the tables: an
// ended job has an entry while somebody waits for it, a stopping parent while a copy of it has not
// been asked to stop.

// The kinds of what is unsettled: they begin the key.
const (
	unsettledEnd  = 'e' // a job has ended, and others wait for it
	unsettledStop = 's' // a parent is stopped, and its copies are not
)

func unsettledKey(kind byte, id string) []byte {
	return append(append(append(make([]byte, 0, len(id)+2), kind), id...), 0)
}

// Unsettled reports whether the next log entry, whatever it holds, has something to settle. The
// leader makes one then, so that nothing waits for chance.
func (s *State) Unsettled() bool { return s.unsettled.Len() > 0 }

// NextUnsettled gives a job whose end or stop has still to reach others, and whether it is the end;
// false when there is none.
func (t *Txn) NextUnsettled() (id string, ended, ok bool) {
	if t.unsettled.len() == 0 {
		return "", false, false
	}
	for key := range keys(t.unsettled.root(), nil) {
		return string(key[1 : len(key)-1]), key[0] == unsettledEnd, true
	}
	return "", false, false
}

// indexUnsettled looks whether the job's own state leaves something to settle.
func (t *Txn) indexUnsettled(j *pb.Job) {
	switch {
	case JobFinished(j.State):
		if t.dependents.len() > 0 && holds(&t.dependents, terminated(j.Id)) {
			t.leave(unsettledEnd, j.Id)
		}
	case j.State == pb.JobState_JOB_STATE_STOPPING && IsParent(j):
		if holds(&t.openCopies, terminated(j.Id)) {
			t.leave(unsettledStop, j.Id)
		}
	}
}

func (t *Txn) leave(kind byte, id string) {
	key := unsettledKey(kind, id)
	if _, there := t.unsettled.get(key); !there {
		t.unsettled.put(key, id)
	}
}

// restoreUnsettled finds what the records leave to settle, once all of them are there.
func (t *Txn) restoreUnsettled() {
	for key := range keys(t.dependents.root(), nil) {
		id := firstPart(key)
		if j := t.Job(id); j == nil || JobFinished(j.State) {
			t.leave(unsettledEnd, id)
		}
	}
	for key := range keys(t.openCopies.root(), nil) {
		id := firstPart(key)
		if j := t.Job(id); j != nil && IsParent(j) && j.State == pb.JobState_JOB_STATE_STOPPING {
			t.leave(unsettledStop, id)
		}
	}
}
