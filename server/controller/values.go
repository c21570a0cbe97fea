package controller

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/scheduler"
)

func nodeValue(st *state.State, n *pb.Node, a *pb.NodeAccount) scheduler.Node {
	v := scheduler.Node{ID: n.Id, Name: n.Name, Status: statusOf(n.State), Labels: labelsOf(n), Drained: n.Drain != nil || n.Unfit != "", Unfit: n.Unfit != "",
		CPU: a.GetCpuCapacity(), CPUFree: a.GetCpuCapacity() - a.GetCpuAllocated(),
		Memory: a.GetMemoryCapacity(), MemFree: a.GetMemoryCapacity() - a.GetMemoryAllocated(),
		PortMin: a.GetPortMin(), PortMax: a.GetPortMax(), Ports: a.GetPortsAllocated()}
	places := make(map[string]int, len(n.Devices))
	for i, d := range n.Devices {
		places[d.Id] = i
	}
	index := func(id string) int32 {
		if at, known := places[id]; known {
			return n.Devices[at].Index
		}
		return 0
	}
	accounts := slices.Clone(a.GetDevices())
	slices.SortStableFunc(accounts, func(x, y *pb.DeviceAccount) int {
		return cmp.Or(cmp.Compare(index(x.DeviceId), index(y.DeviceId)), strings.Compare(x.DeviceId, y.DeviceId))
	})
	for _, d := range accounts {
		device := scheduler.Device{NUMA: -1, ID: d.DeviceId, Model: d.Model, Memory: d.MemoryCapacity,
			MemFree: d.MemoryCapacity - d.MemoryAllocated, ShareFree: 1000 - d.ShareAllocated, Available: d.Available}
		if at, known := places[d.DeviceId]; known {
			spec := n.Devices[at]
			device.NUMA, device.Island, device.Profile = spec.NumaNode, spec.Island, spec.MigProfile
			if spec.Kind == kindTPU {
				device.Profile = kindTPU
			}
		}
		v.Devices = append(v.Devices, device)
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

// labelsOf gives the node's labels and what conditions may name besides.
func labelsOf(n *pb.Node) map[string]string {
	labels := maps.Clone(n.Labels)
	if labels == nil {
		labels = map[string]string{}
	}
	for _, l := range []struct{ key, value string }{{"os", n.Os}, {"cpu_model", n.CpuModel}} {
		if _, set := labels[l.key]; !set && l.value != "" {
			labels[l.key] = l.value
		}
	}
	return labels
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

func jobValue(st *state.State, j *pb.Job) scheduler.Job {
	v := SpecValue(j.Spec)
	v.ID, v.Submit, v.Ordinal, v.Attempt, v.User = j.Id, j.SubmitIndex, j.SubmitOrdinal, j.Epoch+1, j.User
	v.Group, v.Claim = j.Parent, claimValue(j.Claim)
	if parent := st.Job(j.Parent); parent != nil {
		v.GroupMax = parent.GetSpec().GetArray().GetParallel()
	}
	return v
}

// avoided gives the nodes that a job still keeps away from.
func avoided(j *pb.Job, nowMS int64) (nodes []string) {
	for _, a := range j.Avoid {
		if a.UntilMs > nowMS {
			nodes = append(nodes, a.NodeId)
		}
	}
	return nodes
}

// SpecValue gives what the scheduler needs of a job file, for scheduler.Feasible at submit
// time; the result has no ID and no place in the order.
func SpecValue(spec *pb.JobSpec) scheduler.Job {
	v := scheduler.Job{Priority: spec.GetPriority(), Queue: cmp.Or(spec.GetQueue(), defaultQueue), NoPreempt: spec.GetNoPreempt(),
		DeadlineMS: spec.GetDeadlineMs(), LimitMS: spec.GetTimeLimitMs(), Reservation: spec.GetReservation()}
	if p := spec.GetPlacement(); p != nil {
		v.Where, v.Within, v.Prefer, v.Spread, v.Near, v.Apart = exprValue(p.Where), p.Within, p.PreferWithin, p.Spread, p.Near, p.Apart
		if v.Spread != "" {
			v.Skew = max(1, p.SpreadSkew)
		}
	}
	world := int64(0)
	for _, r := range spec.GetRoles() {
		world += int64(r.Count)
		v.Roles = append(v.Roles, scheduler.Role{Name: r.Name, Count: r.Count, Min: r.CountMin, Task: requestValue(r)})
	}
	v.Rendezvous = world > 1
	return v
}

// kindTPU is a kind of device that no GPU job can use. It is a profile to the scheduler, so that
// only those jobs get one that ask for its models.
const kindTPU = "tpu"

// asksForTPU says whether every model that a task can use is one of a TPU.
func asksForTPU(r *pb.Resources) bool {
	models := r.GetGpuModels()
	if r.GetGpuModel() != "" {
		models = []string{r.GetGpuModel()}
	}
	return len(models) > 0 && !slices.ContainsFunc(models, func(m string) bool { return !strings.HasPrefix(m, "TPU-") })
}

// defaultQueue takes the jobs that name no queue.
const defaultQueue = "default"

func requestValue(r *pb.RoleSpec) scheduler.Request {
	res := r.GetResources()
	profile := res.GetMigProfile()
	if profile == "" && asksForTPU(res) {
		profile = kindTPU
	}
	return scheduler.Request{CPU: res.GetCpuMilli(), Memory: res.GetMemoryBytes(), GPUs: res.GetGpus(), Share: res.GetGpuShareMilli(),
		GPUMemory: res.GetGpuMemoryBytes(), Model: res.GetGpuModel(), Models: res.GetGpuModels(), Profile: profile,
		NUMA: res.GetNuma(), Ports: int32(len(r.Ports))}
}

func exprValue(e *pb.Expr) *scheduler.Expr {
	switch {
	case e == nil:
		return nil
	case e.GetAll() != nil:
		return &scheduler.Expr{All: exprValues(e.GetAll().Of)}
	case e.GetAny() != nil:
		return &scheduler.Expr{Any: exprValues(e.GetAny().Of)}
	case e.GetNot() != nil:
		return &scheduler.Expr{Not: exprValue(e.GetNot())}
	}
	return &scheduler.Expr{Match: &scheduler.Match{Key: e.GetMatch().GetKey(), Values: e.GetMatch().GetValues()}}
}

func exprValues(of []*pb.Expr) []scheduler.Expr {
	values := make([]scheduler.Expr, 0, len(of))
	for _, e := range of {
		values = append(values, *exprValue(e))
	}
	return values
}

func claimValue(c *pb.Claim) *scheduler.Claim {
	if c == nil {
		return nil
	}
	v := &scheduler.Claim{Kind: scheduler.ClaimKind(c.Kind), UntilMS: c.UntilMs, Counts: c.Counts}
	for _, s := range c.Slots {
		v.Slots = append(v.Slots, scheduler.Slot{NodeID: s.NodeId, CPU: s.CpuMilli, Memory: s.MemoryBytes, Devices: grantValues(s.Devices)})
	}
	return v
}

func grantValues(grants []*pb.DeviceGrant) []scheduler.Grant {
	var values []scheduler.Grant
	for _, g := range grants {
		values = append(values, scheduler.Grant{DeviceID: g.DeviceId, Share: g.ShareMilli, Memory: g.MemoryBytes})
	}
	return values
}

// modelled names the models of granted devices.
func modelled(grants []scheduler.Grant, account *pb.NodeAccount) []scheduler.Grant {
	for i := range grants {
		for _, d := range account.GetDevices() {
			if d.DeviceId == grants[i].DeviceID {
				grants[i].Model = d.Model
			}
		}
	}
	return grants
}

func reservationValue(r *pb.Reservation) scheduler.Reservation {
	return scheduler.Reservation{Name: r.Name, Maintenance: r.Kind == pb.ReservationKind_RESERVATION_KIND_MAINTENANCE,
		StartMS: r.StartMs, EndMS: r.EndMs, NodeIDs: r.NodeIds, Nodes: r.Nodes, GPUs: r.Gpus, Where: exprValue(r.Where), Queue: r.Queue}
}

func queueValue(q *pb.Queue) scheduler.Queue {
	v := scheduler.Queue{Name: q.Name, Parent: q.Parent, Weight: float64(q.Weight), RunningMax: q.RunningMax,
		UserRunning: q.UserRunningMax, UserShareMax: q.UserGpuMilliMax}
	for _, l := range q.Limits {
		v.Limits = append(v.Limits, scheduler.Limit{Resource: l.Resource, Nominal: l.Nominal, Borrow: l.Borrow, Lend: l.Lend})
	}
	return v
}

// runningValue is a live attempt with what its tasks hold, but for what depends on time.
func runningValue(st *state.State, j *pb.Job, a *pb.Attempt) scheduler.Running {
	spec := j.GetSpec()
	v := scheduler.Running{JobID: j.Id, Name: state.JobName(spec), Queue: cmp.Or(spec.GetQueue(), defaultQueue), User: j.User, Group: j.Parent,
		Priority: spec.GetPriority(), Epoch: a.Epoch, Submit: j.SubmitIndex, Ordinal: j.SubmitOrdinal, StartedMS: a.PlacedMs,
		RestartMS: spec.GetRestartMs(), MinRunMS: spec.GetMinRunMs(), Preemptions: j.Preemptions, NoPreempt: spec.GetNoPreempt(),
		Ending: a.State == pb.AttemptState_ATTEMPT_STATE_ENDING || j.StopRequested, Reservation: spec.GetReservation(),
		Claim: claimValue(j.Claim)}
	for t := range st.JobTasks(j.Id, a.Epoch) {
		alloc := st.Allocation(t.Id)
		if alloc == nil {
			continue
		}
		v.Slots = append(v.Slots, scheduler.Slot{NodeID: alloc.NodeId, CPU: alloc.CpuMilli, Memory: alloc.MemoryBytes,
			Ports: int32(len(alloc.Ports)), Devices: modelled(grantValues(alloc.Devices), st.Account(alloc.NodeId))})
	}
	v.Counts = state.AttemptCounts(spec, a)
	if elasticSpec(spec) {
		job := jobValue(st, j)
		job.Avoid = avoided(j, st.TimeMS())
		v.Job = &job
	}
	for i, r := range spec.GetRoles() {
		if r.CountMin > 0 {
			v.Elastic = append(v.Elastic, scheduler.Elastic{Role: i, Min: r.CountMin, Max: r.Count, Count: v.Counts[i]})
		}
	}
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
