package packing_test

import (
	"testing"

	"llmos/server/scheduler/packing"
)

// opening is what the first whole device of an idle node of 8 costs more than one of a node
// in use.
func opening(p *packing.Prices, model int) int64 {
	s := packing.Shape{CPU: 8000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
	part, _ := p.Best(&s, &packing.Node{Model: model, CPU: 96_000, Free: []int32{0, 0, 0, 0, 1000, 1000, 1000, 1000}}, nil)
	full, _ := p.Best(&s, &packing.Node{Model: model, CPU: 96_000, Free: []int32{1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000}}, nil)
	return full - part
}

// TestEmptyClusterKeepsNodesWhole: while little is taken an idle node costs a little to open,
// before any task asked for several devices and though nothing leaves; when half is taken, or
// where only shares are asked, it costs nothing.
func TestEmptyClusterKeepsNodesWhole(t *testing.T) {
	one := packing.Shape{CPU: 8000, GPUs: 1, Share: packing.Whole, Models: packing.Any}
	half := packing.Shape{CPU: 4000, GPUs: 1, Share: 500, Models: packing.Any}
	for _, c := range []struct {
		name  string
		asked packing.Shape
		tasks int
		taken int64 // of 800 devices
		costs bool
	}{
		{"empty", one, 100, 0, true},
		{"a quarter is taken", one, 100, 200, true},
		{"half is taken", one, 100, 400, false},
		{"only shares are asked", half, 100, 0, false},
		{"after so many tasks none asked several", one, 100_000, 0, false},
	} {
		var m packing.Mix
		m.Observe(c.asked, c.tasks)
		p := packing.Learn(&m, packing.Fleet{{Name: "A", GPUs: 800, CPU: 9_600_000, Memory: 1, Free: (800 - c.taken) * packing.Whole,
			NodeGPUs: 8, NodeCPU: 96_000}})
		if got := opening(p, 0); (got > packing.Device/10) != c.costs || got > packing.Device {
			t.Errorf("%s: an idle node costs %d billionths of a device to open", c.name, got)
		}
	}
}

// TestNodesThatHoldTheTask: whole nodes are worth more of the model that more tasks of
// several devices can run on, and nothing where no node can hold such a task.
func TestNodesThatHoldTheTask(t *testing.T) {
	var m packing.Mix
	for _, cpu := range []int64{88_000, 120_000} {
		m.Observe(packing.Shape{CPU: cpu, GPUs: 8, Share: packing.Whole, Models: packing.Any}, 100)
	}
	m.Observe(packing.Shape{CPU: 8000, GPUs: 1, Share: packing.Whole, Models: packing.Any}, 2000)
	m.Depart(2200)
	p := packing.Learn(&m, packing.Fleet{
		{Name: "usual", GPUs: 800, CPU: 9_600_000, Memory: 1, NodeGPUs: 8, NodeCPU: 96_000},
		{Name: "rich", GPUs: 80, CPU: 1_280_000, Memory: 1, NodeGPUs: 8, NodeCPU: 128_000},
		{Name: "poor", GPUs: 80, CPU: 640_000, Memory: 1, NodeGPUs: 8, NodeCPU: 64_000},
	})
	usual, rich, poor := opening(p, 0), opening(p, 1), opening(p, 2)
	if rich <= usual || usual <= packing.Device/2 || poor > packing.Device/10 {
		t.Errorf("opening a node costs %d where more tasks fit, %d where some do, %d where none does", rich, usual, poor)
	}
}
