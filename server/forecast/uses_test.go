package forecast_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/forecast"
)

var never = math.Inf(1)

// A job that ends in an hour holds 60 of 100; one that grows from 20 by 20 an hour fits
// beside it and after it, where the sum of the peaks (60 + 100) would refuse it.
func TestAreaAdmission(t *testing.T) {
	ending := forecast.Demand{Job: "ending", Curve: forecast.Flat(60), Finish: hour}
	growing := forecast.Demand{Job: "growing", Curve: forecast.Growing{Intercept: 20, Slope: 20 / hour}, Finish: 4 * hour}
	if ok, why := forecast.Admits(100, []forecast.Demand{ending}, growing, 0, 10*hour, forecast.Risk{}); !ok {
		t.Errorf("refused: %+v", why)
	}
	ending.Finish = 1.5 * hour
	growing.Curve = forecast.Growing{Intercept: 20, Slope: 30 / hour}
	ok, why := forecast.Admits(100, []forecast.Demand{ending}, growing, 0, 10*hour, forecast.Risk{})
	if ok || why.At != 1.5*hour || why.Sum != 125 {
		t.Errorf("got %v %+v, want a refusal at the finish of the first with 125", ok, why)
	}
	over := forecast.Demand{Job: "over", Curve: forecast.Flat(200), Finish: never}
	late := forecast.Demand{Job: "late", Curve: forecast.Flat(10), From: hour, Finish: 2 * hour}
	if ok, _ := forecast.Admits(100, []forecast.Demand{over}, late, 0, 10*hour, forecast.Risk{}); ok {
		t.Error("admitted to a node that is over its capacity throughout")
	}
	over.Finish = 0.5 * hour
	if ok, why := forecast.Admits(100, []forecast.Demand{over}, late, 0, 10*hour, forecast.Risk{}); !ok {
		t.Errorf("refused for what is over before it comes: %+v", why)
	}
}

// demands draws jobs with flat and growing demand on a node.
func demands(t *rapid.T) []forecast.Demand {
	out := make([]forecast.Demand, rapid.IntRange(0, 6).Draw(t, "jobs"))
	for i := range out {
		out[i] = demand(t, fmt.Sprintf("job-%d", i))
	}
	return out
}

func demand(t *rapid.T, name string) forecast.Demand {
	d := forecast.Demand{Job: name, Finish: rapid.Float64Range(1, 10*hour).Draw(t, name+" finish"),
		Lost: rapid.Float64Range(0, 100).Draw(t, name+" lost"), Pinned: rapid.Bool().Draw(t, name+" pinned"),
		From: rapid.Float64Range(0, 3*hour).Draw(t, name+" from")}
	if rapid.Bool().Draw(t, name+" runs") {
		d.From = 0
	}
	d.Curve = forecast.Growing{Intercept: rapid.Float64Range(0, 40).Draw(t, name+" at first"),
		Slope: rapid.Float64Range(-10, 20).Draw(t, name+" growth") / hour, Sigma: rapid.Float64Range(0, 5).Draw(t, name+" noise")}
	if rapid.Bool().Draw(t, name+" is fitted") { // flat, sloped, stepped or cold, as it comes
		draw, s := noise(rapid.Uint64().Draw(t, name+" seed")), forecast.New(forecast.Prior{Request: 30})
		slope, step := rapid.SampledFrom([]float64{0, 0, -4, 9}).Draw(t, name+" slope"), rapid.SampledFrom([]float64{0, 3}).Draw(t, name+" step")
		feed(&s, rapid.IntRange(0, 200).Draw(t, name+" samples"), func(x float64) float64 {
			return 20 + slope*x/hour + step*math.Floor(x/(20*minute)) + 0.1*draw()
		})
		d.Curve, d.Start = &s, -100*minute
	}
	return d
}

// Area admission agrees with a check at every minute.
func TestAdmissionAgainstEveryMinute(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		running, candidate := demands(t), demand(t, "candidate")
		risk := forecast.Risk{Together: rapid.SampledFrom([]float64{0, 2.33}).Draw(t, "z")}
		const capacity, horizon = 100.0, 8 * hour
		ok, _ := forecast.Admits(capacity, running, candidate, 0, horizon, risk)
		if !ok {
			return
		}
		for x := 0.0; x <= horizon; x += minute {
			if x < candidate.From || x > candidate.Finish {
				continue
			}
			var parts []forecast.Interval
			for _, d := range append(slices.Clone(running), candidate) {
				if x >= d.From && x <= d.Finish {
					parts = append(parts, d.Curve.Predict(x-d.Start))
				}
			}
			sum := forecast.ChanceSum(parts, risk.Together)
			if risk.Together == 0 {
				sum = 0
				for _, p := range parts {
					sum += p.Hi
				}
			}
			if sum > capacity+1e-6 {
				t.Fatalf("admitted, and at %g s the sum is %g", x, sum)
			}
		}
	})
}

// More capacity never turns an admission into a refusal, nor does one job less.
func TestAdmissionIsMonotone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		running, candidate := demands(t), demand(t, "candidate")
		capacity := rapid.Float64Range(0, 300).Draw(t, "capacity")
		if ok, _ := forecast.Admits(capacity, running, candidate, 0, 8*hour, forecast.Risk{}); !ok {
			return
		}
		if ok, _ := forecast.Admits(capacity+1, running, candidate, 0, 8*hour, forecast.Risk{}); !ok {
			t.Fatal("refused with more capacity")
		}
		if len(running) > 0 {
			if ok, why := forecast.Admits(capacity, running[1:], candidate, 0, 8*hour, forecast.Risk{}); !ok {
				t.Fatalf("refused with one job less: %+v", why)
			}
		}
	})
}

func TestChanceSum(t *testing.T) {
	parts := make([]forecast.Interval, 25)
	for i := range parts {
		parts[i] = forecast.Growing{Intercept: 10, Sigma: 2}.Predict(0)
	}
	if got := forecast.ChanceSum(parts, 2.326); math.Abs(got-(250+2.326*10)) > 0.01 {
		t.Errorf("25 demands of 10 with a deviation of 2: got %g, want 273.26", got)
	}
	together := make([]forecast.Demand, 25)
	for i := range together {
		together[i] = forecast.Demand{Job: fmt.Sprint(i), Curve: forecast.Growing{Intercept: 10, Sigma: 2}, Finish: never}
	}
	one := forecast.Demand{Job: "one", Curve: forecast.Flat(20), Finish: never}
	if ok, _ := forecast.Admits(300, together, one, 0, hour, forecast.Risk{}); ok {
		t.Error("the sum of the upper bounds (366 + 20) fits in 300")
	}
	if ok, why := forecast.Admits(300, together, one, 0, hour, forecast.Risk{Together: 2.326}); !ok {
		t.Errorf("the chance-constrained sum (293) does not fit in 300: %+v", why)
	}
}

func TestExhaustion(t *testing.T) {
	base := []forecast.Demand{
		{Job: "flat", Curve: forecast.Flat(50), Finish: never, Lost: 1000},
		{Job: "leak", Curve: forecast.Growing{Intercept: 20, Slope: 30 / hour}, Finish: never, Lost: 40},
		{Job: "small", Curve: forecast.Flat(5), Finish: never, Lost: 1},
	}
	out := forecast.Exhaustion(100, base, 0, 30*minute, 5*hour)
	if want := 25.0 / 30 * hour; math.Abs(out.At-want) > 1 || len(out.Move) != 0 {
		t.Errorf("got %+v, want exhaustion at %g s and nothing to move yet", out, want)
	}
	out = forecast.Exhaustion(100, base, 40*minute, 30*minute, 5*hour)
	if !out.Enough || !slices.Equal(out.Move, []string{"leak"}) || out.Lost != 40 {
		t.Errorf("ten minutes before: %+v, want the leaking job moved: moving the small one does not last", out)
	}
	base[1].Pinned = true
	out = forecast.Exhaustion(100, base, 40*minute, 30*minute, 2*hour)
	if !slices.Equal(out.Move, []string{"flat"}) {
		t.Errorf("with the leaking job pinned: %+v, want the large one moved", out)
	}
	base[0].Pinned = true
	if out = forecast.Exhaustion(100, base, 40*minute, 30*minute, 5*hour); out.Enough || out.Move != nil {
		t.Errorf("nothing that may move helps: %+v", out)
	}
	if out = forecast.Exhaustion(1000, base, 0, hour, 5*hour); !math.IsInf(out.At, 1) || !math.IsInf(out.Soonest, 1) {
		t.Errorf("nothing runs out: %+v", out)
	}
}

// The set to move is enough, and no cheaper one is; greed (beyond twelve jobs) at least is enough.
func TestMovesAreEnoughAndCheap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := demands(t)
		for range rapid.SampledFrom([]int{0, 12}).Draw(t, "more") {
			all = append(all, demand(t, fmt.Sprintf("more-%d", len(all))))
		}
		const capacity, horizon = 80.0, 6 * hour
		out := forecast.Exhaustion(capacity, all, 0, horizon, horizon)
		without := func(gone []string) []forecast.Demand {
			return slices.DeleteFunc(slices.Clone(all), func(d forecast.Demand) bool { return slices.Contains(gone, d.Job) })
		}
		if out.Soonest > out.At {
			t.Fatalf("the upper bound crosses after the mean: %+v", out)
		}
		if !out.Enough {
			return
		}
		after := forecast.Exhaustion(capacity, without(out.Move), 0, 0, horizon)
		if !math.IsInf(after.Soonest, 1) {
			t.Fatalf("after moving %v it runs out at %g", out.Move, after.Soonest)
		}
		for _, d := range all {
			if d.Pinned && slices.Contains(out.Move, d.Job) {
				t.Fatalf("%s is pinned", d.Job)
			}
			one := forecast.Profile(capacity, without([]string{d.Job}), 0, horizon, forecast.Risk{})
			fits := !slices.ContainsFunc(one, func(f forecast.Free) bool { return f.Amount < 0 })
			if len(all) <= 12 && !d.Pinned && d.Lost < out.Lost-1e-9 && fits {
				t.Fatalf("moving %s alone loses %g, moving %v loses %g", d.Job, d.Lost, out.Move, out.Lost)
			}
		}
	})
}

func TestProfileShrinksUnderAGrowingJob(t *testing.T) {
	free := forecast.Profile(100, []forecast.Demand{
		{Job: "grows", Curve: forecast.Growing{Intercept: 10, Slope: 10 / hour}, Finish: 4 * hour},
		{Job: "ends", Curve: forecast.Flat(50), Finish: hour},
	}, 0, 8*hour, forecast.Risk{})
	want := []forecast.Free{{At: 0, Amount: 30}, {At: hour, Amount: 50}, {At: 4 * hour, Amount: 100}}
	if !slices.Equal(free, want) {
		t.Errorf("got %v, want %v", free, want)
	}
}

func TestBatch(t *testing.T) {
	draw := noise(1)
	var w forecast.Work
	if got := forecast.Batch(&w, 0.05, 5000); got != 5000 {
		t.Errorf("with nothing known: %d", got)
	}
	for i := range 200 { // 2 ms and 10 us a job
		jobs := float64(100 + i*37%3000)
		w.Observe(jobs, 0.002+jobs*10e-6+0.0005*math.Abs(draw()))
	}
	got := forecast.Batch(&w, 0.05, 100_000)
	if got < 4000 || got > 4900 {
		t.Errorf("in 50 ms at 2 ms + 10 us a job: %d jobs, want a little below 4,800", got)
	}
	if hi := w.Predict(float64(got)).Hi; hi > 0.05 {
		t.Errorf("the upper bound of %d jobs is %g s", got, hi)
	}
	if got := forecast.Batch(&w, 0.0001, 100); got != 1 {
		t.Errorf("with no time at all: %d, want 1", got)
	}
	if f := w.Line(); math.Abs(f.Slope-10e-6) > 1e-6 || math.Abs(f.Intercept-0.0024) > 0.001 {
		t.Errorf("the fit is %+v", f)
	}
}

func TestPriors(t *testing.T) {
	var p forecast.Priors
	learn := func(user, program string, level, growth float64, jobs int) {
		for job := range jobs {
			draw := noise(uint64(job))
			s := forecast.New(forecast.Prior{})
			feed(&s, 100, func(x float64) float64 { return level + growth*x/hour + 0.01*level*draw() })
			p.Learn(forecast.Key{User: user, Program: program, Shape: "8xH100"}, forecast.HostMemory, &s)
		}
	}
	learn("ann", "llama", 100, 40, 20)
	learn("bob", "llama", 10, 0, 20)
	own := p.For(forecast.Key{User: "ann", Program: "llama", Shape: "8xH100"}, forecast.HostMemory, 256)
	if math.Abs(own.Level-100) > 12 || math.Abs(own.Slope-40) > 6 || own.Jobs != 20 || own.Request != 256 {
		t.Errorf("ann's own: %+v", own)
	}
	other := p.For(forecast.Key{User: "eve", Program: "llama"}, forecast.HostMemory, 0)
	if math.Abs(other.Level-55) > 10 || other.Jobs != 40 {
		t.Errorf("a new user of the same program: %+v, want the mean of both", other)
	}
	if none := p.For(forecast.Key{User: "ann"}, forecast.Disk, 7); none.Jobs != 0 || none.Request != 7 {
		t.Errorf("another resource: %+v", none)
	}
	s := forecast.New(own)
	if got := s.Predict(hour); got.Mean < 120 || got.Hi != 256 {
		t.Errorf("before the first sample: %+v", got)
	}
}

func TestResourceWords(t *testing.T) {
	for _, r := range forecast.Resources() {
		if back, ok := forecast.ParseResource(r.String()); !ok || back != r {
			t.Errorf("%v does not survive its own word", r)
		}
	}
	if _, ok := forecast.ParseResource("gpus"); ok {
		t.Error("gpus is no resource of a forecast")
	}
}
