package scheduler

import (
	"slices"
	"strings"

	"llmos/server/scheduler/packing"
)

// Learner learns the mix of tasks as jobs arrive and gives the prices to place by
// (Snapshot.Packing). Whoever makes snapshots keeps one. It is not safe for concurrent use,
// remembers a bounded number of shapes and models, and starts anew with each leader: until
// it has seen jobs there are no prices, and the terms of Weights score.
type Learner struct {
	mix    packing.Mix
	models []string // as packing interns them; only ever appended to
	sizes  []int64  // of device memory in bytes, by model; 0: not seen on a node yet
	prices *packing.Prices
	nodes  int // of the snapshot that the prices were learned on
}

// fleetStep is the part of the nodes, one in so many, that must come or go before prices are
// learned anew for that reason alone.
const fleetStep = 20

// Arrive counts the tasks of a job that was submitted.
func (l *Learner) Arrive(job *Job) {
	for i := range job.Roles {
		role := &job.Roles[i]
		l.mix.Observe(l.shape(&role.Task), int(role.Count))
	}
}

// Leave counts tasks that ended.
func (l *Learner) Leave(tasks int) { l.mix.Depart(tasks) }

// Prices gives the prices for a snapshot of these nodes, learned anew when that is due: the
// same ones until then. nil when nothing has arrived.
func (l *Learner) Prices(nodes []Node) *packing.Prices {
	moved := len(nodes) - l.nodes
	if !l.mix.Due() && (l.prices == nil || max(moved, -moved)*fleetStep < l.nodes) {
		return l.prices
	}
	if l.mix.Arrivals() > 0 && len(nodes) > 0 {
		l.prices, l.nodes = packing.Learn(&l.mix, l.fleet(nodes)), len(nodes)
	}
	return l.prices
}

// packingModel is the name under which packing knows a device: a slice is a model of its own.
func packingModel(model, profile string) string {
	if profile == "" {
		return model
	}
	return model + "/" + profile
}

// model interns a name; -1 when there are too many.
func (l *Learner) model(name string) int {
	at := slices.Index(l.models, name)
	if at < 0 && len(l.models) < packing.ModelsMax {
		at = len(l.models)
		l.models, l.sizes = append(l.models, name), append(l.sizes, 0)
	}
	return at
}

// shape is a request as packing sees it. One that asks for a device of some size accepts the
// models that are known to have it.
func (l *Learner) shape(t *Request) packing.Shape {
	s := packing.Shape{CPU: t.CPU, Memory: t.Memory, GPUs: t.GPUs, Models: packing.Any}
	if t.GPUs <= 0 {
		return s
	}
	if s.Share = deviceWhole; t.Share > 0 && t.Share < deviceWhole {
		s.Share = t.Share
	}
	names := t.Models
	if names == nil && t.Model != "" {
		names = []string{t.Model}
	}
	if names != nil {
		s.Models = 0
	}
	for _, name := range names {
		if m := l.model(packingModel(name, t.Profile)); m >= 0 {
			s.Models |= 1 << uint(m)
		}
	}
	for m, name := range l.models {
		if _, profile, _ := strings.Cut(name, "/"); profile != t.Profile || (l.sizes[m] > 0 && l.sizes[m] < t.GPUMemory) {
			s.Models &^= 1 << uint(m)
		}
	}
	return s
}

// fleet sums the nodes by model of device; a node with several counts for its first one.
func (l *Learner) fleet(nodes []Node) packing.Fleet {
	var fleet packing.Fleet
	for i := range nodes {
		n := &nodes[i]
		for j := range n.Devices {
			d := &n.Devices[j]
			m := l.model(packingModel(d.Model, d.Profile))
			if m < 0 {
				continue
			}
			for len(fleet) <= m {
				fleet = append(fleet, packing.Capacity{Name: l.models[len(fleet)]})
			}
			l.sizes[m] = d.Memory
			fleet[m].GPUs++
			if d.Available {
				fleet[m].Free += int64(d.ShareFree)
			}
			if j == 0 {
				fleet[m].CPU += n.CPU
				fleet[m].Memory += n.Memory
				fleet[m].NodeGPUs = max(fleet[m].NodeGPUs, int64(len(n.Devices)))
				fleet[m].NodeCPU = max(fleet[m].NodeCPU, n.CPU)
			}
		}
	}
	return fleet
}
