package main

import (
	"bytes"
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"

	"llmos/server/scheduler/packing"
)

// TestOrder: every seed gives its own order, always the same, of all pods first and then as
// many more as the check lets through.
func TestOrder(t *testing.T) {
	tr, l := sample(t, "sample")
	first, _ := order(l.pods, tr.capacity(), 42)
	again, _ := order(l.pods, tr.capacity(), 42)
	other, _ := order(l.pods, tr.capacity(), 43)
	if !slices.Equal(first, again) || slices.Equal(first[:20], other[:20]) {
		t.Error("an order is not its seed's")
	}
	demand := func(pods []pod) (sum int64) {
		for i := range pods {
			sum += pods[i].shape.Demand()
		}
		return sum
	}
	target := int64(tuneRatio * float64(tr.capacity()))
	if got := demand(first); len(first) <= len(l.pods) || got > target+7*packing.Whole || got < target-packing.Whole {
		t.Errorf("%d pods ask %d, want about %d", len(first), got, target)
	}
	names := map[string]bool{}
	for _, p := range first[:len(l.pods)] {
		names[p.name] = true
	}
	if len(names) != len(l.pods) {
		t.Errorf("%d of %d pods are in the first part", len(names), len(l.pods))
	}
	fewer, _ := order(l.pods, tr.capacity()/4, 42)
	if got := demand(fewer); got > target/4 || len(fewer) >= len(l.pods) {
		t.Errorf("thinned out to %d pods that ask %d", len(fewer), got)
	}
}

// TestPoliciesAreSound runs every policy and checks each placement against the cluster.
func TestPoliciesAreSound(t *testing.T) {
	tr, l := sample(t, "sample")
	arrivals, source := order(l.pods, tr.capacity(), 42)
	for _, name := range policies {
		p := newPlacer(name, tr, l, source)
		c := newCluster(tr)
		for i := range arrivals {
			s := &arrivals[i].shape
			node, device := p.place(c, s)
			if node < 0 {
				for at := range c.nodes {
					if c.nodes[at].admits(s) {
						t.Fatalf("%s: %+v is lost although node %d admits it", name, s, at)
					}
				}
				continue
			}
			n := &c.nodes[node]
			if !n.admits(s) || (s.GPUs > 0 && s.Share < packing.Whole && n.free[device] < s.Share) {
				t.Fatalf("%s: %+v on node %d, device %d", name, s, node, device)
			}
			c.take(node, device, s)
		}
	}
}

// TestBoundHolds: no policy allocates more than the bound, before more than the cluster has
// arrived.
func TestBoundHolds(t *testing.T) {
	tr, l := sample(t, "sample")
	for seed := int64(42); seed < 45; seed++ {
		arrivals, source := order(l.pods, tr.capacity(), seed)
		most, err := bound(tr, arrivals)
		if err != nil {
			t.Fatal(err)
		}
		arrived := int64(0)
		end := slices.IndexFunc(arrivals, func(p pod) bool { arrived += p.shape.Demand(); return arrived > tr.capacity() })
		for _, name := range policies {
			got := fill(tr, arrivals[:end], newPlacer(name, tr, l, source))
			if reached := slices.Max(got[:]); reached > most+1e-6 || most > 100+1e-6 {
				t.Errorf("seed %d: %s allocates %.2f %%, the bound is %.2f %%", seed, name, reached, most)
			}
		}
	}
}

// TestBaselineScores holds the scores to values worked out by hand from the paper's method.
func TestBaselineScores(t *testing.T) {
	n := func(cpu int64, free ...int32) *node { return &node{cpu: cpu, free: free} }
	one := &packing.Shape{CPU: 8000, GPUs: 1, Share: 1000, Models: packing.Any}
	half := &packing.Shape{CPU: 4000, GPUs: 1, Share: 500, Models: packing.Any}
	pair := &packing.Shape{CPU: 8000, GPUs: 2, Share: 1000, Models: packing.Any}
	none := &packing.Shape{CPU: 8000, Models: packing.Any}
	shared := n(96_000, 1000, 500, 1000, 1000)
	shared.classes[0] = 1
	mixed := n(96_000, 1000, 500, 0, 1000)
	mixed.classes[0], mixed.classes[1] = 1, 1
	for _, c := range []struct {
		name  string
		grade grader
		n     *node
		s     *packing.Shape
		want  float64
	}{
		{"bestfit: 1 - (24/128 + 1/8)/2 = 0.84375", gradeBestFit, n(32_000, 1000, 1000), one, 84},
		{"dotprod: 1 - (0.25*0.0625 + 0.25*0.125)/2 = 0.9765", gradeDotProd, n(32_000, 1000, 1000), one, 97},
		{"packing: an idle node of 8", gradePacking, n(96_000, 1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000), one, 25},
		{"packing: an idle node of 1", gradePacking, n(8000, 1000), one, 32},
		{"packing: two fresh devices of a node in use", gradePacking, n(96_000, 1000, 1000, 300, 500), pair, 48},
		{"packing: the used device that fits best, 60 % free", gradePacking, n(96_000, 1000, 600, 800, 0), half, 94},
		{"packing: no devices asked", gradePacking, n(96_000, 1000), none, 0},
		{"clustering: only its own class here, 3.5 free", gradeClustering, shared, half, 75 + 14},
		{"clustering: its class among others, 2.5 free", gradeClustering, mixed, half, 50 + 17},
		{"clustering: only other classes", gradeClustering, mixed, pair, 17},
		{"clustering: idle node of 2", gradeClustering, n(96_000, 1000, 1000), pair, 25 + 18},
	} {
		if got := -c.grade(c.n, c.s).loss; got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	f := &fgd{mix: []weighted{{*half, 0.5}, {*pair, 0.3}, {*none, 0.2}}, memo: map[nodeShape]float64{}}
	// Halves cannot use the 300; pairs lack a second device; tasks without devices use none.
	if got, want := f.fragments(0, 96_000, []int32{1000, 300}), 0.5*300+0.3*1300+0.2*1300; math.Abs(got-want) > 1e-9 {
		t.Errorf("fragments %v, want %v", got, want)
	}
	if got, want := f.fragments(0, 3000, []int32{1000, 300}), 1300.0; math.Abs(got-want) > 1e-9 {
		t.Errorf("fragments without CPU %v, want %v", got, want)
	}
}

// TestChurn: pods leave when their time is over, and a full cluster refuses.
func TestChurn(t *testing.T) {
	tr := &trace{models: []string{"a"}, hosts: []host{{name: "n", cpu: 100_000, memory: 1000, gpus: 2}}}
	whole := packing.Shape{CPU: 1000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
	stays := []stay{{whole, 0, 10}, {whole, 0, 20}, {whole, 5, 15}, {whole, 10, 30}}
	got := replay(tr, stays, 0, 20, &ranked{grade: gradeBestFit})
	// Allocated: 2 devices from 0 to 20; asked: 10 + 20 + 10 + 10 device seconds of 40.
	if math.Abs(got.allocated-100) > 1e-9 || math.Abs(got.rejected-25) > 1e-9 || math.Abs(got.offered-125) > 1e-9 || math.Abs(got.lost-20) > 1e-9 {
		t.Errorf("%+v", got)
	}
	if got = replay(tr, stays, 10, 20, &ranked{grade: gradeBestFit}); math.Abs(got.allocated-100) > 1e-9 || got.rejected != 0 {
		t.Errorf("after the warm-up %+v", got)
	}
}

// TestStreams: the steady stream asks for its load at any time, the own times for the
// cluster at their peak.
func TestStreams(t *testing.T) {
	tr, l := sample(t, "sample")
	stays, begin, end := steady(l.pods, tr.capacity(), 42)
	asked := 0.0
	for i := range stays {
		asked += float64(stays[i].shape.Demand()) * max(0, min(end, stays[i].until)-max(begin, stays[i].from))
	}
	if load := asked / float64(tr.capacity()) / (end - begin); math.Abs(load-steadyLoad) > 0.03 {
		t.Errorf("load %.3f", load)
	}
	stays, _, _ = own(l.pods, tr.capacity(), 42)
	if got := float64(peak(stays)) / float64(tr.capacity()); got < 0.5 || got > 1.3 {
		t.Errorf("peak %.2f of the cluster", got)
	}
}

// TestReport: the tables name what was run, and the last line is JSON with all figures.
func TestReport(t *testing.T) {
	o := options{folder: "testdata", lists: []string{"sample", "five"}, seeds: []int64{42}, departures: 2}
	tr, err := readNodes(o.folder)
	if err != nil {
		t.Fatal(err)
	}
	lists := map[string]*list{}
	for _, name := range o.lists {
		if lists[name], err = tr.readList(o.folder, name); err != nil {
			t.Fatal(err)
		}
	}
	all := plan(o, lists)
	for i := range all {
		if e := &all[i]; e.protocol == protocolFill {
			if e.run(tr, lists[e.list]); e.err != nil {
				t.Fatal(e.err)
			}
		} else if e.list != "sample" {
			t.Errorf("%s runs with departures without times", e.list)
		}
	}
	var out bytes.Buffer
	if err := report(&out, o, all); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	var figures struct {
		Lists      map[string]map[string]float64
		Departures map[string]map[string]map[string]map[string]float64
	}
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &figures); err != nil {
		t.Fatal(err)
	}
	for _, p := range append(slices.Clone(policies), bounded) {
		if v := figures.Lists["sample"][p]; v < 30 || v > 100 {
			t.Errorf("%s: %v", p, v)
		}
	}
	for _, field := range []string{"demand", "allocated", "refused", "lost", "allocated_difference", "refused_error"} {
		if _, ok := figures.Departures[protocolSteady]["sample"]["llmos"][field]; !ok {
			t.Errorf("no %s with departures in %s", field, lines[len(lines)-1])
		}
	}
}

// TestPairs: the baseline that is best on a measure is the one that llmos is set against,
// seed by seed.
func TestPairs(t *testing.T) {
	var all []experiment
	for i, v := range []struct{ bestfit, fgd, llmos float64 }{{80, 84, 85}, {90, 91, 94}} {
		for p, allocated := range map[string]float64{"bestfit": v.bestfit, "fgd": v.fgd, "llmos": v.llmos} {
			all = append(all, experiment{protocol: protocolOwn, list: "l", policy: p, seed: int64(i),
				churned: churned{allocated: allocated, rejected: 100 - allocated}})
		}
	}
	for measure, want := range []paired{{"fgd", 2, 1}, {"fgd", -2, 1}} {
		if got := against(all, protocolOwn, "l", measure); got != want {
			t.Errorf("%s: %+v, want %+v", measures[measure].name, got, want)
		}
	}
}

// TestAllocatedAndLost: what is allocated and what is lost is what was offered, whatever was
// under way when measuring began.
func TestAllocatedAndLost(t *testing.T) {
	tr, l := sample(t, "sample")
	for _, draw := range []func([]pod, int64, int64) ([]stay, float64, float64){steady, own} {
		stays, begin, end := draw(l.pods, tr.capacity(), 42)
		got := replay(tr, stays, begin, end, &ranked{grade: gradeBestFit})
		if sum := got.allocated + got.offered*got.lost/100; math.Abs(sum-got.offered) > 1e-6 || got.offered <= 0 {
			t.Errorf("%+v: together %v", got, sum)
		}
	}
}
