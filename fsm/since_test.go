package fsm

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// differing gives the jobs and nodes of which some record differs between two states.
func differing(old, now *state.State) (jobs, nodes []string) {
	for _, pair := range [][2]*state.State{{old, now}, {now, old}} {
		for j := range pair[0].Jobs() {
			differ := pair[1].Job(j.Id) != j
			for a := range pair[0].Attempts(j.Id) {
				differ = differ || pair[1].Attempt(j.Id, a.Epoch) != a
			}
			if differ {
				jobs = append(jobs, j.Id)
			}
		}
		for n := range pair[0].Nodes() {
			if pair[1].Node(n.Id) != n || pair[1].Account(n.Id) != pair[0].Account(n.Id) {
				nodes = append(nodes, n.Id)
			}
		}
	}
	return jobs, nodes
}

// TestSinceNamesWhatChanged: every job and node that differs between two states of one log is
// named, however many entries lie between them, and one of another log is not believed.
func TestSinceNamesWhatChanged(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f, other := New(), New()
		kept := []*state.State{f.State()}
		for i := 1; i <= rapid.SampledFrom([]int{5, 30, 80}).Draw(t, "entries"); i++ {
			entry := &pb.Entry{TimeMs: int64(1000 * i), Commands: []*pb.Command{drawCommand(t, f.State())}}
			f.Apply(uint64(i), entry)
			other.Apply(uint64(i), &pb.Entry{TimeMs: int64(1000 * i), Commands: []*pb.Command{drawCommand(t, other.State())}})
			kept = append(kept, f.State())
			old := kept[rapid.IntRange(0, len(kept)-1).Draw(t, "old")]
			changed, ok := f.State().Since(old)
			if !ok {
				if len(kept) < 60 {
					t.Fatalf("what has changed since index %d is not known at %d", old.Index(), i)
				}
				continue
			}
			jobs, nodes := differing(old, f.State())
			for _, id := range jobs {
				if !slices.Contains(changed.Jobs, id) {
					t.Fatalf("job %s changed between %d and %d and is not named", id, old.Index(), i)
				}
			}
			for _, id := range nodes {
				if !slices.Contains(changed.Nodes, id) {
					t.Fatalf("node %s changed between %d and %d and is not named", id, old.Index(), i)
				}
			}
			if s := other.State(); s.Hash() != f.State().Hash() {
				if _, ok := f.State().Since(s); ok {
					t.Fatalf("a state of another log is taken for one of this one")
				}
			}
		}
	})
}
