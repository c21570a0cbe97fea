package forecast_test

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/forecast"
)

const (
	every  = 30.0 // seconds between samples
	minute = 60.0
	hour   = 3600.0
)

// feed observes value(t) from 0 for so many samples and gives the time of the last.
func feed(s *forecast.Series, samples int, value func(t float64) float64) float64 {
	t := 0.0
	for i := range samples {
		t = float64(i) * every
		s.Observe(t, value(t))
	}
	return t
}

// noise gives independent normal values of deviation one from a seed.
func noise(seed uint64) func() float64 {
	r := rand.New(rand.NewPCG(seed, 1))
	return r.NormFloat64
}

// The mission's models, without noise: 110 cores, 110 GB, 15 units of scheduling at T = 100.
func TestTheMissionsExample(t *testing.T) {
	for _, c := range []struct {
		zero, slope, want float64
	}{{10, 1, 110}, {10, 1, 110}, {10, 0.05, 15}} {
		s := forecast.New(forecast.Prior{})
		for T := 0.0; T <= 60; T++ {
			s.Observe(T, c.zero+c.slope*T)
		}
		got := s.Predict(100)
		if math.Abs(got.Mean-c.want) > 0.01*c.want || got.Lo > c.want || got.Hi < c.want {
			t.Errorf("%g + %g T at 100: got %+v, want %g", c.zero, c.slope, got, c.want)
		}
		if !s.Significant() {
			t.Errorf("%g + %g T: the slope is not significant: %+v", c.zero, c.slope, s.Line())
		}
	}
}

func TestLineIsRecovered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		zero := rapid.Float64Range(1, 1e12).Draw(t, "zero")
		growth := rapid.Float64Range(0.5, 50).Draw(t, "growth per hour, of zero")
		share := rapid.Float64Range(0, 0.02).Draw(t, "noise, of zero")
		draw := noise(rapid.Uint64().Draw(t, "seed"))
		s := forecast.New(forecast.Prior{})
		end := feed(&s, 240, func(x float64) float64 {
			return zero*(1+growth*x/hour) + zero*share*draw()
		})
		if !s.Significant() {
			t.Fatalf("the slope is not significant: %+v", s.Line())
		}
		want := zero * (1 + growth*(end+30*minute)/hour)
		if got := s.Predict(end + 30*minute); math.Abs(got.Mean-want) > 0.15*want {
			t.Fatalf("in half an hour: got %+v, want %g", got, want)
		}
	})
}

// Samples may come once a second or once a day.
func TestAnySpacing(t *testing.T) {
	for _, gap := range []float64{0.01, 1, minute, hour, 24 * hour, 30 * 24 * hour} {
		s := forecast.New(forecast.Prior{})
		for i := range 60 {
			s.Observe(float64(i)*gap, 10+float64(i))
		}
		if got := s.Predict(100 * gap); !s.Significant() || math.Abs(got.Mean-110) > 0.5 {
			t.Errorf("one sample in %g s: significant %v, %+v, want 110; %+v", gap, s.Significant(), got, s.Line())
		}
	}
}

// One level with independent noise, 200 seeds: the slope is called significant hardly ever,
// and the interval covers what comes.
func TestNoiseIsNoSlope(t *testing.T) {
	false1, passed, trials := 0, 0, 200
	for seed := range trials {
		draw := noise(uint64(seed))
		s := forecast.New(forecast.Prior{})
		end := feed(&s, 300, func(float64) float64 { return 100 + 3*draw() })
		if s.Significant() {
			false1++
		}
		if v := 100 + 3*draw(); v > s.Predict(end+hour).Hi {
			passed++
		}
	}
	if false1 > trials/20 {
		t.Errorf("%d of %d flat series are said to have a slope", false1, trials)
	}
	if passed > trials/20 {
		t.Errorf("%d of %d values pass the upper bound of 99 %%", passed, trials)
	}
}

// Noise that resembles its neighbours drifts like a slope: the correction must hold it back.
func TestDriftingNoiseIsRarelyASlope(t *testing.T) {
	wrong, trials := 0, 200
	for seed := range trials {
		draw, x := noise(uint64(seed)), 0.0
		s := forecast.New(forecast.Prior{})
		feed(&s, 400, func(float64) float64 {
			x = 0.8*x + draw()
			return 100 + x
		})
		if s.Significant() {
			wrong++
		}
	}
	if wrong > trials/8 {
		t.Errorf("%d of %d drifting series are said to have a slope", wrong, trials)
	}
}

func TestOneOutlierChangesNothing(t *testing.T) {
	draw := noise(7)
	s := forecast.New(forecast.Prior{})
	end := feed(&s, 200, func(x float64) float64 { return 100 + 10*x/hour + draw() })
	before := s.Predict(end + hour)
	s.Observe(end+every, 10_000)
	s.Observe(end+2*every, 100+10*(end+2*every)/hour)
	after := s.Predict(end + hour)
	if changes, _, _ := s.Phase(); changes != 0 || math.Abs(after.Mean-before.Mean) > 2 {
		t.Errorf("after one outlier: %d changes of phase, the mean went from %g to %g", changes, before.Mean, after.Mean)
	}
}

func TestPhaseChange(t *testing.T) {
	draw := noise(3)
	s := forecast.New(forecast.Prior{})
	end := feed(&s, 400, func(x float64) float64 {
		if x < 200*every { // warm-up: grows fast
			return 10 + 60*x/hour + 0.5*draw()
		}
		return 110 + 0.5*draw() // steady
	})
	changes, start, _ := s.Phase()
	if changes != 1 || math.Abs(start-200*every) > 5*every {
		t.Errorf("got %d changes, the last at %g s, want one near %g s", changes, start, 200*every)
	}
	if got := s.Predict(end + 10*hour); s.Significant() || math.Abs(got.Mean-110) > 1 {
		t.Errorf("after the warm-up: significant %v, %+v, want a level of 110", s.Significant(), got)
	}
}

// A disk that takes a checkpoint of 20 every ten minutes, and nothing between.
func TestStaircase(t *testing.T) {
	draw := noise(5)
	stairs := func(x float64) float64 { return 5 + 20*math.Floor(x/(10*minute)) }
	s := forecast.New(forecast.Prior{})
	end := feed(&s, 150, func(x float64) float64 { return stairs(x) + 0.05*draw() })
	if !s.Significant() {
		t.Fatal("a staircase is not significant")
	}
	for ahead := every; ahead <= 2*hour; ahead += every {
		got, want := s.Predict(end+ahead), stairs(end+ahead)
		if got.Hi < want || math.Abs(got.Mean-want) > 25 || got.Hi > want+70 {
			t.Fatalf("%g s ahead: got %+v, want %g", ahead, got, want)
		}
	}
}

func TestColdStart(t *testing.T) {
	s := forecast.New(forecast.Prior{Level: 8, Slope: 2, Spread: 1, Jobs: 5, Request: 32})
	if got := s.Predict(2 * hour); got.Mean != 12 || got.Hi != 32 {
		t.Errorf("before any sample: %+v, want 8 + 2*2 under the request of 32", got)
	}
	feed(&s, 10, func(float64) float64 { return 20 })
	if got := s.Predict(9*every + hour); math.Abs(got.Mean-22) > 0.1 || got.Hi != 32 {
		t.Errorf("after ten samples at 20: %+v, want 22 under 32", got)
	}
	s.Observe(300, 40)
	if got := s.Predict(300); got.Hi < 40 {
		t.Errorf("what was seen is above the request: %+v", got)
	}
	feed(&s, 100, func(float64) float64 { return 20 })
	none := forecast.New(forecast.Prior{})
	if got := none.Predict(hour); got.Mean != 0 || got.Hi != 0 {
		t.Errorf("nothing is known: %+v", got)
	}
}

// Whatever is observed, predictions are ordered finite numbers, and bad samples leave no trace.
func TestPredictionsAreInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := forecast.New(forecast.Prior{Request: rapid.Float64Range(0, 1e9).Draw(t, "request")})
		x := 0.0
		for range rapid.IntRange(0, 300).Draw(t, "samples") {
			x += rapid.Float64Range(-10, 1e4).Draw(t, "gap")
			s.Observe(x, rapid.OneOf(rapid.Float64Range(0, 1e12), rapid.Just(0.0), rapid.Just(math.NaN()),
				rapid.Just(math.Inf(1)), rapid.Just(-1.0), rapid.Float64Range(1e3, 1.1e3)).Draw(t, "value"))
		}
		got := s.Predict(rapid.Float64Range(0, 1e7).Draw(t, "at"))
		for _, v := range []float64{got.Mean, got.Lo, got.Hi, got.Sigma} {
			if math.IsNaN(v) || math.IsInf(v, 0) || v < 0 {
				t.Fatalf("got %+v", got)
			}
		}
		if got.Lo > got.Mean || got.Mean > got.Hi {
			t.Fatalf("out of order: %+v", got)
		}
	})
}

// The same series in another unit gives the same decisions.
func TestUnitsDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, slope := rapid.Uint64().Draw(t, "seed"), rapid.Float64Range(0, 20).Draw(t, "slope")
		a, b := forecast.New(forecast.Prior{}), forecast.New(forecast.Prior{})
		draw := noise(seed)
		end := feed(&a, 200, func(x float64) float64 { return 50 + slope*x/hour + draw() })
		draw = noise(seed)
		const unit = 1 << 30
		feed(&b, 200, func(x float64) float64 { return unit * (50 + slope*x/hour + draw()) })
		p, q := a.Predict(end+hour), b.Predict(end+hour)
		if a.Significant() != b.Significant() || math.Abs(q.Hi/unit-p.Hi) > 1e-6*p.Hi {
			t.Fatalf("in cores %+v, in bytes %+v", p, q)
		}
	})
}

// A long series must not lose its fit to rounding or to a covariance wound up.
func TestLongSeriesStaysSound(t *testing.T) {
	draw := noise(11)
	s := forecast.New(forecast.Prior{})
	end := feed(&s, 200_000, func(x float64) float64 { return 50 + 0.5*x/hour + draw() })
	want := 50 + 0.5*(end+hour)/hour
	if got := s.Predict(end + hour); math.Abs(got.Mean-want) > 2 || got.Sigma > 6 {
		t.Errorf("after 200,000 samples: %+v, want %g", got, want)
	}
}

func TestSeriesIsAValue(t *testing.T) {
	a := forecast.New(forecast.Prior{})
	end := feed(&a, 50, func(float64) float64 { return 5 })
	b := a
	b.Observe(end+1, 1000)
	if a.Predict(end) == b.Predict(end) || a.Samples() != 50 {
		t.Error("a copy shares state with its original")
	}
}

func BenchmarkObserve(b *testing.B) {
	draw := noise(1)
	values := make([]float64, 1024)
	for i := range values {
		values[i] = 100 + draw()
	}
	s := forecast.New(forecast.Prior{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		s.Observe(float64(i)*every, values[i%len(values)])
	}
}
