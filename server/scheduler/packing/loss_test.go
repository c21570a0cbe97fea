package packing_test

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/packing"
)

const modelsDrawn = 3

func drawFleet(t *rapid.T) packing.Fleet {
	f := make(packing.Fleet, modelsDrawn)
	for m := range f {
		n := int64(rapid.IntRange(0, 200).Draw(t, "devices"))
		f[m] = packing.Capacity{Name: string(rune('A' + m)), GPUs: n, CPU: n * int64(rapid.IntRange(1, 16).Draw(t, "cores")) * 1000, Memory: n * 64}
	}
	return f
}

func drawMix(t *rapid.T) *packing.Mix {
	m := &packing.Mix{}
	for range rapid.IntRange(0, 12).Draw(t, "shapes") {
		m.Observe(drawShape(t, modelsDrawn), rapid.IntRange(1, 50).Draw(t, "tasks"))
	}
	m.Depart(rapid.IntRange(0, 200).Draw(t, "departures"))
	return m
}

// drawNode draws a node and a task that it admits.
func drawNode(t *rapid.T) (packing.Node, packing.Shape) {
	n := packing.Node{Model: rapid.IntRange(-1, modelsDrawn).Draw(t, "model")}
	for range rapid.IntRange(1, 8).Draw(t, "node devices") {
		free := rapid.SampledFrom([]int32{0, 40, 190, 250, 500, 540, 667, 1000, 1000, 1000}).Draw(t, "free")
		n.Free = append(n.Free, free)
	}
	s := drawShape(t, modelsDrawn)
	if s.Models = packing.Any; s.GPUs > 0 {
		fits := int32(0)
		for _, free := range n.Free {
			if free >= s.Share {
				fits++
			}
		}
		if s.GPUs = min(s.GPUs, fits); s.GPUs == 0 {
			s.Share = 0
		}
	}
	n.CPU = s.CPU + int64(rapid.IntRange(0, 100).Draw(t, "cpu left"))*1000
	return n, s
}

// TestLossIsSound: a loss is finite, the same every time and for devices in any order, and
// the device given is one that admits the task and loses least.
func TestLossIsSound(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fleet, mix := drawFleet(t), drawMix(t)
		prices := packing.Learn(mix, fleet)
		again := packing.Learn(mix, fleet)
		for range 8 {
			n, s := drawNode(t)
			loss, at := prices.Best(&s, &n, nil)
			if l, a := again.Best(&s, &n, nil); l != loss || a != at {
				t.Fatalf("learned twice: loss %d on device %d, then %d on %d", loss, at, l, a)
			}
			if most := int64(64 * packing.Device); loss > most || loss < -most {
				t.Fatalf("loss of %d billionths of a device for %+v on %+v", loss, s, n)
			}
			if got := prices.Loss(&s, &n, at); got != loss {
				t.Fatalf("Loss %d, Best %d", got, loss)
			}
			if shared := s.GPUs > 0 && s.Share < packing.Whole; shared != (at >= 0) {
				t.Fatalf("device %d for %+v", at, s)
			} else if shared {
				for i, free := range n.Free {
					if free >= s.Share && free < n.Free[at] {
						t.Fatalf("device %d is fuller than %d", i, at)
					}
				}
			}
			turned := packing.Node{Model: n.Model, CPU: n.CPU, Free: slices.Clone(n.Free)}
			slices.Reverse(turned.Free)
			l, a := prices.Best(&s, &turned, nil)
			if l != loss || (at >= 0 && turned.Free[a] != n.Free[at]) {
				t.Fatalf("with the devices in another order %d instead of %d", l, loss)
			}
		}
		for m := range fleet {
			if p := prices.Price[m]; p < 0 || p > 1 || math.IsNaN(p) || math.IsNaN(prices.Load[m]) || math.IsInf(prices.Load[m], 0) {
				t.Fatalf("price %v, load %v", p, prices.Load[m])
			}
		}
		if !prices.Converged {
			t.Fatalf("the programme of %d pivots did not converge", prices.Pivots)
		}
	})
}

// TestBestMindsAdmits: a device that may not be taken is not given.
func TestBestMindsAdmits(t *testing.T) {
	var mix packing.Mix
	s := packing.Shape{CPU: 1000, GPUs: 1, Share: 500, Models: packing.Any}
	mix.Observe(s, 10)
	prices := packing.Learn(&mix, packing.Fleet{{Name: "A", GPUs: 8, CPU: 64_000, Memory: 1}})
	n := packing.Node{CPU: 8000, Free: []int32{500, 500, 1000}}
	if _, at := prices.Best(&s, &n, []bool{false, true, true}); at != 1 {
		t.Errorf("device %d, want the half that may be taken", at)
	}
	if _, at := prices.Best(&s, &n, []bool{false, false, false}); at != -1 {
		t.Errorf("device %d although none may be taken", at)
	}
}

// TestSharesGoToTheFullest: of the devices of a node a share takes the fullest that admits it,
// whatever the rests are worth.
func TestSharesGoToTheFullest(t *testing.T) {
	small, large := packing.Shape{CPU: 1000, GPUs: 1, Share: 300, Models: packing.Any}, packing.Shape{CPU: 1000, GPUs: 1, Share: 600, Models: packing.Any}
	n := packing.Node{CPU: 64_000, Free: []int32{700, 600, 200, 1000}}
	var mix packing.Mix
	mix.Observe(small, 1)
	mix.Observe(large, 100)
	prices := packing.Learn(&mix, packing.Fleet{{Name: "A", GPUs: 80, CPU: 640_000, Memory: 1}})
	if _, at := prices.Best(&small, &n, nil); at != 1 {
		t.Errorf("device %d, want the fullest that admits it", at)
	}
	if _, at := prices.Best(&small, &n, []bool{true, false, true, true}); at != 0 {
		t.Errorf("device %d, want the fullest of those that may be taken", at)
	}
}

// TestNothingLearned: before anything arrived and without devices every place is as good.
func TestNothingLearned(t *testing.T) {
	for _, fleet := range []packing.Fleet{nil, {{Name: "A", GPUs: 8, CPU: 64_000}}, {{Name: "A"}}} {
		prices := packing.Learn(&packing.Mix{}, fleet)
		s := packing.Shape{CPU: 1000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
		a, _ := prices.Best(&s, &packing.Node{CPU: 2000, Free: []int32{1000}}, nil)
		b, _ := prices.Best(&s, &packing.Node{CPU: 64_000, Free: []int32{1000}}, nil)
		if a != b {
			t.Errorf("losses %d and %d by no knowledge", a, b)
		}
	}
}

// TestWhatTheTermsAreFor: each term alone decides as it is meant to.
func TestWhatTheTermsAreFor(t *testing.T) {
	fleet := packing.Fleet{{Name: "common", GPUs: 100, CPU: 800_000, Memory: 1}, {Name: "scarce", GPUs: 10, CPU: 80_000, Memory: 1}}
	any := packing.Shape{CPU: 8000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
	half := packing.Shape{CPU: 4000, GPUs: 1, Share: 500, Models: packing.Any}
	odd := packing.Shape{CPU: 4000, GPUs: 1, Share: 300, Models: packing.Any}
	eight := packing.Shape{CPU: 64_000, GPUs: 8, Share: packing.Whole, Models: packing.Any}
	only := packing.Shape{CPU: 8000, GPUs: 1, Share: packing.Whole, Models: 2}
	learn := func(departures int, shapes ...packing.Shape) *packing.Prices {
		var m packing.Mix
		for _, s := range shapes {
			m.Observe(s, 100)
		}
		m.Depart(departures)
		return packing.Learn(&m, fleet)
	}
	node := func(model int, cpu int64, free ...int32) *packing.Node {
		return &packing.Node{Model: model, CPU: cpu, Free: free}
	}
	for _, c := range []struct {
		name         string
		prices       *packing.Prices
		task         *packing.Shape
		better, than *packing.Node
	}{
		{"spare the model that others must have", learn(0, any, only), &any, node(0, 8000, 1000), node(1, 8000, 1000)},
		{"a device that lacks CPU is lost, so leave CPU to the others", learn(0, any), &any, node(0, 16_000, 1000, 1000), node(0, 15_000, 1000, 1000)},
		{"a task without devices does not take the CPU of idle ones", learn(0, any), &packing.Shape{CPU: 4000, Models: packing.Any},
			node(0, 64_000, 0, 0), node(0, 16_000, 1000, 1000)},
		{"a rest that fits what comes is better used by it", learn(0, half), &half, node(0, 64_000, 500, 0), node(0, 64_000, 700, 0)},
		{"the rest that a task leaves should fit another", learn(0, half, odd, odd), &odd, node(0, 64_000, 300, 0), node(0, 64_000, 500, 0)},
		{"where tasks come and go, nodes are kept whole", learn(300, any, eight), &any,
			node(0, 64_000, 0, 0, 0, 1000, 1000, 1000, 1000, 1000), node(0, 64_000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000)},
	} {
		good, _ := c.prices.Best(c.task, c.better, nil)
		bad, _ := c.prices.Best(c.task, c.than, nil)
		if good >= bad {
			t.Errorf("%s: loses %d there and %d elsewhere", c.name, good, bad)
		}
	}
	// The price of opening a node comes with the turnover.
	opening := func(p *packing.Prices) int64 {
		part, _ := p.Best(&any, node(0, 64_000, 0, 0, 0, 1000, 1000, 1000, 1000, 1000), nil)
		full, _ := p.Best(&any, node(0, 64_000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000), nil)
		return full - part
	}
	if filling, churning := opening(learn(0, any, eight)), opening(learn(300, any, eight)); churning < filling+packing.Device/2 {
		t.Errorf("opening a node costs %d while the cluster fills and %d where tasks come and go", filling, churning)
	}
}

// TestNothingAllocates: the hot path allocates nothing.
func TestNothingAllocates(t *testing.T) {
	var mix packing.Mix
	s := packing.Shape{CPU: 4000, GPUs: 1, Share: 500, Models: packing.Any}
	mix.Observe(s, 100)
	prices := packing.Learn(&mix, packing.Fleet{{Name: "A", GPUs: 8, CPU: 64_000, Memory: 1}})
	n := packing.Node{CPU: 64_000, Free: []int32{1000, 500, 300, 1000, 0, 0, 1000, 1000}}
	if got := testing.AllocsPerRun(100, func() { prices.Best(&s, &n, nil) }); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

func BenchmarkBestShared(b *testing.B) {
	var mix packing.Mix
	s := packing.Shape{CPU: 4000, GPUs: 1, Share: 300, Models: packing.Any}
	mix.Observe(s, 100)
	prices := packing.Learn(&mix, packing.Fleet{{Name: "A", GPUs: 8, CPU: 64_000, Memory: 1}})
	n := packing.Node{CPU: 64_000, Free: []int32{1000, 500, 300, 1000, 700, 0, 1000, 1000}}
	b.ReportAllocs()
	for b.Loop() {
		prices.Best(&s, &n, nil)
	}
}
