package scheduler

import "testing"

// TestAloneNeedsNoRendezvous: an elastic job that runs with one task holds no port for a
// rendezvous, for the state refuses one; with two it does.
func TestAloneNeedsNoRendezvous(t *testing.T) {
	job := Job{ID: "e", Rendezvous: true, Roles: []Role{{Name: "worker", Count: 4, Min: 1, Task: Request{CPU: 10}}}}
	for _, n := range []int32{1, 2, 4} {
		if got := job.withCounts([]int32{n}); got.Rendezvous != (n > 1) {
			t.Errorf("with %d tasks the job has Rendezvous %v", n, got.Rendezvous)
		}
		if several([]int32{n}) != (n > 1) || several([]int32{0, n}) != (n > 1) {
			t.Errorf("%d tasks are told apart from one wrongly", n)
		}
	}
}
