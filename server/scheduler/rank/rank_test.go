package rank_test

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/rank"
)

const second = int64(1000)

func taught(runs map[string][]int64) *rank.Ranker {
	r := &rank.Ranker{}
	for _, name := range []string{"short", "long", "mixed"} {
		for range 400 {
			for _, run := range runs[name] {
				r.Observe(rank.Kind{Group: name, Width: 1}, run)
			}
		}
	}
	return r
}

// A new job of somebody whose jobs are short goes before one of somebody whose are long, and
// a mixed one falls behind once it has outlived its short siblings.
func TestOrder(t *testing.T) {
	r := taught(map[string][]int64{"short": {20 * second}, "long": {100_000 * second}, "mixed": {60 * second, 50_000 * second}})
	at := func(name string, age int64) float64 { return r.Index(rank.Kind{Group: name, Width: 1}, age) }
	if !(at("short", 0) < at("mixed", 0) && at("mixed", 0) < at("long", 0)) {
		t.Errorf("new jobs: short %v, mixed %v, long %v", at("short", 0), at("mixed", 0), at("long", 0))
	}
	if !(at("mixed", 0) < at("mixed", 100*second)) {
		t.Errorf("a mixed job: %v when new, %v after 100 s", at("mixed", 0), at("mixed", 100*second))
	}
	if late := at("long", 95_000*second); !(late < at("long", 50_000*second)) {
		t.Errorf("a long job that is about to end: %v, half way %v", late, at("long", 50_000*second))
	}
	if wide := r.Index(rank.Kind{Group: "short", Width: 4}, 0); !(wide > at("short", 0)) {
		t.Errorf("a wide job of the same user: %v, a narrow one %v", wide, at("short", 0))
	}
}

// With no history at all every age has an index, and old age counts against a job.
func TestNobodyKnown(t *testing.T) {
	r := &rank.Ranker{}
	k := rank.Kind{Group: "new", Width: 1}
	for age := int64(0); age < 4_000_000*second; age = rank.NextAge(age) {
		if now := r.Index(k, age); !(now > 0) {
			t.Fatalf("the index at %d ms is %v", age, now)
		}
	}
	if first, late := r.Index(k, 0), r.Index(k, 1_000_000*second); !(first < late) {
		t.Errorf("new %v, after a million seconds %v", first, late)
	}
}

// The index changes at the ages that NextAge gives and at no other.
func TestGrid(t *testing.T) {
	r := taught(map[string][]int64{"mixed": {60 * second, 5000 * second}})
	k := rank.Kind{Group: "mixed", Width: 2}
	rapid.Check(t, func(t *rapid.T) {
		age := rapid.Int64Range(0, 6_000_000*second).Draw(t, "age")
		next := rank.NextAge(age)
		if next == 0 {
			return
		}
		if next <= age {
			t.Fatalf("after %d comes %d", age, next)
		}
		if a, b := r.Index(k, age), r.Index(k, next-1); a != b {
			t.Fatalf("%v at %d, %v at %d, and the next change is at %d", a, age, b, next-1, next)
		}
	})
}

// The same teaching gives the same index, however many groups come and go.
func TestSameTeachingSameIndex(t *testing.T) {
	teach := func() *rank.Ranker {
		r := &rank.Ranker{}
		for i := range 10_000 {
			r.Observe(rank.Kind{Group: fmt.Sprint(i % 6000), Width: float64(1 + i%3)}, int64(1+i*i%100_000))
		}
		return r
	}
	a, b := teach(), teach()
	for i := range 6000 {
		k := rank.Kind{Group: fmt.Sprint(i), Width: 1}
		if x, y := a.Index(k, 5000), b.Index(k, 5000); x != y {
			t.Fatalf("group %d: %v and %v", i, x, y)
		}
	}
}

func BenchmarkObserveAndIndex(b *testing.B) {
	r := &rank.Ranker{}
	i := 0
	for b.Loop() {
		k := rank.Kind{Group: fmt.Sprint(i % 50), Width: 1}
		r.Observe(k, int64(1000+i*7919%1_000_000))
		r.Index(k, 60_000)
		i++
	}
}
