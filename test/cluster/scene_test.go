package cluster_test

import (
	"testing"
	"time"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server"
	"llmos/test/cluster"
)

// The states and wishes that the conversations of this package speak of.
const (
	running   = pb.TaskState_TASK_STATE_RUNNING
	succeeded = pb.TaskState_TASK_STATE_SUCCEEDED
	stopped   = pb.TaskState_TASK_STATE_STOPPED
	lost      = pb.TaskState_TASK_STATE_LOST
	toRun     = pb.TaskDesired_TASK_DESIRED_RUN
	toStop    = pb.TaskDesired_TASK_DESIRED_STOP

	notLeader   = pb.ErrorKind_ERROR_KIND_NOT_LEADER
	unavailable = pb.ErrorKind_ERROR_KIND_UNAVAILABLE
	conflict    = pb.ErrorKind_ERROR_KIND_CONFLICT
)

// steady is for conversations that a change of leader would interrupt: a busy machine must
// not make one by accident.
func steady() server.Timing {
	t := server.Fast()
	t.HeartbeatTimeout, t.ElectionTimeout, t.LeaderLease = time.Second, time.Second, time.Second
	return t
}

// job is a spec of count tasks with so much each.
func job(name string, count int32, cpus int64, gpus int32) *pb.JobSpec {
	return &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, Roles: []*pb.RoleSpec{{
		Name: "worker", Count: count, Command: []string{"true"},
		Resources: &pb.Resources{CpuMilli: cpus * 1000, MemoryBytes: 1 << 20, Gpus: gpus}}}}
}

func submit(t *testing.T, c *cluster.Cluster, spec *pb.JobSpec, request string) string {
	t.Helper()
	resp, err := c.Client().SubmitJob(c.Context(), &pb.SubmitJobRequest{RequestId: request, Spec: spec})
	if err != nil {
		t.Fatalf("submit %s: %v", spec.Name, err)
	}
	return resp.JobId
}

func view(t *testing.T, c *cluster.Cluster, id string) *pb.JobView {
	t.Helper()
	v, err := c.Client().GetJob(c.Context(), &pb.GetJobRequest{JobId: id})
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return v
}

// read gives a linearizable state of whoever leads.
func read(t *testing.T, c *cluster.Cluster) *state.State {
	t.Helper()
	var s *state.State
	cluster.Wait(t, "a linearizable read", func() (ok bool) {
		var err error
		s, err = c.Leader().Read(c.Context())
		return err == nil
	})
	return s
}

// awaitState waits until a state fulfils the condition, and gives that state.
func awaitState(t *testing.T, c *cluster.Cluster, what string, holds func(*state.State) bool) *state.State {
	t.Helper()
	var s *state.State
	cluster.Wait(t, what, func() bool {
		s = read(t, c)
		return holds(s)
	})
	return s
}

func followers(c *cluster.Cluster, leader *cluster.Server) (out []*cluster.Server) {
	for _, s := range c.Servers {
		if s != leader {
			out = append(out, s)
		}
	}
	return out
}

func wantKind(t *testing.T, what string, err error, kinds ...pb.ErrorKind) {
	t.Helper()
	for _, k := range kinds {
		if fault.Kind(err) == k {
			return
		}
	}
	t.Errorf("%s: %v (%v), want %v", what, err, fault.Kind(err), kinds)
}

// wantEmptyLedger fails when anything is still allocated.
func wantEmptyLedger(t *testing.T, s *state.State) {
	t.Helper()
	for a := range s.Allocations() {
		t.Errorf("allocation left: %v", a)
	}
	for a := range s.Accounts() {
		if a.CpuAllocated != 0 || a.MemoryAllocated != 0 || len(a.PortsAllocated) != 0 {
			t.Errorf("account not at zero: %v", a)
		}
		for _, d := range a.Devices {
			if d.ShareAllocated != 0 || d.MemoryAllocated != 0 {
				t.Errorf("device not at zero: %v", d)
			}
		}
	}
	if err := state.Check(s); err != nil {
		t.Error(err)
	}
}
