package state

import iradix "github.com/hashicorp/go-immutable-radix/v2"

// WatchJob gives a channel that is closed at the next change of a job, its attempts, its tasks
// or what they hold; also when the state is abandoned for a snapshot. Of a job that does not
// exist it may close early: look again.
func (s *State) WatchJob(id string) <-chan struct{} {
	ch, _, _ := s.watches.Root().GetWatch([]byte(id))
	return ch
}

// Abandon closes every watch of a state that is not continued by a Txn, because a snapshot
// takes its place. Publish the new state first.
func (s *State) Abandon() {
	txn := s.watches.Txn()
	txn.TrackMutate(true)
	txn.DeletePrefix(nil)
	txn.CommitOnly()
	txn.Notify()
}

// WithOwnWatches gives the same state with watches of its own, so that two machines may go on
// from it.
func (s *State) WithOwnWatches() *State {
	own := *s
	txn := iradix.New[struct{}]().Txn()
	s.watches.Root().Walk(func(key []byte, _ struct{}) bool {
		txn.Insert(key, struct{}{})
		return false
	})
	own.watches = txn.CommitOnly()
	return &own
}

// touch marks a job as changed for those who watch it.
func (t *Txn) touch(jobID string) {
	if t.touched != jobID {
		t.watches.put([]byte(jobID), struct{}{})
		t.touched = jobID
	}
}
