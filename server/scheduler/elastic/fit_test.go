package elastic

import (
	"encoding/json"
	"math"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// measure gives what a job that follows the model exactly would report.
func measure(t Throughput, nodes, gpus, local int) Observation {
	sync := t.sync(nodes, gpus)
	grad := t.grad(float64(local))
	step := t.step(grad, sync)
	return Observation{Nodes: nodes, GPUs: gpus, Local: local, StepS: step, SyncS: step - grad}
}

// ran are configurations of a job that grew from one GPU to four nodes.
var ran = [][3]int{{1, 1, 16}, {1, 1, 32}, {1, 2, 32}, {1, 4, 32}, {1, 4, 64}, {2, 8, 32}, {2, 8, 64}, {4, 16, 32}, {4, 16, 128}}

func TestFitFollowsTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		within := func(name string, lo, hi float64) float64 {
			return math.Exp(rapid.Float64Range(math.Log(lo), math.Log(hi)).Draw(t, name))
		}
		truth := Throughput{GradBase: within("base", 0.01, 1), GradSample: within("sample", 1e-4, 1e-2),
			SyncBase: within("sync", 0.01, 0.5), AcrossBase: within("across", 0.01, 1), Gamma: within("gamma", 1, 4)}
		truth.SyncMore, truth.AcrossMore = truth.SyncBase*0.03, truth.AcrossBase*0.03
		var p Profile
		for _, c := range ran {
			p = p.Observe(measure(truth, c[0], c[1], c[2]))
		}
		for _, c := range append([][3]int{{1, 3, 48}, {3, 12, 64}, {8, 32, 64}}, ran...) {
			got := p.Fit.step(p.Fit.grad(float64(c[2])), p.Fit.sync(c[0], c[1]))
			want := measure(truth, c[0], c[1], c[2]).StepS
			if math.Abs(math.Log(got/want)) > 0.1 {
				t.Fatalf("%d GPUs on %d nodes with %d: predicted %.4f s, is %.4f s; fit %+v", c[1], c[0], c[2], got, want, p.Fit)
			}
		}
	})
}

// TestFitOfLittle checks what is assumed where nothing was measured.
func TestFitOfLittle(t *testing.T) {
	var p Profile
	p = p.Observe(Observation{Nodes: 1, GPUs: 1, Local: 32, StepS: 1, SyncS: 0})
	if g := p.Fit.grad(64); g < 1.4 || g > 1.6 {
		t.Errorf("one measurement: twice the batch takes %.2f, want half of it to be per sample", g)
	}
	p = p.Observe(Observation{Nodes: 1, GPUs: 4, Local: 32, StepS: 1.5, SyncS: 0.5})
	if inside, across := p.Fit.sync(1, 4), p.Fit.sync(2, 4); across < inside {
		t.Errorf("links between nodes are taken to be faster (%.3f s) than inside (%.3f s)", across, inside)
	}
}

func TestObserveAverages(t *testing.T) {
	var p Profile
	for _, s := range []float64{1, 2, 3} {
		p = p.Observe(Observation{Nodes: 1, GPUs: 2, Local: 8, StepS: s, SyncS: s / 2})
	}
	if len(p.Seen) != 1 || math.Abs(p.Seen[0].StepS-2) > 1e-12 || math.Abs(p.Seen[0].SyncS-1) > 1e-12 || p.Seen[0].Count != 3 {
		t.Errorf("three measurements of one configuration: %+v", p.Seen)
	}
	before := p
	for local := 1; local <= 2*observationsMax; local++ {
		p = p.Observe(Observation{Nodes: 1, GPUs: 1, Local: local, StepS: 1, SyncS: 0})
	}
	if len(p.Seen) != observationsMax {
		t.Errorf("a profile keeps %d configurations, want %d", len(p.Seen), observationsMax)
	}
	if len(before.Seen) != 1 {
		t.Errorf("a later measurement changed an earlier profile")
	}
}

func TestProfileIsPlain(t *testing.T) {
	var p, q Profile
	for _, c := range ran {
		p = p.Observe(Observation{Nodes: c[0], GPUs: c[1], Local: c[2], StepS: 1 / float64(c[1]), SyncS: -1})
	}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &q); err != nil || !reflect.DeepEqual(p, q) {
		t.Errorf("a stored profile comes back as %+v (%v), was %+v", q, err, p)
	}
}

// TestFitOfNonsense checks that no report, however wrong, gives a speed that is no number.
func TestFitOfNonsense(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var p Profile
		for range rapid.IntRange(1, 6).Draw(t, "reports") {
			p = p.Observe(Observation{Nodes: rapid.IntRange(-1, 3).Draw(t, "nodes"), GPUs: rapid.IntRange(-1, 9).Draw(t, "gpus"),
				Local: rapid.IntRange(-5, 100).Draw(t, "local"), StepS: rapid.Float64Range(-1, 1e9).Draw(t, "step"),
				SyncS: rapid.Float64Range(-1, 1e9).Draw(t, "sync")})
		}
		noise := Noise{Sqr: rapid.Float64().Draw(t, "sqr"), Var: rapid.Float64().Draw(t, "var")}
		c := NewCurve(&p, noise, adaptive, 4, 4)
		if len(c.Sizes) != 7 {
			t.Fatalf("sizes %+v; profile %+v", c.Sizes, p)
		}
		for _, s := range c.Sizes {
			if !(s.Speed > 0) || math.IsInf(s.Speed, 0) {
				t.Fatalf("%d GPUs: speed %v; profile %+v", s.GPUs, s.Speed, p)
			}
		}
	})
}
