package agent

import (
	"encoding/json"
	"fmt"
	"net"
	"strconv"
	"strings"

	"llmos/agent/mpi"
	pb "llmos/proto/llmos/v1"
)

// frameworkWord is the framework as a job file names it; empty when the job names none.
func frameworkWord(f pb.Framework) string {
	if f == pb.Framework_FRAMEWORK_UNSPECIFIED {
		return ""
	}
	return strings.ToLower(strings.TrimPrefix(f.String(), "FRAMEWORK_"))
}

// setFramework sets what the job's framework reads, beside the plain variables. Every address
// is the attempt's: it comes from the ledger, is the same for all of its ranks, and the next
// attempt has another.
func setFramework(a *pb.Assignment, set func(name, value string)) {
	word := frameworkWord(a.GetFramework())
	if word == "" {
		return
	}
	set("LLMOS_FRAMEWORK", word)
	switch a.GetFramework() {
	case pb.Framework_FRAMEWORK_PYTORCH:
		setPyTorch(a, set)
	case pb.Framework_FRAMEWORK_TENSORFLOW:
		if config := tensorflowConfig(a); config != "" {
			set("TF_CONFIG", config)
		}
	case pb.Framework_FRAMEWORK_JAX:
		if addr := rendezvous(a.GetAttempt()); addr != "" {
			set("JAX_COORDINATOR_ADDRESS", addr)
		}
		set("JAX_NUM_PROCESSES", strconv.Itoa(int(a.GetAttempt().GetWorldSize())))
		set("JAX_PROCESS_ID", strconv.Itoa(int(a.GetTask().GetRank())))
	case pb.Framework_FRAMEWORK_MPI:
		addrs := make([]string, len(a.GetPeers()))
		for i, p := range a.GetPeers() {
			addrs[i] = peerAddr(p)
		}
		set(mpi.PeersVariable, strings.Join(addrs, ","))
	}
}

// setPyTorch sets what torchrun would set for a task that is a node of its own with one
// process: its devices are the only ones that it sees, so that its local rank, by which scripts
// choose a device, is 0. It also sets the flags of torchrun as PET_ variables, so that a command
// which calls torchrun meets the other tasks without a flag.
func setPyTorch(a *pb.Assignment, set func(name, value string)) {
	task, attempt := a.GetTask(), a.GetAttempt()
	rank, world := strconv.Itoa(int(task.GetRank())), strconv.Itoa(int(attempt.GetWorldSize()))
	set("LOCAL_RANK", "0")
	set("LOCAL_WORLD_SIZE", "1")
	set("GROUP_RANK", rank)
	set("GROUP_WORLD_SIZE", world)
	set("ROLE_NAME", task.GetRole())
	set("ROLE_RANK", strconv.Itoa(int(task.GetIndex())))
	if roles := attempt.GetCounts(); len(roles) == 1 || a.GetRole().GetCountMin() == 0 {
		size := a.GetRole().GetCount()
		if len(roles) == 1 {
			size = roles[0]
		}
		set("ROLE_WORLD_SIZE", strconv.Itoa(int(size)))
	}
	set("TORCHELASTIC_RUN_ID", task.GetJobId())
	set("TORCHELASTIC_RESTART_COUNT", strconv.FormatUint(max(task.GetEpoch(), 1)-1, 10))
	set("TORCHELASTIC_USE_AGENT_STORE", "False") // rank 0 listens itself
	set("PET_NPROC_PER_NODE", strconv.Itoa(max(1, len(a.GetAllocation().GetDevices()))))
	set("PET_MAX_RESTARTS", "0") // llmos starts the gang again, all ranks together
	addr := rendezvous(attempt)
	if addr == "" {
		set("PET_STANDALONE", "1") // alone: on a free port, not on the one that all others would take
		return
	}
	set("PET_NNODES", world)
	set("PET_NODE_RANK", rank)
	set("PET_RDZV_ID", fmt.Sprintf("%s.e%d", task.GetJobId(), task.GetEpoch()))
	set("PET_RDZV_BACKEND", "static")
	set("PET_RDZV_ENDPOINT", addr)
	set("PET_MASTER_ADDR", masterHost(attempt))
	set("PET_MASTER_PORT", strconv.Itoa(int(attempt.GetRendezvousPort())))
}

// rendezvous is where the ranks of an attempt meet; empty for a rank alone.
func rendezvous(attempt *pb.Attempt) string {
	if attempt.GetRendezvousPort() == 0 {
		return ""
	}
	return net.JoinHostPort(masterHost(attempt), strconv.Itoa(int(attempt.GetRendezvousPort())))
}

func peerAddr(p *pb.Peer) string {
	return net.JoinHostPort(p.GetHost(), strconv.Itoa(int(p.GetPort())))
}

// tensorflowConfig is TF_CONFIG: the addresses of every task by role, and which of them this is.
// Evaluators are told the cluster and are not part of it. Empty when a task has no port.
func tensorflowConfig(a *pb.Assignment) string {
	type self struct {
		Type  string `json:"type"`
		Index int32  `json:"index"`
	}
	cluster := map[string][]string{}
	for _, p := range a.GetPeers() {
		if p.GetPort() == 0 || p.GetHost() == "" {
			return ""
		}
		if p.GetRole() != "evaluator" {
			cluster[p.GetRole()] = append(cluster[p.GetRole()], peerAddr(p)) // peers come by rank, so by index
		}
	}
	if len(cluster) == 0 {
		return ""
	}
	config, err := json.Marshal(struct {
		Cluster map[string][]string `json:"cluster"`
		Task    self                `json:"task"`
	}{cluster, self{a.GetTask().GetRole(), a.GetTask().GetIndex()}})
	if err != nil {
		return "" // never: it is all text and numbers
	}
	return string(config)
}

// command is what the task's shim runs: the role's command; of an MPI job below the verb that
// stands in for ssh.
func (s site) command(a *pb.Assignment) []string {
	command := a.GetRole().GetCommand()
	if a.GetFramework() != pb.Framework_FRAMEWORK_MPI {
		return command
	}
	return append([]string{s.self, mpi.TaskVerb, "--"}, command...)
}
