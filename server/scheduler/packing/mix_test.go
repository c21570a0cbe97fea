package packing_test

import (
	"testing"

	"pgregory.net/rapid"

	"llmos/server/scheduler/packing"
)

// drawShape draws a request as users make them.
func drawShape(t *rapid.T, models int) packing.Shape {
	s := packing.Shape{CPU: int64(rapid.IntRange(0, 40).Draw(t, "cpu")) * 500, Memory: int64(rapid.IntRange(0, 64).Draw(t, "memory")),
		GPUs: int32(rapid.SampledFrom([]int{0, 1, 1, 1, 2, 4, 8}).Draw(t, "gpus")), Models: packing.Any}
	switch {
	case s.GPUs == 1 && rapid.Bool().Draw(t, "shared"):
		s.Share = int32(rapid.SampledFrom([]int{100, 125, 250, 333, 460, 500, 650, 810}).Draw(t, "share"))
	case s.GPUs == 2 && rapid.Bool().Draw(t, "several shares"):
		s.Share = 400
	case s.GPUs > 0:
		s.Share = packing.Whole
	}
	if s.GPUs > 0 && rapid.Bool().Draw(t, "restricted") {
		s.Models = packing.Models(rapid.IntRange(1, 1<<models-1).Draw(t, "models"))
	}
	return s
}

func TestMixIsDue(t *testing.T) {
	var m packing.Mix
	s := packing.Shape{CPU: 1000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
	if m.Due() {
		t.Error("an empty mix is due")
	}
	fleet := packing.Fleet{{Name: "A", GPUs: 8, CPU: 64_000, Memory: 64}}
	var dues []uint64
	for range 200 {
		if m.Observe(s, 1); m.Due() {
			dues = append(dues, m.Arrivals())
			packing.Learn(&m, fleet)
		}
	}
	want := []uint64{1, 11, 21, 31, 41, 51, 62, 75, 90, 108, 130, 156, 188}
	if len(dues) != len(want) {
		t.Fatalf("due at %v, want %v", dues, want)
	}
	for i := range want {
		if dues[i] != want[i] {
			t.Fatalf("due at %v, want %v", dues, want)
		}
	}
	m.Observe(s, 1_000_000)
	packing.Learn(&m, fleet)
	m.Observe(s, packing.RefreshMax-1)
	if m.Due() {
		t.Error("due before RefreshMax arrivals of a million")
	}
	if m.Observe(s, 1); !m.Due() {
		t.Error("not due after RefreshMax arrivals")
	}
}

func TestTurnover(t *testing.T) {
	var m packing.Mix
	s := packing.Shape{CPU: 1000}
	if m.Turnover() != 0 {
		t.Error("an empty mix turns over")
	}
	m.Observe(s, 100)
	if m.Turnover() != 0 {
		t.Errorf("turnover %v while nothing leaves", m.Turnover())
	}
	for range 20_000 {
		m.Observe(s, 1)
		m.Depart(1)
	}
	if got := m.Turnover(); got < 0.95 || got > 1 {
		t.Errorf("turnover %v when one leaves for each that comes, want about 1", got)
	}
	for range 20_000 {
		m.Observe(s, 1)
	}
	if got := m.Turnover(); got > 0.01 {
		t.Errorf("turnover %v long after the last departure", got)
	}
	m.Depart(-5)
	if m.Turnover() < 0 {
		t.Error("a negative number of departures counts")
	}
}

// TestMixForgets: what is asked now outweighs what was asked long ago.
func TestMixForgets(t *testing.T) {
	fleet := packing.Fleet{{Name: "A", GPUs: 1000, CPU: 8_000_000, Memory: 64_000}, {Name: "B", GPUs: 1000, CPU: 8_000_000, Memory: 64_000}}
	old := packing.Shape{CPU: 1000, GPUs: 1, Share: packing.Whole, Models: 1}
	young := packing.Shape{CPU: 1000, GPUs: 1, Share: packing.Whole, Models: 2}
	var m packing.Mix
	m.Observe(old, 10_000)
	p := packing.Learn(&m, fleet)
	if p.Price[0] <= p.Price[1] {
		t.Fatalf("prices %v: the model that is asked for is not the dearer one", p.Price)
	}
	m.Observe(young, 5*packing.HalfLife)
	p = packing.Learn(&m, fleet)
	if p.Price[1] <= 10*p.Price[0] {
		t.Errorf("prices %v: demand of five half-lives ago still counts", p.Price)
	}
}

// TestMixIsBounded: however many shapes come, so many are kept, and the frequent ones.
func TestMixIsBounded(t *testing.T) {
	fleet := packing.Fleet{{Name: "A", GPUs: 100, CPU: 800_000, Memory: 6400}, {Name: "B", GPUs: 100, CPU: 800_000, Memory: 6400}}
	var m packing.Mix
	frequent := packing.Shape{CPU: 12_000, GPUs: 1, Share: packing.Whole, Models: 2}
	for i := range 5 * packing.ShapesMax {
		m.Observe(packing.Shape{CPU: int64(i) + 1, GPUs: 1, Share: packing.Whole, Models: packing.Any}, 1)
		m.Observe(frequent, 1)
	}
	p := packing.Learn(&m, fleet)
	if !p.Converged || p.Price[1] < 0.5 || p.Price[0] > 0.1 {
		t.Errorf("prices %v, converged %v: the frequent shape was not kept", p.Price, p.Converged)
	}
}
