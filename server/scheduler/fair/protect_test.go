package fair_test

import (
	"testing"

	"llmos/server/scheduler/fair"
)

func TestProtects(t *testing.T) {
	tree := cohort()
	a, b, free := tree.Leaf("org/a"), tree.Leaf("org/b"), tree.Leaf("free")
	tree.Start(a, "u", gpus(8))
	tree.Start(b, "u", gpus(9))
	tree.Start(free, "u", gpus(2))
	for _, step := range []struct {
		victim, from int
		want         bool
	}{
		{victim: a, from: b, want: true},    // a holds its 8
		{victim: b, from: a, want: false},   // b borrows one
		{victim: a, from: a, want: false},   // its own jobs settle it by priority
		{victim: a, from: free, want: true}, // a itself, though its org holds 17 of 16
		{victim: b, from: free, want: false},
		{victim: free, from: a, want: false}, // it is guaranteed nothing
	} {
		if got := tree.Protects(step.victim, step.from); got != step.want {
			t.Errorf("%+v: got %v", step, got)
		}
	}
	tree.End(b, "u", gpus(1))
	if !tree.Protects(b, free) || !tree.Protects(b, a) {
		t.Error("b is within its quota again")
	}
}

// A queue that limits devices alone does not borrow the cores beside them.
func TestWhatIsNotLimitedIsNotBorrowed(t *testing.T) {
	tree := fair.New([]fair.Queue{
		{Name: "a", Weight: 1, Limits: limit(4, -1, -1)},
		{Name: "b", Weight: 1, Limits: limit(4, -1, -1)},
	}, nil, fair.Demand{Share: 8000, CPU: 64_000})
	a, b := tree.Leaf("a"), tree.Leaf("b")
	tree.Start(a, "u", fair.Demand{Share: 4000, CPU: 32_000})
	if tree.MayReclaim(b, a, fair.Demand{Share: 1000, CPU: 1000}) {
		t.Error("b takes from a, which holds its quota of devices")
	}
	tree.Start(a, "u", fair.Demand{Share: 1000, CPU: 1000})
	if !tree.MayReclaim(b, a, fair.Demand{Share: 1000, CPU: 1000}) {
		t.Error("b may not take back what a borrows")
	}
}
