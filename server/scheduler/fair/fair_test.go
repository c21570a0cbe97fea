package fair_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/fair"
)

func gpus(n int64) fair.Demand { return fair.Demand{Share: n * 1000} }

func limit(nominal, borrow, lend int64) []fair.Limit {
	return []fair.Limit{{Resource: "gpu", Nominal: nominal * 1000, Borrow: borrow * 1000, Lend: lend * 1000}}
}

// cohort is two teams of an org with 16 devices on a cluster of 20.
func cohort() *fair.Tree {
	return fair.New([]fair.Queue{
		{Name: "org/a", Parent: "org", Weight: 1, Limits: limit(8, -1, -1)},
		{Name: "org/b", Parent: "org", Weight: 1, Limits: limit(8, 4, 6)},
		{Name: "org", Weight: 1, Limits: limit(16, 0, -1)},
		{Name: "free", Weight: 2},
	}, nil, gpus(20))
}

func TestQuota(t *testing.T) {
	tree := cohort()
	a, b, free := tree.Leaf("org/a"), tree.Leaf("org/b"), tree.Leaf("free")
	for _, step := range []struct {
		leaf      int
		gpus      int64
		noPreempt bool
		why       fair.Cause
		queue     string
		reclaim   bool
		start     bool
	}{
		{leaf: a, gpus: 8, noPreempt: true, reclaim: true, start: true},
		{leaf: a, gpus: 1, noPreempt: true, why: fair.CauseGuarantee, queue: "org/a", reclaim: true}, // the org is within its own
		{leaf: a, gpus: 6, reclaim: true, start: true},                                               // borrows what b lends
		{leaf: a, gpus: 1, why: fair.CauseQuota, queue: "org", reclaim: true},                        // 2 of b's are never lent
		{leaf: b, gpus: 2, reclaim: true, start: true},
		{leaf: b, gpus: 1, why: fair.CauseLent, queue: "org", reclaim: true},
		{leaf: b, gpus: 11, why: fair.CauseQuota, queue: "org/b"},
		{leaf: free, gpus: 4, start: true},
		{leaf: free, gpus: 1}, // that there is no room is not the quota's affair
	} {
		v := tree.Admits(step.leaf, "u", gpus(step.gpus), step.noPreempt)
		if v.OK != (step.why == fair.CauseNone) || v.Why != step.why || v.Queue != step.queue || v.Reclaim != step.reclaim {
			t.Errorf("%+v: got %+v", step, v)
		}
		if step.start {
			tree.Start(step.leaf, "u", gpus(step.gpus))
		}
	}
	if !tree.MayReclaim(b, a, gpus(4)) {
		t.Error("b may not take back what a borrows")
	}
	if tree.MayReclaim(a, b, gpus(1)) {
		t.Error("a takes from b, which borrows nothing")
	}
	if tree.MayReclaim(b, free, gpus(1)) {
		t.Error("b takes from outside its org, which has all that it is guaranteed")
	}
	if tree.MayReclaim(free, a, gpus(1)) {
		t.Error("a queue without a guarantee takes something back")
	}
}

func TestCounts(t *testing.T) {
	tree := fair.New([]fair.Queue{{Name: "q", Weight: 1, RunningMax: 3, UserRunning: 2, UserShareMax: 3000}}, nil, gpus(100))
	q := tree.Leaf("q")
	tree.Start(q, "ann", gpus(2))
	if v := tree.Admits(q, "ann", gpus(2), false); v.Why != fair.CauseUserShare || v.Have != 2000 || v.Limit != 3000 {
		t.Errorf("user share: %+v", v)
	}
	tree.Start(q, "ann", gpus(1))
	if v := tree.Admits(q, "ann", fair.Demand{CPU: 1}, false); v.Why != fair.CauseUserRunning {
		t.Errorf("user running: %+v", v)
	}
	if v := tree.Admits(q, "bob", gpus(3), false); !v.OK {
		t.Errorf("another user: %+v", v)
	}
	tree.Start(q, "bob", gpus(1))
	if v := tree.Admits(q, "bob", gpus(1), false); v.Why != fair.CauseRunning || v.Limit != 3 {
		t.Errorf("running: %+v", v)
	}
	tree.End(q, "ann", gpus(1))
	if v := tree.Admits(q, "bob", gpus(1), false); !v.OK {
		t.Errorf("after an end: %+v", v)
	}
}

func sequence(tree *fair.Tree, items []fair.Item, place func(i int) bool) []int {
	var got []int
	o := tree.Order(items)
	for {
		i, ok := o.Next()
		if !ok {
			return got
		}
		got = append(got, i)
		if place(i) {
			o.Placed(items[i].Demand)
		}
	}
}

func always(int) bool { return true }

func TestOrder(t *testing.T) {
	tree := fair.New([]fair.Queue{{Name: "a", Weight: 1}, {Name: "b", Weight: 2}}, nil, gpus(60))
	a, b := tree.Leaf("a"), tree.Leaf("b")
	var items []fair.Item
	for range 4 {
		items = append(items, fair.Item{Leaf: a, User: "ann", Priority: 50, Demand: gpus(2)})
	}
	for range 6 {
		items = append(items, fair.Item{Leaf: b, User: "bob", Priority: 50, Demand: gpus(2)})
	}
	items = append(items, fair.Item{Leaf: a, User: "zoe", Priority: 90, Demand: gpus(30)}) // 10
	items = append(items, fair.Item{Leaf: b, User: "eve", Priority: 50, Demand: gpus(1)})  // 11
	got := sequence(tree, items, always)
	// Priority first; then b alone until its share by weight reaches a's 30, eve before bob.
	if want := []int{10, 11, 4, 5, 6, 7, 8, 9, 0, 1, 2, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestOrderPutsTheGuaranteedFirst(t *testing.T) {
	tree := fair.New([]fair.Queue{{Name: "a", Weight: 100}, {Name: "b", Weight: 1, Limits: limit(8, -1, -1)}}, nil, gpus(16))
	a, b := tree.Leaf("a"), tree.Leaf("b")
	items := []fair.Item{{Leaf: a, Demand: gpus(4)}, {Leaf: b, Demand: gpus(4)}, {Leaf: b, Demand: gpus(4)}, {Leaf: b, Demand: gpus(4)}}
	if got, want := sequence(tree, items, always), []int{1, 2, 0, 3}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestPastUsageCounts(t *testing.T) {
	tree := fair.New([]fair.Queue{{Name: "q", Weight: 1}}, []fair.Past{{Queue: "q", User: "ann", Part: 0.5}}, gpus(10))
	q := tree.Leaf("q")
	items := []fair.Item{{Leaf: q, User: "ann", Demand: gpus(1)}, {Leaf: q, User: "bob", Demand: gpus(1)}, {Leaf: q, User: "bob", Demand: gpus(1)}}
	if got, want := sequence(tree, items, always), []int{1, 2, 0}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// randomTree draws a two-level tree whose children's guarantees sum to their parent's.
func randomTree(t *rapid.T) ([]fair.Queue, []string) {
	var queues []fair.Queue
	var leaves []string
	for o := range rapid.IntRange(1, 3).Draw(t, "orgs") {
		org := fmt.Sprintf("org%d", o)
		sum := int64(0)
		for q := range rapid.IntRange(1, 3).Draw(t, "teams") {
			nominal := rapid.Int64Range(0, 6).Draw(t, "nominal")
			sum += nominal
			name := fmt.Sprintf("%s/team%d", org, q)
			leaves = append(leaves, name)
			queues = append(queues, fair.Queue{Name: name, Parent: org, Weight: float64(rapid.IntRange(1, 3).Draw(t, "weight")),
				Limits: limit(nominal, rapid.Int64Range(-1, 4).Draw(t, "borrow"), rapid.Int64Range(-1, 4).Draw(t, "lend"))})
		}
		queues = append(queues, fair.Queue{Name: org, Weight: 1, Limits: limit(sum, rapid.Int64Range(-1, 6).Draw(t, "org borrow"), -1)})
	}
	return queues, leaves
}

// What Admits lets in never takes any queue beyond its quota and borrowing limit, and a
// queue that keeps everything from being lent always finds its guarantee.
func TestQuotaHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queues, leaves := randomTree(t)
		tree := fair.New(queues, nil, gpus(1000))
		used := map[string]int64{}
		for range rapid.IntRange(1, 40).Draw(t, "jobs") {
			name := rapid.SampledFrom(leaves).Draw(t, "leaf")
			d := rapid.Int64Range(1, 4).Draw(t, "gpus")
			if tree.Admits(tree.Leaf(name), "u", gpus(d), false).OK {
				tree.Start(tree.Leaf(name), "u", gpus(d))
				used[name] += d
				used[name[:4]] += d
			}
		}
		for _, q := range queues {
			l := q.Limits[0]
			if held := used[q.Name] * 1000; l.Borrow >= 0 && held > l.Nominal+l.Borrow {
				t.Fatalf("%s holds %d of %d and %d borrowed", q.Name, held, l.Nominal, l.Borrow)
			}
			if l.Lend == 0 && q.Parent != "" && used[q.Name]*1000 < l.Nominal {
				if v := tree.Admits(tree.Leaf(q.Name), "u", gpus(1), false); !v.OK {
					t.Fatalf("%s lends nothing and holds %d of %d, but is refused: %+v", q.Name, used[q.Name]*1000, l.Nominal, v)
				}
			}
		}
	})
}

// However queues reclaim from each other, it comes to an end: after each reclaim the taker
// is within its guarantee, so the sum of what is held beyond guarantees only falls.
func TestReclaimEnds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		queues, leaves := randomTree(t)
		tree := fair.New(queues, nil, gpus(1000))
		type attempt struct {
			leaf int
			gpus int64
		}
		var live []attempt
		for range rapid.IntRange(1, 30).Draw(t, "jobs") {
			leaf, d := tree.Leaf(rapid.SampledFrom(leaves).Draw(t, "leaf")), rapid.Int64Range(1, 4).Draw(t, "gpus")
			if tree.Admits(leaf, "u", gpus(d), false).OK {
				tree.Start(leaf, "u", gpus(d))
				live = append(live, attempt{leaf, d})
			}
		}
		const stepsMax = 2000
		steps := 0
		for again := true; again; {
			again = false
			for _, name := range leaves {
				from := tree.Leaf(name)
				i := slices.IndexFunc(live, func(a attempt) bool { return tree.MayReclaim(from, a.leaf, gpus(1)) })
				if i < 0 {
					continue
				}
				tree.End(live[i].leaf, "u", gpus(live[i].gpus))
				live = append(live[:i:i], live[i+1:]...)
				tree.Start(from, "u", gpus(1))
				live = append(live, attempt{from, 1})
				again = true
				if steps++; steps > stepsMax {
					t.Fatal("the queues reclaim from each other for ever")
				}
			}
		}
	})
}

// Without limits, whoever places everything it is given holds by weight, within one job.
func TestSharesFollowWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 5).Draw(t, "queues")
		var queues []fair.Queue
		for i := range n {
			queues = append(queues, fair.Queue{Name: fmt.Sprint("q", i), Weight: float64(rapid.IntRange(1, 4).Draw(t, "weight"))})
		}
		tree := fair.New(queues, nil, gpus(100))
		var items []fair.Item
		for _, q := range queues {
			for range 100 {
				items = append(items, fair.Item{Leaf: tree.Leaf(q.Name), Demand: gpus(1)})
			}
		}
		left := 100
		sequence(tree, items, func(int) bool { left--; return left >= 0 })
		low, high := 1e9, 0.0
		for i, q := range queues {
			now, _ := tree.Share(tree.Leaf(q.Name))
			low, high = min(low, (now+0.01)/queues[i].Weight), max(high, now/queues[i].Weight)
		}
		if high > low+1e-9 {
			t.Fatalf("a queue that could have had one more holds %.4f by weight while another holds %.4f", low, high)
		}
	})
}

func BenchmarkOrder10000(b *testing.B) {
	var queues []fair.Queue
	for i := range 30 {
		queues = append(queues, fair.Queue{Name: fmt.Sprint("q", i), Weight: 1, Limits: limit(20, 100, -1)})
	}
	for b.Loop() {
		tree := fair.New(queues, nil, gpus(600))
		items := make([]fair.Item, 10_000)
		for i := range items {
			items[i] = fair.Item{Leaf: tree.Leaf(fmt.Sprint("q", i%30)), User: fmt.Sprint("u", i%500), Demand: gpus(1)}
		}
		sequence(tree, items, func(i int) bool { return tree.Admits(items[i].Leaf, items[i].User, items[i].Demand, false).OK })
	}
}
