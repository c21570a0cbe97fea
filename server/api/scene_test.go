package api

import (
	"fmt"
	"time"

	pb "llmos/proto/llmos/v1"
)

// What happens to jobs and nodes in the tests, as commands of the log.

func (r *rig) node(id, name, addr string, gpus int) {
	r.t.Helper()
	n := &pb.Node{Id: id, Name: name, Addr: addr, BootId: "boot", CpuMilli: 8000, MemoryBytes: 16 << 30, PortMin: 20000, PortMax: 20099}
	for i := range gpus {
		n.Devices = append(n.Devices, &pb.Device{Id: fmt.Sprintf("%s-gpu%d", id, i), Kind: "gpu", Model: "H100-80GB",
			MemoryBytes: 80 << 30, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(i)})
	}
	r.must(&pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: n}}})
}

func (r *rig) submit(name string, count int32) string {
	r.t.Helper()
	spec := simpleSpec(name, count)
	spec.Retries = 3
	res := r.apply(&pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: "submit-" + name, Spec: spec, User: "jane"}}})
	if res[0].Fault != nil {
		r.t.Fatalf("submit %s: %v", name, res[0].Fault)
	}
	return res[0].JobId
}

// place puts the job's next attempt on one node.
func (r *rig) place(job, node string) {
	r.t.Helper()
	rec := r.f.State().Job(job)
	gang := &pb.GangPlacement{JobId: job, Epoch: rec.Epoch + 1}
	world := rec.Spec.Roles[0].Count
	for rank := range world {
		p := &pb.TaskPlacement{NodeId: node}
		if rank == 0 && world > 1 {
			p.Ports = []int32{20000 + int32(r.index%90)}
		}
		gang.Tasks = append(gang.Tasks, p)
	}
	r.must(&pb.Command{Op: &pb.Command_ApplyPlan{ApplyPlan: &pb.ApplyPlan{Gangs: []*pb.GangPlacement{gang}}}})
}

func taskID(job string, epoch uint64, rank int) string {
	return fmt.Sprintf("%s.e%d.r%d", job, epoch, rank)
}

// report tells one rank's transition, as its agent would.
func (r *rig) report(job, node string, rank int, s pb.TaskState, code int32) {
	r.t.Helper()
	epoch := r.f.State().Job(job).Epoch
	now := time.Now().UnixMilli()
	r.must(&pb.Command{Op: &pb.Command_ReportTasks{ReportTasks: &pb.ReportTasks{NodeId: node, Reports: []*pb.TaskReport{{
		TaskId: taskID(job, epoch, rank), Epoch: epoch, State: s, ExitCode: code, StartedMs: now, EndedMs: now,
	}}}}})
}

// reportAll tells the same of every rank.
func (r *rig) reportAll(job, node string, s pb.TaskState) {
	r.t.Helper()
	for rank := range r.f.State().Job(job).Spec.Roles[0].Count {
		r.report(job, node, int(rank), s, 0)
	}
}

func (r *rig) say(reason string, progress ...*pb.Progress) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.reason, r.progress = reason, progress
}

const (
	taskRunning   = pb.TaskState_TASK_STATE_RUNNING
	taskSucceeded = pb.TaskState_TASK_STATE_SUCCEEDED
	taskFailed    = pb.TaskState_TASK_STATE_FAILED
	taskStopped   = pb.TaskState_TASK_STATE_STOPPED
)
