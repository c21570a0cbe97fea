package fsm

import (
	"slices"
	"strings"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// applyPlan commits the evictions, the claims and the gangs of a plan in order, each against the
// state after the one before it, whole or refused with its own fault. A refused claim has none: it
// was for a job that needs it no more.
func (a *applier) applyPlan(c *pb.ApplyPlan, r *pb.Result) *pb.Fault {
	if len(c.Gangs) > gangsMax {
		return limit("plan in parts", "the plan has %d gangs, at most %d", len(c.Gangs), gangsMax)
	}
	if len(c.Evictions) > gangsMax || len(c.Claims) > gangsMax {
		return limit("plan in parts", "the plan has %d evictions and %d claims, at most %d of each", len(c.Evictions), len(c.Claims), gangsMax)
	}
	for _, e := range c.Evictions {
		before := a.txn.Savepoint()
		f := a.evict(e)
		if f != nil {
			a.txn.Rollback(before)
		} else {
			f = &pb.Fault{}
		}
		r.Evictions = append(r.Evictions, f)
	}
	for _, claim := range c.Claims {
		before := a.txn.Savepoint()
		if f := a.setClaim(claim); f != nil {
			a.txn.Rollback(before)
		}
	}
	r.Gangs = make([]*pb.GangResult, len(c.Gangs))
	for i, g := range c.Gangs {
		before := a.txn.Savepoint()
		f := a.placeGang(g)
		if f != nil {
			a.txn.Rollback(before)
		}
		r.Gangs[i] = &pb.GangResult{JobId: g.GetJobId(), Fault: f}
	}
	return nil
}

// placeGang makes the next attempt of a pending job.
func (a *applier) placeGang(g *pb.GangPlacement) *pb.Fault {
	job := a.txn.Job(g.GetJobId())
	if job == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "there is no job %q", cut(g.GetJobId()))
	}
	if g.Epoch != job.Epoch+1 {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_STALE_EPOCH, "plan again",
			"the placement is of attempt %d of job %s, and the next one is %d", g.Epoch, job.Id, job.Epoch+1)
	}
	if job.State != pb.JobState_JOB_STATE_PENDING {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "plan again", "job %s does not wait for a placement: it is %s",
			job.Id, state.Word(job.State))
	}
	if state.IsParent(job) {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "place its copies", "job %s runs in copies, and not itself", job.Id)
	}
	if len(job.BlockedBy) > 0 {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "plan again", "job %s waits for job %s to end", job.Id, job.BlockedBy[0])
	}
	counts, f := countsOf(job, g.Counts)
	if f != nil {
		return f
	}
	world := sum(counts)
	if len(g.Tasks) != world {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "job %s has %d tasks, and the placement %d", job.Id, world, len(g.Tasks))
	}
	attempt := &pb.Attempt{JobId: job.Id, Epoch: g.Epoch, State: pb.AttemptState_ATTEMPT_STATE_LIVE, PlacedMs: a.txn.TimeMS(),
		WorldSize: int32(world), RendezvousHost: hostOf(a.txn.Node(g.Tasks[0].GetNodeId()).GetAddr())}
	if a.keepsTimes() {
		attempt.Counts = counts
	}
	if attempt.Resume, f = a.resumePoint(job); f != nil {
		return f
	}
	if world > 1 && len(g.Tasks[0].GetPorts()) > 0 {
		attempt.RendezvousPort = g.Tasks[0].Ports[0]
	}
	if f := a.txn.PutAttempt(attempt); f != nil {
		return f
	}
	if f := a.placeTasks(job, g, counts, world); f != nil {
		return f
	}
	next := state.CopyJob(job)
	next.State, next.Epoch, next.Reason, next.Claim = pb.JobState_JOB_STATE_RUNNING, g.Epoch, "placed", nil
	if f := a.txn.PutJob(next); f != nil {
		return f
	}
	why := ""
	if g.Reason != "" {
		why = ": " + g.Reason
	}
	a.event("job.placed", job.Id, "", "", "attempt %d was placed %s%s", g.Epoch, a.nodesPhrase(g), cut(why))
	a.repaired(job, g)
	return nil
}

// countsOf gives how many tasks of each role an attempt has, as asked or else as the spec says.
func countsOf(job *pb.Job, asked []int32) ([]int32, *pb.Fault) {
	roles := job.Spec.Roles
	if len(asked) != 0 && len(asked) != len(roles) {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "job %s has %d roles, and %d counts came", job.Id, len(roles), len(asked))
	}
	counts := make([]int32, len(roles))
	for i, role := range roles {
		counts[i] = role.Count
		if len(asked) == 0 {
			continue
		}
		least := role.Count
		if role.CountMin > 0 {
			least = role.CountMin
		}
		if asked[i] < least || asked[i] > role.Count {
			return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "role %s of job %s has %d to %d tasks, not %d", role.Name, job.Id, least,
				role.Count, asked[i])
		}
		counts[i] = asked[i]
	}
	return counts, nil
}

func sum(counts []int32) (n int) {
	for _, c := range counts {
		n += int(c)
	}
	return n
}

func (a *applier) placeTasks(job *pb.Job, g *pb.GangPlacement, counts []int32, world int) *pb.Fault {
	local := make(map[string]int32)
	rank := int32(0)
	for r, role := range job.Spec.Roles {
		for i := range counts[r] {
			p := g.Tasks[rank]
			nodeID := p.GetNodeId()
			if f := a.takesWork(nodeID); local[nodeID] == 0 && f != nil {
				return f
			}
			task := &pb.Task{Id: state.TaskID(job.Id, g.Epoch, rank), JobId: job.Id, Epoch: g.Epoch, Role: role.Name, Index: i,
				Rank: rank, NodeId: nodeID, Desired: pb.TaskDesired_TASK_DESIRED_RUN,
				State: pb.TaskState_TASK_STATE_ASSIGNED, AssignedMs: a.txn.TimeMS(), LocalRank: local[nodeID]}
			allocation, f := a.allocation(task, role, p, rank == 0 && world > 1)
			if f != nil {
				return f
			}
			if f := a.txn.PutTask(task); f != nil {
				return f
			}
			if f := a.txn.Grant(task, allocation); f != nil {
				return f
			}
			local[nodeID]++
			rank++
		}
	}
	return nil
}

// takesWork refuses a node that an operator has drained or its agent calls unfit.
func (a *applier) takesWork(nodeID string) *pb.Fault {
	n := a.txn.Node(nodeID)
	switch {
	case n.GetDrain() != nil:
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "plan again with the newest state", "node %s is drained", nodeID)
	case n.GetUnfit() != "":
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "plan again with the newest state", "node %s takes no new work: %s", nodeID, n.Unfit)
	}
	return nil
}

// allocation is what a task of a role takes by its placement. The ledger says whether it is
// there to be taken.
func (a *applier) allocation(task *pb.Task, role *pb.RoleSpec, p *pb.TaskPlacement, rendezvous bool) (*pb.Allocation, *pb.Fault) {
	account := a.txn.Account(p.GetNodeId())
	if account == nil {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "there is no node %q", cut(p.GetNodeId()))
	}
	want := role.Resources
	ports := len(role.Ports)
	if rendezvous {
		ports++
	}
	if len(p.Ports) != ports {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "task %s needs %d ports, and the placement has %d", task.Id, ports, len(p.Ports))
	}
	if len(p.Devices) != int(want.GetGpus()) {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "task %s needs %d devices, and the placement has %d", task.Id,
			want.GetGpus(), len(p.Devices))
	}
	out := &pb.Allocation{TaskId: task.Id, JobId: task.JobId, Epoch: task.Epoch, NodeId: task.NodeId,
		CpuMilli: want.GetCpuMilli(), MemoryBytes: want.GetMemoryBytes(), Ports: p.Ports, HoldsRendezvous: rendezvous,
		GrantedMs: a.txn.TimeMS()}
	for _, d := range p.Devices {
		grant, f := deviceGrant(task, account, want, d)
		if f != nil {
			return nil, f
		}
		if f := a.rightSlice(task, want, d.DeviceId); f != nil {
			return nil, f
		}
		out.Devices = append(out.Devices, grant)
	}
	return out, nil
}

// rightSlice holds a placed device against the MIG profile that a role asks for.
func (a *applier) rightSlice(task *pb.Task, want *pb.Resources, deviceID string) *pb.Fault {
	if want.GetMigProfile() == "" {
		return nil
	}
	for _, d := range a.txn.Node(task.NodeId).GetDevices() {
		if d.Id == deviceID && d.MigProfile == want.MigProfile {
			return nil
		}
	}
	return state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "task %s asks for a MIG slice of profile %s, and %s is none", task.Id, want.MigProfile, cut(deviceID))
}

// deviceGrant holds a placed device against what the role asks for. Of memory a whole device
// takes all; a share takes what was asked, or else its proportion.
func deviceGrant(task *pb.Task, account *pb.NodeAccount, want *pb.Resources, d *pb.DeviceGrant) (*pb.DeviceGrant, *pb.Fault) {
	refuse := func(format string, args ...any) (*pb.DeviceGrant, *pb.Fault) {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", format, args...)
	}
	page := state.DevicePage(account, d.GetDeviceId())
	if page == nil {
		return nil, state.Refuse(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "plan again with the newest state", "node %s has no device %q",
			account.NodeId, cut(d.GetDeviceId()))
	}
	if len(want.GpuModels) > 0 && !slices.Contains(want.GpuModels, page.Model) {
		return refuse("task %s asks for a device of model %s, and %s is %s", task.Id, strings.Join(want.GpuModels, " or "), page.DeviceId, page.Model)
	}
	if want.GpuModel != "" && len(want.GpuModels) == 0 && page.Model != want.GpuModel {
		return refuse("task %s asks for a device of model %s, and %s is %s", task.Id, want.GpuModel, page.DeviceId, page.Model)
	}
	share, memory := int32(DeviceShareWhole), page.MemoryCapacity
	if want.GpuShareMilli > 0 {
		share, memory = want.GpuShareMilli, want.GpuMemoryBytes
		if memory == 0 {
			memory = page.MemoryCapacity / DeviceShareWhole * int64(share)
		}
	} else if page.MemoryCapacity < want.GpuMemoryBytes {
		return refuse("task %s asks for a device of %d bytes, and %s has %d", task.Id, want.GpuMemoryBytes, page.DeviceId, page.MemoryCapacity)
	}
	if d.ShareMilli != share && d.ShareMilli != 0 {
		return refuse("task %s asks for %d thousandths of a device, and the placement has %d", task.Id, share, d.ShareMilli)
	}
	if d.MemoryBytes != 0 {
		if d.MemoryBytes < memory {
			return refuse("task %s needs %d bytes of device %s, and the placement has %d", task.Id, memory, page.DeviceId, d.MemoryBytes)
		}
		memory = d.MemoryBytes
	}
	return &pb.DeviceGrant{DeviceId: page.DeviceId, ShareMilli: share, MemoryBytes: memory}, nil
}

// hostOf gives the host of host:port.
func hostOf(addr string) string {
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		addr = addr[:i]
	}
	return strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
}

func (a *applier) nodesPhrase(g *pb.GangPlacement) string {
	names := make([]string, 0, namesShown)
	last := ""
	for _, p := range g.Tasks {
		if p.GetNodeId() == last {
			continue
		}
		if len(names) == namesShown {
			return "on " + strings.Join(names, ", ") + " and others"
		}
		last = p.GetNodeId()
		names = append(names, a.txn.Node(last).GetName())
	}
	return "on " + strings.Join(names, ", ")
}
