// Package packing says what the cluster loses when a task takes a place: the growth of a
// potential of the node and the price of the device model it takes. It learns the workload
// mix on line (mix.go), derives from it what is short (learn.go): how scarce each model is
// (scarcity.go), what the free rest of a device is worth by a linear programme (residual.go,
// lp.go), which rests fit few tasks (fragments.go), and answers with a few table look-ups
// (loss.go). DESIGN.md says why.
//
// It is pure and knows neither nodes' names nor jobs, chooses no node and keeps no ledger.
// The controller feeds a Mix and calls Learn when the mix is due; server/scheduler scores
// nodes by Prices.Best; test/bench/openb measures both.
//
// Amounts: CPU in millicores, memory in any one unit, shares and free parts of devices in
// thousandths of a device, values and losses in billionths of a device (integers, so that a
// sum does not depend on the order of its parts).
package packing

import (
	"cmp"
	"math/bits"
)

// Bounds and constants of the method. The figures behind them are in DESIGN.md.
const (
	ModelsMax = 64   // models of device that are told apart: the bits of Models
	Whole     = 1000 // thousandths of a device
	Device    = 1e9  // value of a device: the unit of losses is 1/Device of one
)

// Models is a set of interned device models: bit i is model i of the Fleet.
type Models uint64

// Any is the set of all models.
const Any = ^Models(0)

// Has says whether the set holds a model; a negative model is held by Any alone.
func (m Models) Has(model int) bool {
	if model < 0 || model >= ModelsMax {
		return m == Any
	}
	return m>>uint(model)&1 != 0
}

// Count gives the number of models in the set.
func (m Models) Count() int { return bits.OnesCount64(uint64(m)) }

// Shape is what one task asks of a node. Equal requests are equal shapes.
type Shape struct {
	CPU    int64  // millicores
	Memory int64  // in the unit of Capacity.Memory
	GPUs   int32  // devices
	Share  int32  // thousandths of each device; Whole for whole ones; 0 without devices
	Models Models // models it accepts
}

// Demand gives the thousandths of devices that the shape asks in all.
func (s *Shape) Demand() int64 { return int64(s.GPUs) * int64(s.Share) }

// shared says whether the shape asks parts of devices.
func (s *Shape) shared() bool { return s.GPUs > 0 && s.Share < Whole }

// compare is a total order of shapes, for determinism.
func (s *Shape) compare(t *Shape) int {
	return cmp.Or(
		cmp.Compare(s.GPUs, t.GPUs), cmp.Compare(s.Share, t.Share), cmp.Compare(s.Models, t.Models),
		cmp.Compare(s.CPU, t.CPU), cmp.Compare(s.Memory, t.Memory))
}

// Fleet is what the cluster has, busy or not, by interned model.
type Fleet []Capacity

// Capacity is what the nodes with one model of device have together.
type Capacity struct {
	Name   string // of the model; the packing itself does not read it
	GPUs   int64  // devices
	CPU    int64  // millicores of the nodes that hold them
	Memory int64  // of those nodes, in the unit of Shape.Memory
	Free   int64  // thousandths of the devices that are free

	NodeGPUs int64 // the most devices that one node has; 0: not known
	NodeCPU  int64 // the most CPU that one node has, in millicores
}

func (f Fleet) devices() float64 {
	sum := 0.0
	for _, c := range f {
		sum += float64(c.GPUs)
	}
	return sum
}

// present is the set of models that the fleet has devices of.
func (f Fleet) present() Models {
	var m Models
	for i := range min(len(f), ModelsMax) {
		if f[i].GPUs > 0 {
			m |= 1 << uint(i)
		}
	}
	return m
}

// load is the part of the devices that is taken.
func (f Fleet) load() float64 {
	free := 0.0
	for _, c := range f {
		free += float64(c.Free)
	}
	return 1 - free/(Whole*max(1, f.devices()))
}

// reach is the part of the shape's models of which a node can hold it.
func (f Fleet) reach(s *Shape) Models {
	models := s.Models
	for m := range min(len(f), ModelsMax) {
		if c := &f[m]; c.NodeGPUs > 0 && (int64(s.GPUs) > c.NodeGPUs || s.CPU > c.NodeCPU) {
			models &^= 1 << uint(m)
		}
	}
	return models
}
