package predict_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/predict"
)

const minute = int64(60_000)

var nothing predict.Progress

func TestKey(t *testing.T) {
	for _, c := range []struct{ a, b string }{{"train-17", "train-18"}, {"sweep_003", "sweep_4"}, {"eval.1", "eval"}} {
		if predict.NewKey("u", c.a, 8) != predict.NewKey("u", c.b, 8) {
			t.Errorf("%s and %s are one job's runs", c.a, c.b)
		}
	}
	if predict.NewKey("u", "train-1", 8) == predict.NewKey("u", "train-1", 4) || predict.NewKey("u", "7b-train", 1) == predict.NewKey("u", "train", 1) {
		t.Error("another size or another name is another job")
	}
}

// The ladder: each step takes a job that the narrower groups do not know.
func TestFallBack(t *testing.T) {
	var h predict.History
	if got := h.Predict(predict.NewKey("ann", "train", 8), 0, nothing, 0); got != (predict.Prediction{}) {
		t.Fatalf("nothing is known: %+v", got)
	}
	if got := h.Predict(predict.NewKey("ann", "train", 8), 0, nothing, 5*minute); got.Q50 != 5*minute || got.Q90 != 5*minute {
		t.Fatalf("only the limit is known: %+v", got)
	}
	for i := range 20 {
		h.Observe(predict.NewKey("ann", fmt.Sprintf("train-%d", i), 8), 60*minute)
		h.Observe(predict.NewKey("ann", fmt.Sprintf("eval-%d", i), 8), 2*minute)
		h.Observe(predict.NewKey("ann", fmt.Sprintf("eval-%d", i), 8), 2*minute)
		h.Observe(predict.NewKey("bob", fmt.Sprintf("train-%d", i), 1), 10*minute)
	}
	for _, c := range []struct {
		user, name string
		gpus       int
		from       string
		q50        int64
	}{
		{"ann", "train-99", 8, "runs of this job", 60 * minute},
		{"ann", "eval-99", 8, "runs of this job", 2 * minute},
		{"ann", "new", 8, "the user's jobs of this size", 2 * minute},
		{"eve", "new", 1, "jobs of this size", 10 * minute},
		{"eve", "new", 64, "all jobs", 2 * minute},
	} {
		got := h.Predict(predict.NewKey(c.user, c.name, c.gpus), 0, nothing, 0)
		if got.From != c.from || got.Q50 != c.q50 {
			t.Errorf("%s/%s on %d: %+v, want the median %d from %q", c.user, c.name, c.gpus, got, c.q50, c.from)
		}
	}
}

func TestSurvival(t *testing.T) {
	var h predict.History
	k := predict.NewKey("ann", "mix", 8)
	for range 15 { // half fail within a minute, half run two hours
		h.Observe(k, minute)
		h.Observe(k, 120*minute)
	}
	young, old := h.Predict(k, 0, nothing, 0), h.Predict(k, 2*minute, nothing, 0)
	if young.Q50 != minute || old.Q50 != 120*minute || old.Mean < 119*minute {
		t.Errorf("at the start %+v, after two minutes %+v", young, old)
	}
	beyond := h.Predict(k, 300*minute, nothing, 0)
	if beyond.Q50 < 450*minute || beyond.Q90 < beyond.Q50 {
		t.Errorf("beyond all that is known: %+v, want about twice the age", beyond)
	}
	if got := h.Predict(k, 300*minute, nothing, 310*minute); got.Q90 != 310*minute {
		t.Errorf("the time limit is no cap: %+v", got)
	}
}

func TestProgress(t *testing.T) {
	var h predict.History
	k := predict.NewKey("ann", "train", 8)
	h.Observe(k, minute)
	p := predict.Progress{Done: 1000, Total: 4000, PerSecond: 10}
	got := h.Predict(k, 2*minute, p, 0)
	if want := 2*minute + 300_000; got.Q50 != want || got.Q90 <= want || got.Q90 > want+60_000 || got.From != "its reported progress" {
		t.Errorf("3,000 steps at 10 a second: %+v, want %d", got, want)
	}
	p.Error = 0.5
	if wide := h.Predict(k, 2*minute, p, 0); wide.Q90 <= got.Q90 || wide.Q50 != got.Q50 {
		t.Errorf("a rate less sure gives %+v, a surer one %+v", wide, got)
	}
	few := h.Predict(k, 0, predict.Progress{Done: 3, Total: 4000, PerSecond: 10}, 0)
	if few.From != "runs of this job" {
		t.Errorf("three steps are believed: %+v", few)
	}
}

// history draws a history and a key that may be in it.
func history(t *rapid.T) (*predict.History, predict.Key) {
	h := &predict.History{}
	key := func(label string) predict.Key {
		return predict.NewKey(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, label+" user"),
			rapid.SampledFrom([]string{"x", "y"}).Draw(t, label+" name"), rapid.SampledFrom([]int{1, 8}).Draw(t, label+" gpus"))
	}
	for range rapid.IntRange(1, 200).Draw(t, "finished") {
		h.Observe(key("done"), rapid.Int64Range(0, 1e9).Draw(t, "ran"))
	}
	return h, key("asked")
}

func TestQuantilesAreInOrderAndNeverBelowTheAge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, k := history(t)
		age := rapid.Int64Range(0, 3e9).Draw(t, "age")
		d := h.After(k, age)
		before := float64(age)
		for q := 0.0; q <= 1; q += 0.05 {
			v := d.Quantile(q)
			if v < before*(1-1e-12) {
				t.Fatalf("quantile %.2f is %g, below %g", q, v, before)
			}
			before = v
		}
		if m := d.Mean(); m < float64(age) || m > d.Quantile(1)*(1+1e-12) {
			t.Fatalf("mean %g outside of %d..%g", m, age, d.Quantile(1))
		}
		limit := rapid.Int64Range(0, 2e9).Draw(t, "limit")
		p := h.Predict(k, age, predict.Progress{Done: rapid.Float64Range(0, 100).Draw(t, "done"),
			Total: rapid.Float64Range(0, 100).Draw(t, "total"), PerSecond: rapid.Float64Range(0, 5).Draw(t, "rate")}, limit)
		if p.Q50 < age || p.Q90 < p.Q50 || p.Mean < age || limit > 0 && p.Q90 > max(limit, age) {
			t.Fatalf("age %d, limit %d: %+v", age, limit, p)
		}
	})
}

func TestAnOlderJobEndsNoSooner(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, k := history(t)
		age := rapid.Int64Range(0, 1e9).Draw(t, "age")
		older := age + rapid.Int64Range(0, 1e9).Draw(t, "older by")
		a, b := h.After(k, age), h.After(k, older)
		if b.Quantile(0.5) < a.Quantile(0.5) && b.Quantile(0.5) < float64(older)*1.05 {
			t.Fatalf("at %d the median is %g, at %d it is %g", age, a.Quantile(0.5), older, b.Quantile(0.5))
		}
	})
}

func TestEqualRunsConverge(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, k := history(t)
		v := rapid.Int64Range(1, 1e9).Draw(t, "run time")
		for range 40 {
			h.Observe(k, v)
		}
		for range 128 {
			h.Observe(k, v)
		}
		if p := h.Predict(k, 0, nothing, 0); p.Q50 != v || p.Q90 != v {
			t.Fatalf("after a hundred runs of %d: %+v", v, p)
		}
	})
}

func TestMemoryIsBounded(t *testing.T) {
	var h predict.History
	keep := predict.NewKey("kept", "job", 1)
	for i := range 60_000 {
		h.Observe(predict.NewKey(fmt.Sprintf("user%d", i), "job", 1), minute)
		if i%1000 == 0 {
			h.Observe(keep, 77*minute)
		}
	}
	if n := h.Groups(); n > 8192 {
		t.Errorf("%d groups are remembered", n)
	}
	if p := h.Predict(keep, 0, nothing, 0); p.Q50 != 77*minute {
		t.Errorf("a key in use was forgotten: %+v", p)
	}
	if p := h.Predict(predict.NewKey("user1", "job", 1), 0, nothing, 0); p.From == "runs of this job" {
		t.Errorf("the oldest key is still known: %+v", p)
	}
}

// naive is the Gittins index by its definition, over every slice that ends at a run time.
func naive(runs []float64, age float64) float64 {
	best := 0.0
	for _, end := range runs {
		if end <= age {
			continue
		}
		ends, service := 0.0, 0.0
		for _, v := range runs {
			if v <= age {
				continue
			}
			if v <= end {
				ends++
			}
			service += min(v, end) - age
		}
		best = max(best, ends/service)
	}
	return best
}

func TestGittinsByItsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h predict.History
		k := predict.NewKey("a", "x", 1)
		var runs []float64
		for range rapid.IntRange(1, 60).Draw(t, "runs") {
			v := rapid.Int64Range(1, 1000).Draw(t, "run")
			h.Observe(k, v)
			runs = append(runs, float64(v))
		}
		age := rapid.Int64Range(0, int64(slices.Max(runs))-1).Draw(t, "age")
		alive := 0
		for _, v := range runs {
			if v > float64(age) {
				alive++
			}
		}
		if got, want := h.After(k, age).Gittins(), naive(runs, float64(age)); alive > 1 && math.Abs(got-want) > 1e-9*want {
			t.Fatalf("got %g, want %g", got, want)
		}
	})
}

// Jobs that mostly end at once lose their claim with age; jobs of one known length gain.
func TestGittinsOrders(t *testing.T) {
	var h predict.History
	short, fixed := predict.NewKey("a", "short", 1), predict.NewKey("b", "fixed", 1)
	for i := range 30 {
		h.Observe(short, []int64{minute, minute, 600 * minute}[i%3])
		h.Observe(fixed, 100*minute)
	}
	if h.After(short, 0).Gittins() <= h.After(fixed, 0).Gittins() {
		t.Error("a job that ends within a minute two times of three does not go first")
	}
	if h.After(short, 2*minute).Gittins() >= h.After(fixed, 2*minute).Gittins() {
		t.Error("having outlived its minute it still goes before a job of a hundred minutes")
	}
	if h.After(fixed, 90*minute).Gittins() <= h.After(fixed, 10*minute).Gittins() {
		t.Error("a job near its known end has no higher index")
	}
}

func BenchmarkPredict(b *testing.B) {
	var h predict.History
	for i := range 5000 {
		h.Observe(predict.NewKey(fmt.Sprintf("u%d", i%50), fmt.Sprintf("job%c-%d", 'a'+i%7, i), 1<<(i%4)), int64(i*7919%1_000_003))
	}
	k := predict.NewKey("u3", "jobd-9", 8)
	b.ReportAllocs()
	for b.Loop() {
		h.Predict(k, 1000, nothing, 0)
	}
}

func BenchmarkObserve(b *testing.B) {
	var h predict.History
	k := predict.NewKey("u3", "jobd-9", 8)
	for i := 0; b.Loop(); i++ {
		h.Observe(k, int64(i*7919%1_000_003))
	}
}
