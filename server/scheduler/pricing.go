package scheduler

import "llmos/server/scheduler/packing"

// pricing is how a room scores when the snapshot has learned prices: a node's score is what
// the cluster loses by the task there, in devices (package packing), instead of the sum of
// the terms of Weights.
type pricing struct {
	prices *packing.Prices
	models []int   // by kind: the model of the prices, -1 when it was not learned
	free   []int32 // scratch: thousandths free, by device of the node
	admits []bool  // scratch: whether the task may have the device
}

// priceBy makes the room score by these prices; nil: by the terms of Weights.
func (r *room) priceBy(p *packing.Prices) {
	r.pricing.prices, r.pricing.models = p, r.pricing.models[:0]
	if p == nil {
		return
	}
	for _, k := range r.kinds {
		r.pricing.models = append(r.pricing.models, p.Model(packingModel(r.models[k.model], k.profile)))
	}
}

// The score of a node by prices is a whole number of steps of the loss; what is left of the
// 53 bits of a float64 decides between equal losses: fewer idle devices, then less free CPU.
// The classes' own order follows, and nodes of one class go by ID.
const (
	lossSteps = 1 << 20 // in a device
	idleSteps = 1 << 16 // of idle thousandths of devices that are told apart
	cpuSteps  = 1 << 11 // of free CPU
	cpuStep   = 128     // millicores in one of them
)

// priced is the score by prices of a node that admits the task.
func (r *room) priced(node int, s *shape) float64 {
	loss, _ := r.loss(node, s)
	n := &r.nodes[node]
	tie := min(n.share, idleSteps-1)*cpuSteps + min(n.cpu/cpuStep, cpuSteps-1)
	steps := loss * (lossSteps >> 9) / (packing.Device >> 9)
	return (float64(steps) + float64(tie)/(idleSteps*cpuSteps)) / lossSteps
}

// loss gives what the cluster loses by one task on a node that admits it, and for a shared
// one the place of the device on which it loses least, else -1.
func (r *room) loss(node int, s *shape) (loss int64, at int) {
	devices := r.devicesOf(node)
	view := packing.Node{Model: -1, CPU: r.nodes[node].cpu}
	asked := packing.Shape{CPU: s.cpu, GPUs: s.gpus, Share: s.share}
	size := int64(0)
	if len(devices) > 0 {
		like := &devices[0]
		if at := r.wouldUse(node, s); s.gpus > 0 && at >= 0 {
			like = &devices[at]
		}
		if like.kind >= 0 {
			view.Model = r.pricing.models[like.kind]
		}
		size = like.memory
		r.pricing.view(devices, like, s)
		view.Free = r.pricing.free
	}
	switch {
	case s.gpus == 0:
	case s.share == 0:
		asked.Share = deviceWhole
	case s.gpuMemory > 0 && size > 0: // more of its memory than of its time
		asked.Share = max(s.share, int32(s.gpuMemory*deviceWhole/size))
	}
	return r.pricing.prices.Best(&asked, &view, r.pricing.admits)
}

// view lists what is free of the devices like one of them: the lesser part of its time and
// of its memory. Devices of other kinds on the node count as taken.
func (p *pricing) view(devices []device, like *device, s *shape) {
	p.free, p.admits = p.free[:0], p.admits[:0]
	for i := range devices {
		d := &devices[i]
		free := int32(0)
		if d.sameKind(like) && d.memory > 0 {
			free = min(d.shareFree, int32(d.memFree*deviceWhole/d.memory))
		} else if d.sameKind(like) {
			free = d.shareFree
		}
		p.free = append(p.free, free)
		p.admits = append(p.admits, s.share != 0 && d.sameKind(like) && d.admitsShare(s) > 0)
	}
}

// cheapest picks the device for a share: by prices where they say, else the fullest.
func (r *room) cheapest(node int, s *shape, excluded func(int) bool) int {
	devices := r.devicesOf(node)
	if r.pricing.prices != nil && s.gpus == 1 {
		if _, at := r.loss(node, s); at >= 0 {
			return at
		}
	}
	return fullest(devices, s, excluded)
}
