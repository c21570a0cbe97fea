package agent

import (
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// ofFramework is the assignment of rank 1 of 2.
func ofFramework(f pb.Framework) *pb.Assignment {
	return &pb.Assignment{
		Task:       &pb.Task{Id: "t-1.e2.r1", JobId: "t-1", Epoch: 2, Rank: 1, LocalRank: 1, Role: "worker", Index: 1},
		Role:       &pb.RoleSpec{Name: "worker", Count: 2, Command: []string{"python", "train.py"}, Ports: []string{"http", "tensorflow"}},
		Allocation: &pb.Allocation{Ports: []int32{21000, 21001}, Devices: []*pb.DeviceGrant{{DeviceId: "GPU-a"}, {DeviceId: "GPU-b"}}},
		Attempt:    &pb.Attempt{WorldSize: 2, RendezvousHost: "fd00::1", RendezvousPort: 20000, Counts: []int32{2}},
		Framework:  f, Peers: []*pb.Peer{{Role: "worker", Host: "fd00::1", Port: 20002}, {Role: "worker", Index: 1, Host: "10.0.0.2", Port: 21001}},
	}
}

// TestFrameworks holds what each framework finds beside the plain variables.
func TestFrameworks(t *testing.T) {
	s := site{tasks: "/data/tasks", self: "/usr/bin/llmos"}
	plain := map[string]bool{}
	for _, v := range s.environment(ofFramework(pb.Framework_FRAMEWORK_UNSPECIFIED), 2) {
		plain[v] = true
	}
	for _, c := range []struct {
		framework     pb.Framework
		want, command string
	}{
		{pb.Framework_FRAMEWORK_UNSPECIFIED, "", "python train.py"},
		{pb.Framework_FRAMEWORK_NONE, "LLMOS_FRAMEWORK=none", "python train.py"},
		{pb.Framework_FRAMEWORK_PYTORCH, `LOCAL_RANK=0
LOCAL_WORLD_SIZE=1
LLMOS_FRAMEWORK=pytorch
GROUP_RANK=1
GROUP_WORLD_SIZE=2
ROLE_NAME=worker
ROLE_RANK=1
ROLE_WORLD_SIZE=2
TORCHELASTIC_RUN_ID=t-1
TORCHELASTIC_RESTART_COUNT=1
TORCHELASTIC_USE_AGENT_STORE=False
PET_NPROC_PER_NODE=2
PET_MAX_RESTARTS=0
PET_NNODES=2
PET_NODE_RANK=1
PET_RDZV_ID=t-1.e2
PET_RDZV_BACKEND=static
PET_RDZV_ENDPOINT=[fd00::1]:20000
PET_MASTER_ADDR=fd00::1
PET_MASTER_PORT=20000`, "python train.py"},
		{pb.Framework_FRAMEWORK_TENSORFLOW, `LLMOS_FRAMEWORK=tensorflow
TF_CONFIG={"cluster":{"worker":["[fd00::1]:20002","10.0.0.2:21001"]},"task":{"type":"worker","index":1}}`, "python train.py"},
		{pb.Framework_FRAMEWORK_JAX, `LLMOS_FRAMEWORK=jax
JAX_COORDINATOR_ADDRESS=[fd00::1]:20000
JAX_NUM_PROCESSES=2
JAX_PROCESS_ID=1`, "python train.py"},
		{pb.Framework_FRAMEWORK_MPI, `LLMOS_FRAMEWORK=mpi
LLMOS_MPI_PEERS=[fd00::1]:20002,10.0.0.2:21001`, "/usr/bin/llmos mpi-task -- python train.py"},
	} {
		a := ofFramework(c.framework)
		var got []string
		for _, v := range s.environment(a, 2) {
			if !plain[v] {
				got = append(got, v)
			}
		}
		if text := strings.Join(got, "\n"); text != c.want {
			t.Errorf("%v: got\n%s\nwant\n%s", c.framework, text, c.want)
		}
		if command := strings.Join(s.command(a), " "); command != c.command {
			t.Errorf("%v: the task runs %q, want %q", c.framework, command, c.command)
		}
	}
}

// TestTorchrunAlone: a task alone meets nobody, and does not take torchrun's one default port.
func TestTorchrunAlone(t *testing.T) {
	a := ofFramework(pb.Framework_FRAMEWORK_PYTORCH)
	a.Task.Rank, a.Attempt = 0, &pb.Attempt{WorldSize: 1, RendezvousHost: "10.0.0.1"}
	got := strings.Join(site{}.environment(a, 1), "\n")
	if !strings.Contains(got, "\nPET_STANDALONE=1") || strings.Contains(got, "PET_RDZV_") {
		t.Error(got)
	}
}

// TestTensorFlowRoles: an evaluator is told the cluster and is no part of it.
func TestTensorFlowRoles(t *testing.T) {
	a := ofFramework(pb.Framework_FRAMEWORK_TENSORFLOW)
	a.Task.Role, a.Task.Index = "evaluator", 0
	a.Peers = []*pb.Peer{{Role: "chief", Host: "a", Port: 1}, {Role: "ps", Host: "b", Port: 2}, {Role: "worker", Host: "c", Port: 3},
		{Role: "worker", Index: 1, Host: "d", Port: 4}, {Role: "evaluator", Host: "e", Port: 5}}
	want := `{"cluster":{"chief":["a:1"],"ps":["b:2"],"worker":["c:3","d:4"]},"task":{"type":"evaluator","index":0}}`
	if got := tensorflowConfig(a); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	a.Peers[1].Port = 0
	if got := tensorflowConfig(a); got != "" {
		t.Errorf("a task has no port, and TF_CONFIG is %s", got)
	}
}
