package controller

import (
	"cmp"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

// projection is the state as the scheduler sees it: the one conversion from records to
// plain values. Records are immutable and replaced when they change, so a record that is
// still the same pointer has been converted already. A sweep over an unchanged state costs
// one comparison per node and unfinished job.
type projection struct {
	nodes   []scheduler.Node      // by ID; replaced, never modified, when something changes; see snapshot
	stale   bool                  // nodes is behind known
	live    map[string]bool       // node IDs with a live session
	known   map[string]*nodeEntry // by node ID
	order   []*nodeEntry          // by node ID, ascending, as the state's tables are
	jobs    map[string]*jobEntry  // unfinished ones, by ID
	pending []*jobEntry           // in submit order
	round   uint64                // of sweeps
}

type nodeEntry struct {
	id      string
	node    *pb.Node
	account *pb.NodeAccount
	value   scheduler.Node
	round   uint64
}

type jobEntry struct {
	job     *pb.Job
	attempt *pb.Attempt
	value   scheduler.Job
	round   uint64
}

// changes is what a sweep found.
type changes struct {
	nodes   []string // IDs: account or record changed, or desired states of tasks may have
	records []string // IDs: the node's record itself changed, appeared or went
	jobs    bool     // some unfinished job changed, appeared or went
}

func newProjection() *projection {
	return &projection{known: map[string]*nodeEntry{}, jobs: map[string]*jobEntry{}, live: map[string]bool{}}
}

// connected notes whether a node has a live session. Without one it could not be told of
// new work, so it gets none: after a change of leader each node counts once it is back.
func (p *projection) connected(id string, live bool) {
	if p.live[id] == live {
		return
	}
	if live {
		p.live[id] = true
	} else {
		delete(p.live, id)
	}
	if e := p.known[id]; e != nil {
		p.judge(e)
		p.stale = true
	}
}

func (p *projection) judge(e *nodeEntry) {
	e.value.Status = statusOf(e.node.State)
	if e.value.Status == scheduler.NodeReady && !p.live[e.node.Id] {
		e.value.Status = scheduler.NodeSilent
	}
}

// snapshot gives the nodes by ID. Nobody modifies the slice afterwards.
func (p *projection) snapshot() []scheduler.Node {
	if p.stale {
		p.stale = false
		p.nodes = make([]scheduler.Node, 0, len(p.order))
		for _, e := range p.order {
			p.nodes = append(p.nodes, e.value)
		}
	}
	return p.nodes
}

// sweep brings the projection up to the state.
func (p *projection) sweep(st *state.State) changes {
	p.round++
	var found changes
	p.sweepNodes(st, &found)
	p.sweepJobs(st, &found)
	slices.Sort(found.nodes)
	found.nodes = slices.Compact(found.nodes)
	return found
}

// sweepNodes walks the nodes and their accounts beside the entries of the last sweep: all
// three are in order of ID, so that an unchanged node costs no look-up.
func (p *projection) sweepNodes(st *state.State, found *changes) {
	at := 0
	for n := range st.Nodes() {
		e := p.entry(at, n.Id)
		at++
		e.round = p.round
		if e.node != n {
			e.node = n
			found.records = append(found.records, n.Id)
			found.nodes = append(found.nodes, n.Id)
		}
	}
	if at != len(p.order) {
		p.order = slices.DeleteFunc(p.order, func(e *nodeEntry) bool {
			gone := e.round != p.round
			if gone {
				delete(p.known, e.id)
				found.records = append(found.records, e.id)
				found.nodes = append(found.nodes, e.id)
			}
			return gone
		})
	}
	at = 0
	for a := range st.Accounts() {
		for at < len(p.order) && p.order[at].id < a.NodeId {
			at++
		}
		if at < len(p.order) && p.order[at].id == a.NodeId && p.order[at].account != a {
			p.order[at].account = a
			found.nodes = append(found.nodes, a.NodeId)
		}
	}
	for _, id := range found.nodes {
		if e := p.known[id]; e != nil {
			e.value = nodeValue(st, e.node, e.account)
			p.judge(e)
		}
	}
	p.stale = p.stale || len(found.nodes) > 0
}

// entry gives the entry of a node, which is expected at this place of the order.
func (p *projection) entry(at int, id string) *nodeEntry {
	if at < len(p.order) && p.order[at].id == id {
		return p.order[at]
	}
	e := p.known[id]
	if e == nil {
		e = &nodeEntry{id: id}
		p.known[id] = e
		i, _ := slices.BinarySearchFunc(p.order, id, func(e *nodeEntry, id string) int { return strings.Compare(e.id, id) })
		p.order = slices.Insert(p.order, i, e)
	}
	return e
}

func (p *projection) sweepJobs(st *state.State, found *changes) {
	count := 0
	pending := p.pending[:0]
	for j := range st.UnfinishedJobs() {
		count++
		e := p.jobs[j.Id]
		if e == nil {
			e = &jobEntry{}
			p.jobs[j.Id] = e
		}
		e.round = p.round
		if j.State == pb.JobState_JOB_STATE_PENDING {
			pending = append(pending, e)
		}
		attempt := st.Attempt(j.Id, j.Epoch)
		if e.job == j && e.attempt == attempt {
			continue
		}
		if e.job != j {
			e.value = jobValue(j)
		}
		e.job, e.attempt = j, attempt
		found.jobs = true
		for t := range st.JobTasks(j.Id, j.Epoch) {
			found.nodes = append(found.nodes, t.NodeId)
		}
	}
	clear(pending[len(pending):cap(pending)])
	p.pending = pending
	if count == len(p.jobs) {
		return
	}
	found.jobs = true
	for id, e := range p.jobs { // unordered: each entry is judged by itself
		if e.round != p.round {
			delete(p.jobs, id)
		}
	}
}

func nodeValue(st *state.State, n *pb.Node, a *pb.NodeAccount) scheduler.Node {
	v := scheduler.Node{ID: n.Id, Name: n.Name, Status: statusOf(n.State), Labels: n.Labels,
		CPU: a.GetCpuCapacity(), CPUFree: a.GetCpuCapacity() - a.GetCpuAllocated(),
		Memory: a.GetMemoryCapacity(), MemFree: a.GetMemoryCapacity() - a.GetMemoryAllocated(),
		PortMin: a.GetPortMin(), PortMax: a.GetPortMax(), Ports: a.GetPortsAllocated()}
	places := make(map[string]int32, len(n.Devices))
	for _, d := range n.Devices {
		places[d.Id] = d.Index
	}
	accounts := slices.Clone(a.GetDevices())
	slices.SortStableFunc(accounts, func(x, y *pb.DeviceAccount) int {
		return cmp.Or(cmp.Compare(places[x.DeviceId], places[y.DeviceId]), strings.Compare(x.DeviceId, y.DeviceId))
	})
	for _, d := range accounts {
		v.Devices = append(v.Devices, scheduler.Device{ID: d.DeviceId, Model: d.Model, Memory: d.MemoryCapacity,
			MemFree: d.MemoryCapacity - d.MemoryAllocated, ShareFree: 1000 - d.ShareAllocated, Available: d.Available})
	}
	for t := range st.NodeTasks(n.Id) {
		alloc := st.Allocation(t.Id)
		if alloc == nil {
			continue
		}
		h := scheduler.Holding{JobID: t.JobId, CPU: alloc.CpuMilli}
		for _, g := range alloc.Devices {
			h.Share += int64(g.ShareMilli)
		}
		v.Holdings = append(v.Holdings, h)
	}
	return v
}

func statusOf(s pb.NodeState) scheduler.NodeStatus {
	switch s {
	case pb.NodeState_NODE_STATE_READY:
		return scheduler.NodeReady
	case pb.NodeState_NODE_STATE_SILENT:
		return scheduler.NodeSilent
	}
	return scheduler.NodeLost
}

func jobValue(j *pb.Job) scheduler.Job {
	v := SpecValue(j.Spec)
	v.ID, v.Submit, v.Ordinal, v.Attempt = j.Id, j.SubmitIndex, j.SubmitOrdinal, j.Epoch+1
	return v
}

// SpecValue gives what the scheduler needs of a job file, for scheduler.Feasible at submit
// time; the result has no ID and no place in the order.
func SpecValue(spec *pb.JobSpec) scheduler.Job {
	v := scheduler.Job{Priority: spec.GetPriority()}
	world := int64(0)
	for _, r := range spec.GetRoles() {
		world += int64(r.Count)
		res := r.GetResources()
		v.Roles = append(v.Roles, scheduler.Role{Name: r.Name, Count: r.Count, Task: scheduler.Request{
			CPU: res.GetCpuMilli(), Memory: res.GetMemoryBytes(), GPUs: res.GetGpus(), Share: res.GetGpuShareMilli(),
			GPUMemory: res.GetGpuMemoryBytes(), Model: res.GetGpuModel(), Ports: int32(len(r.Ports))}})
	}
	v.Rendezvous = world > 1
	return v
}

// Feasible says whether the registered nodes could ever hold the job; see
// scheduler.Feasible.
func Feasible(st *state.State, spec *pb.JobSpec) scheduler.Reason {
	var nodes []scheduler.Node
	for n := range st.Nodes() {
		nodes = append(nodes, nodeValue(st, n, st.Account(n.Id)))
	}
	return scheduler.Feasible(SpecValue(spec), nodes)
}
