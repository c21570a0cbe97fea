package elastic

import (
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

var adaptive = Limits{GPUsMin: 1, BatchMin: 128, BatchMax: 4096, LocalMin: 32, LocalMax: 1024}

// typical is a job that scales well on a node and less well across.
var typical = Throughput{GradBase: 0.02, GradSample: 0.0005, SyncBase: 0.02, SyncMore: 0.001, AcrossBase: 0.06, AcrossMore: 0.001, Gamma: 1.5}

func profiled(t Throughput) Profile {
	var p Profile
	for _, c := range [][3]int{{1, 1, 64}, {1, 1, 128}, {1, 2, 64}, {1, 4, 64}, {1, 4, 128}, {2, 8, 64}, {4, 16, 64}, {4, 16, 128}} {
		p = p.Observe(measure(t, c[0], c[1], c[2]))
	}
	return p
}

// TestBestAgainstAll compares the search with a look at every total batch.
func TestBestAgainstAll(t *testing.T) {
	p := profiled(typical)
	rapid.Check(t, func(t *rapid.T) {
		noise := Noise{Sqr: 1, Var: math.Exp(rapid.Float64Range(-2, 6).Draw(t, "log noise"))}
		gpus := rapid.SampledFrom([]int{1, 2, 3, 4, 8, 12, 16}).Draw(t, "gpus")
		nodes := (gpus + 3) / 4
		s, rate, ok := Best(&p, noise, adaptive, nodes, gpus)
		if !ok || s.Local < adaptive.LocalMin || s.Local > adaptive.LocalMax || s.Batch(gpus) > adaptive.BatchMax {
			t.Fatalf("split %+v on %d GPUs breaks the limits", s, gpus)
		}
		all := trial{profile: &p, noise: noise, lim: adaptive, gpus: gpus, sync: p.Fit.sync(nodes, gpus), slower: p.slower(nodes, gpus)}
		for total := max(adaptive.BatchMin, adaptive.LocalMin*gpus); total <= adaptive.BatchMax; total++ {
			all.try(total)
		}
		if rate < 0.97*all.rate {
			t.Fatalf("%d GPUs, noise %v: found %+v with %.3f, best is %+v with %.3f", gpus, noise, s, rate, all.best, all.rate)
		}
	})
}

func TestNoiseWidensTheBatch(t *testing.T) {
	p := profiled(typical)
	last := 0
	for _, v := range []float64{0.1, 1, 10, 100, 1000} {
		s, _, _ := Best(&p, Noise{Sqr: 1, Var: v}, adaptive, 4, 16)
		if s.Batch(16) < last {
			t.Errorf("noise %v: batch %d, with less noise it was %d", v, s.Batch(16), last)
		}
		last = s.Batch(16)
	}
	if s, _, _ := Best(&p, Noise{}, adaptive, 4, 16); s.Batch(16) != 512 {
		t.Errorf("without noise the batch is %d, want the smallest that 16 GPUs divide", s.Batch(16))
	}
}

func TestDivide(t *testing.T) {
	bert := Limits{BatchMin: 12, BatchMax: 384, LocalMin: 4, LocalMax: 12}
	for _, c := range []struct {
		name        string
		lim         Limits
		total, gpus int
		want        Split
		ok          bool
	}{
		{"accumulates and stays below the largest batch", bert, 384, 6, Split{10, 5}, true},
		{"as it comes", adaptive, 2048, 6, Split{342, 0}, true},
		{"one GPU accumulates above the initial batch", adaptive, 256, 1, Split{128, 1}, true},
		{"one GPU at the initial batch", adaptive, 128, 1, Split{128, 0}, true},
		{"too many GPUs for the batch", bert, 12, 4, Split{3, 0}, false},
	} {
		if got, ok := Divide(c.total, c.gpus, c.lim); got != c.want || ok != c.ok {
			t.Errorf("%s: %d on %d GPUs gives %+v, %v, want %+v, %v", c.name, c.total, c.gpus, got, ok, c.want, c.ok)
		}
	}
}

func TestSizes(t *testing.T) {
	for _, c := range []struct {
		per, nodes int
		lim        Limits
		want       []int
	}{
		{4, 4, Limits{GPUsMin: 1}, []int{1, 2, 3, 4, 8, 12, 16}},
		{8, 2, Limits{GPUsMin: 2, GPUsMax: 8}, []int{2, 3, 4, 5, 6, 7, 8}},
		{4, 4, Limits{GPUsMin: 6, GPUsMax: 12}, []int{8, 12}},
		{4, 1, Limits{GPUsMin: 6}, nil},
	} {
		if got := Sizes(c.per, c.nodes, c.lim); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d nodes of %d, %+v: sizes %v, want %v", c.nodes, c.per, c.lim, got, c.want)
		}
	}
}

// TestFixedJob follows a job that reports nothing but its steps.
func TestFixedJob(t *testing.T) {
	lim := FixedLimits(2, 8)
	var p Profile
	p = p.Observe(FixedObservation(1, 2, 1.0))
	c := NewCurve(&p, Noise{}, lim, 8, 1)
	if len(c.Sizes) != 7 || c.Fresh {
		t.Fatalf("sizes of a job of 2..8: %+v", c)
	}
	if two, eight := c.at(2).Speed, c.at(8).Speed; math.Abs(two-1) > 0.01 || eight < 1.2 || eight > 4 {
		t.Errorf("after a step of 1 s on 2 GPUs: %.2f steps/s on 2, %.2f on 8", two, eight)
	}
	p = p.Observe(FixedObservation(1, 4, 0.55)).Observe(FixedObservation(1, 8, 0.5))
	c = NewCurve(&p, Noise{}, lim, 8, 1)
	for gpus, want := range map[int]float64{2: 1, 4: 1 / 0.55, 8: 2} {
		if got := c.at(gpus).Speed; math.Abs(got-want) > 0.01*want {
			t.Errorf("%d GPUs were measured at %.3f steps/s, predicted %.3f", gpus, want, got)
		}
	}
	if c.at(6).Speed < c.at(4).Speed*0.95 || c.at(6).Speed > c.at(8).Speed*1.2 {
		t.Errorf("6 GPUs are predicted at %.3f steps/s, between %.3f and %.3f", c.at(6).Speed, c.at(4).Speed, c.at(8).Speed)
	}
}

func TestRemaining(t *testing.T) {
	for _, c := range []struct {
		done, total, began float64
		epoch, epochs      int
		want               float64
	}{
		{30, 100, 0, 0, 0, 70},
		{130, 100, 0, 0, 0, 0},
		{25, 0, 20, 2, 10, 75},
		{5, 0, 0, 0, 10, 95},
		{5, 0, 0, 0, 0, -1},
	} {
		if got := Remaining(c.done, c.total, c.began, c.epoch, c.epochs); got != c.want {
			t.Errorf("%+v: %v steps left, want %v", c, got, c.want)
		}
	}
}
