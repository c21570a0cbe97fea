package scheduler

import "slices"

// pass is one run of Schedule.
type pass struct {
	policy Policy
	jobs   []Job // by rank
	ratio  float64
	now    *placer           // on what is free
	empty  *placer           // on the capacity, for holds; made when first needed
	ports  map[int32][]int32 // by node: given in this pass
	usage  *usage            // what live attempts hold
}

// newPass prepares a pass over the snapshot in a room that holds what is free in it.
func newPass(s Snapshot, policy Policy, jobs []Job, r *room, u *usage) *pass {
	p := &pass{usage: u, policy: policy, jobs: jobs, ratio: r.ratio, ports: map[int32][]int32{}, now: newPlacer(r)}
	p.now.running = s.Running
	return p
}

// grant turns the places in the trail into the placements of the ranks.
func (p *pass) grant(job *Job, entries []int) []TaskPlacement {
	r := p.now.room
	p.now.stands(job, entries)
	tasks := make([]TaskPlacement, len(entries))
	for rank, at := range entries {
		entry := &r.trail[at]
		spec := &r.spec[entry.node]
		tasks[rank].NodeID = spec.ID
		first := r.nodes[entry.node].first
		if entry.last > entry.first {
			tasks[rank].Devices = make([]Grant, 0, entry.last-entry.first)
		}
		for _, g := range r.granted[entry.first:entry.last] {
			tasks[rank].Devices = append(tasks[rank].Devices,
				Grant{DeviceID: spec.Devices[g.device-first].ID, Share: g.share, Memory: g.memory, Model: spec.Devices[g.device-first].Model})
		}
		if entry.ports > 0 {
			tasks[rank].Ports = p.choosePorts(job, entry)
		}
	}
	return tasks
}

// choosePorts gives free ports of the node. The search starts at a place that depends on
// the job, its attempt and the node: agents that share a host, and attempts that follow
// each other, should seldom meet on one port.
func (p *pass) choosePorts(job *Job, entry *taken) []int32 {
	spec := &p.now.room.spec[entry.node]
	size := uint64(spec.PortMax-spec.PortMin) + 1
	start := portHash(job.ID, spec.ID, job.Attempt) % size
	ports := make([]int32, 0, entry.ports)
	for i := uint64(0); i < size && len(ports) < int(entry.ports); i++ {
		port := spec.PortMin + int32((start+i)%size)
		if _, held := slices.BinarySearch(spec.Ports, port); held || slices.Contains(p.ports[entry.node], port) {
			continue
		}
		ports = append(ports, port)
		p.ports[entry.node] = append(p.ports[entry.node], port)
	}
	return ports
}

// portHash is FNV-1a over both names and the attempt.
func portHash(job, node string, attempt uint64) uint64 {
	h := uint64(14695981039346656037)
	add := func(b byte) { h = (h ^ uint64(b)) * 1099511628211 }
	for i := range len(job) {
		add(job[i])
	}
	add(0)
	for i := range len(node) {
		add(node[i])
	}
	for i := range 8 {
		add(byte(attempt >> (8 * i)))
	}
	return h
}
