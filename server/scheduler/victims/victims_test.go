package victims_test

import (
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/victims"
)

// Against all subsets: what Choose gives is enough, nothing in it is superfluous, and with few
// candidates nothing is cheaper.
func TestChoose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 9).Draw(t, "candidates")
		candidates := make([]victims.Candidate, n)
		room := make([][]int, n) // on each of three nodes
		order := make([]int, n)
		for i := range candidates {
			candidates[i].Cost = float64(rapid.IntRange(1, 50).Draw(t, "cost"))
			room[i] = []int{rapid.IntRange(0, 4).Draw(t, "a"), rapid.IntRange(0, 4).Draw(t, "b"), rapid.IntRange(0, 4).Draw(t, "c")}
			order[i] = i
		}
		need := rapid.IntRange(1, 8).Draw(t, "need")
		enough := func(set []int) bool { // some node becomes free enough
			for node := range 3 {
				sum := 0
				for _, i := range set {
					sum += room[i][node]
				}
				if sum >= need {
					return true
				}
			}
			return false
		}
		best := -1.0
		for mask := range 1 << n {
			var set []int
			cost := 0.0
			for i := range n {
				if mask&(1<<i) != 0 {
					set, cost = append(set, i), cost+candidates[i].Cost
				}
			}
			if len(set) > 0 && enough(set) && (best < 0 || cost < best) {
				best = cost
			}
		}
		set, ok := victims.Choose(candidates, [][]int{order}, enough)
		if ok != (best >= 0) {
			t.Fatalf("found %v, but the cheapest set costs %v", ok, best)
		}
		if !ok {
			return
		}
		cost := 0.0
		for _, i := range set {
			cost += candidates[i].Cost
		}
		if !enough(set) || cost != best {
			t.Fatalf("%v costs %v, the cheapest %v", set, cost, best)
		}
	})
}

// Those that shrink are asked before any is stopped, even when that is dearer.
func TestTiers(t *testing.T) {
	candidates := []victims.Candidate{{Cost: 1, Tier: 1}, {Cost: 5}, {Cost: 7}}
	set, ok := victims.Choose(candidates, [][]int{{0, 1, 2}}, func(set []int) bool { return len(set) >= 2 })
	if !ok || len(set) != 2 || set[0] != 1 || set[1] != 2 {
		t.Fatalf("got %v", set)
	}
}

// With many candidates the tests stay bounded.
func TestBound(t *testing.T) {
	candidates := make([]victims.Candidate, 5000)
	order := make([]int, len(candidates))
	for i := range candidates {
		candidates[i].Cost, order[i] = float64(i%17), i
	}
	tests := 0
	set, ok := victims.Choose(candidates, [][]int{order}, func(set []int) bool { tests++; return len(set) >= 2000 })
	if !ok || len(set) < 2000 || tests > victims.TestsMax {
		t.Fatalf("%d members after %d tests", len(set), tests)
	}
}
