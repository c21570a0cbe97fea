package main

import (
	"slices"
	"strconv"

	"llmos/server/scheduler"
	"llmos/server/scheduler/packing"
)

// ours is llmos itself: each pod is a pending job of one task, a pass of the scheduler
// (scheduler.Cache, as the leader runs it) places it, and a scheduler.Learner learns the mix
// as pods come and go.
type ours struct {
	tr      *trace
	learner scheduler.Learner
	cache   scheduler.Cache
	books   [2]book // the scheduler keeps one snapshot's nodes while it reads the next
	turn    int
	jobs    []scheduler.Job
}

// book is the cluster as the scheduler sees it.
type book struct {
	nodes  []scheduler.Node
	caught int // of cluster.changed
}

const mib = 1 << 20

func newOurs(tr *trace) *ours {
	o := &ours{tr: tr, jobs: []scheduler.Job{{ID: "pod", Roles: []scheduler.Role{{Name: "pod", Count: 1}}}}}
	for b := range o.books {
		o.books[b].nodes = make([]scheduler.Node, len(tr.hosts))
		for i := range tr.hosts {
			h := &tr.hosts[i]
			n := &o.books[b].nodes[i]
			*n = scheduler.Node{ID: nodeID(i), Version: 1, CPU: h.cpu, CPUFree: h.cpu, Memory: h.memory * mib, MemFree: h.memory * mib}
			for d := range h.gpus {
				n.Devices = append(n.Devices, scheduler.Device{ID: strconv.Itoa(d), Model: tr.models[h.model], NUMA: -1,
					Memory: deviceMemory, MemFree: deviceMemory, ShareFree: packing.Whole, Available: true})
			}
		}
	}
	return o
}

// deviceMemory of every device, in bytes: the traces know of none, and a share of it goes
// with each share of a device.
const deviceMemory = packing.Whole * mib

// nodeID keeps the order of the nodes, which decides between equal places.
func nodeID(at int) string {
	digits := strconv.Itoa(at)
	return "node-" + "000000"[min(6, len(digits)):] + digits
}

func (o *ours) place(c *cluster, s *packing.Shape) (node, device int) {
	job := &o.jobs[0]
	job.Roles[0].Task = o.request(s)
	o.learner.Arrive(job)
	o.turn = 1 - o.turn
	b := &o.books[o.turn]
	b.catchUp(c)
	plan := o.cache.Schedule(scheduler.Snapshot{Nodes: b.nodes, Pending: o.jobs, Packing: o.learner.Prices(b.nodes)},
		scheduler.Policy{Holds: -1, ReservationsMax: -1})
	if len(plan.Placements) == 0 {
		return -1, -1
	}
	task := &plan.Placements[0].Tasks[0]
	node, _ = slices.BinarySearchFunc(b.nodes, task.NodeID, func(n scheduler.Node, id string) int {
		switch {
		case n.ID < id:
			return -1
		case n.ID > id:
			return 1
		}
		return 0
	})
	if s.GPUs == 0 {
		return node, -1
	}
	device, _ = strconv.Atoi(task.Devices[0].DeviceID)
	return node, device
}

func (o *ours) left(*packing.Shape) { o.learner.Leave(1) }

// request asks for what the pod asks.
func (o *ours) request(s *packing.Shape) scheduler.Request {
	r := scheduler.Request{CPU: s.CPU, Memory: s.Memory * mib, GPUs: s.GPUs}
	if s.Share < packing.Whole {
		r.Share = s.Share
	}
	if s.Models != packing.Any {
		r.Models = []string{}
		for m, name := range o.tr.models {
			if s.Models.Has(m) {
				r.Models = append(r.Models, name)
			}
		}
	}
	return r
}

// catchUp copies what is free on the nodes that changed.
func (b *book) catchUp(c *cluster) {
	for ; b.caught < len(c.changed); b.caught++ {
		at := c.changed[b.caught]
		from, to := &c.nodes[at], &b.nodes[at]
		to.Version = uint64(b.caught) + 2
		to.CPUFree, to.MemFree = from.cpu, from.memory*mib
		for d := range to.Devices {
			to.Devices[d].ShareFree, to.Devices[d].MemFree = from.free[d], int64(from.free[d])*mib
		}
	}
}
