package main

import "llmos/server/scheduler/packing"

// ours is llmos' placement: packing.Prices over a mix learned as pods arrive.
type ours struct {
	ranked
	fleet  packing.Fleet
	mix    packing.Mix
	prices *packing.Prices
	learns int
}

func newOurs(tr *trace) *ours {
	o := &ours{fleet: tr.fleet()}
	o.ranked.grade = o.gradeOne
	return o
}

func (o *ours) place(c *cluster, s *packing.Shape) (int, int) {
	o.mix.Observe(*s)
	if o.mix.Due() {
		o.prices = packing.Learn(&o.mix, o.fleet)
		o.epoch++
		o.learns++
	}
	return o.ranked.place(c, s)
}

func (o *ours) gradeOne(n *node, s *packing.Shape) grade {
	loss, device := o.prices.Best(s, &packing.Node{Model: n.model, CPU: n.cpu, Free: n.free}, nil)
	return grade{loss: float64(loss), tie: n.idle(), then: n.cpu, device: int32(device)}
}
