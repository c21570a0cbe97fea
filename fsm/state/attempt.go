package state

import (
	"fmt"
	"iter"

	pb "llmos/proto/llmos/v1"
)

// TaskEpochsKept is how many attempts of a job keep their tasks' records, the newest included.
// Tasks that hold an allocation are kept in any case.
const TaskEpochsKept = 16

// AttemptsKept is how many attempts of a job are kept, the newest included: an elastic job may be
// resized any number of times. Those with tasks that hold an allocation are kept in any case.
const AttemptsKept = 2000

// AttemptCounts is how many tasks of each role an attempt has, in the order of the spec.
func AttemptCounts(spec *pb.JobSpec, a *pb.Attempt) []int32 {
	if len(a.GetCounts()) > 0 {
		return a.Counts
	}
	counts := make([]int32, len(spec.GetRoles())) // of state version 1, which knew no other counts
	for i, role := range spec.GetRoles() {
		counts[i] = role.GetCount()
	}
	return counts
}

// tally counts the tasks of an attempt that has not ended, so that nothing has to walk them.
type tally struct{ live, running, succeeded int32 }

// Attempt gives an attempt; nil when there is none.
func (s *State) Attempt(jobID string, epoch uint64) *pb.Attempt {
	return lookup(s.attempts, attemptKey(jobID, epoch))
}

// Attempts walks the attempts of a job by epoch.
func (s *State) Attempts(jobID string) iter.Seq[*pb.Attempt] {
	return records(s.attempts, terminated(jobID))
}

// Attempt gives an attempt; nil when there is none.
func (t *Txn) Attempt(jobID string, epoch uint64) *pb.Attempt {
	return t.attempts.rec(attemptKey(jobID, epoch))
}

// LostAttempts counts the attempts of a job that ended because a node was lost.
func (t *Txn) LostAttempts(jobID string) (n int) {
	for r := range values(t.attempts.root(), terminated(jobID)) {
		if r.rec.Lost {
			n++
		}
	}
	return n
}

// AttemptTasks gives how many tasks of an attempt that has not ended are live, how many of those
// run, and how many succeeded.
func (t *Txn) AttemptTasks(jobID string, epoch uint64) (live, running, succeeded int32) {
	n, _ := t.tallies.get(attemptKey(jobID, epoch))
	return n.live, n.running, n.succeeded
}

// CopyAttempt copies an attempt so that its fields can be set.
func CopyAttempt(a *pb.Attempt) *pb.Attempt {
	return &pb.Attempt{JobId: a.JobId, Epoch: a.Epoch, State: a.State, PlacedMs: a.PlacedMs, EndedMs: a.EndedMs,
		Cause: a.Cause, ExitCode: a.ExitCode, Lost: a.Lost, WorldSize: a.WorldSize, RendezvousHost: a.RendezvousHost,
		RendezvousPort: a.RendezvousPort, CauseTask: a.CauseTask, Preempted: a.Preempted,
		Eviction: a.Eviction, EvictedFor: a.EvictedFor, Counts: a.Counts, RunningMs: a.RunningMs,
		Resume: a.Resume}
}

// PutAttempt writes an attempt, new or changed. An illegal transition is refused.
func (t *Txn) PutAttempt(a *pb.Attempt) *pb.Fault {
	key := attemptKey(a.JobId, a.Epoch)
	old := t.attempts.rec(key)
	if f := checkTransition(attemptTransitions, "attempt", fmt.Sprintf("%d of job %s", a.Epoch, a.JobId), old.GetState(), a.State); f != nil {
		return f
	}
	t.attempts.putRec(key, a)
	if old == nil {
		t.tallies.put(key, tally{})
		t.pruneTasks(a.JobId, a.Epoch)
	} else if a.State == pb.AttemptState_ATTEMPT_STATE_ENDED {
		t.tallies.remove(key)
	}
	t.touch(a.JobId)
	return nil
}

// pruneTasks forgets the tasks of the attempt that falls out of the bound when epoch begins, and
// the record of the one that falls out of a larger bound.
func (t *Txn) pruneTasks(jobID string, epoch uint64) {
	if epoch <= TaskEpochsKept {
		return
	}
	for _, r := range t.tasks.collect(attemptKey(jobID, epoch-TaskEpochsKept), -1) {
		key := taskKey(jobID, r.rec.Epoch, r.rec.Rank)
		if _, held := t.allocations.get(key); !held {
			t.tasks.removeRec(key)
		}
	}
	if epoch > AttemptsKept {
		if key := attemptKey(jobID, epoch-AttemptsKept); !holds(&t.tasks.edit, key) {
			t.attempts.removeRec(key)
		}
	}
}
