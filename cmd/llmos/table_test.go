package main

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// jobView makes a view of a job of so many tasks, submitted so many seconds before noon.
func jobView(id string, state pb.JobState, tasks int, secondsAgo int64) *pb.JobView {
	v := &pb.JobView{Job: &pb.Job{Id: id, State: state, SubmittedMs: noon.UnixMilli() - secondsAgo*1000, Epoch: 1,
		Spec: &pb.JobSpec{Roles: []*pb.RoleSpec{{Name: "worker", Count: int32(tasks), Resources: &pb.Resources{Gpus: 1}}}}}}
	for rank := range tasks {
		t := &pb.Task{JobId: id, Rank: int32(rank), NodeId: "n-" + string(rune('a'+rank))}
		if state == pb.JobState_JOB_STATE_RUNNING {
			t.State = pb.TaskState_TASK_STATE_RUNNING
		}
		v.Tasks = append(v.Tasks, t)
	}
	return v
}

func someJobs() *pb.ListJobsResponse {
	running := jobView("train-1", pb.JobState_JOB_STATE_RUNNING, 2, 95)
	running.Progress = []*pb.Progress{{Rank: 1, Step: 1}, {Rank: 0, Step: 120, Steps: 400, Values: map[string]float64{"loss": 1.8312, "tokens_per_s": 5400}}}
	wide := jobView("a-rather-long-name-for-a-job-17", pb.JobState_JOB_STATE_RUNNING, 3, 7200)
	wide.Job.Spec.Roles[0].Resources.GpuShareMilli = 250
	waiting := jobView("second-1", pb.JobState_JOB_STATE_PENDING, 4, 12)
	waiting.Job.Epoch, waiting.Tasks = 0, nil
	waiting.WaitingReason = "needs 4 devices at once on nodes that have 2 free, and that is the whole of a long explanation that goes on"
	failed := jobView("bad-3", pb.JobState_JOB_STATE_FAILED, 1, 400_000)
	failed.Job.Reason, failed.Job.Spec.Roles[0].Resources = "rank 0: exit 7", nil
	done := jobView("charlm-2", pb.JobState_JOB_STATE_SUCCEEDED, 1, 300)
	done.Job.StartedMs, done.Job.FinishedMs = done.Job.SubmittedMs+1000, done.Job.SubmittedMs+73_000
	return &pb.ListJobsResponse{Jobs: []*pb.JobView{running, wide, waiting, failed, done}}
}

func someNodes() *pb.ListNodesResponse {
	device := func(id, model string, index int32, health pb.DeviceHealth) *pb.Device {
		return &pb.Device{Id: id, Kind: "gpu", Model: model, Index: index, Health: health}
	}
	ok := pb.DeviceHealth_DEVICE_HEALTH_OK
	stale := device("GPU-3", "A100-40GB", 0, pb.DeviceHealth_DEVICE_HEALTH_STALE)
	stale.Reason = "the prober is silent since 12:00"
	return &pb.ListNodesResponse{Nodes: []*pb.NodeView{
		{Tasks: 3, Node: &pb.Node{Id: "n-a", Name: "gpu-1", Addr: "10.0.0.1:7301", State: pb.NodeState_NODE_STATE_READY, CpuMilli: 64_000, MemoryBytes: 512 << 30,
			Devices: []*pb.Device{device("GPU-1", "H100-80GB", 0, ok), device("GPU-2", "H100-80GB", 1, ok)}},
			Account: &pb.NodeAccount{CpuAllocated: 2500, MemoryAllocated: 3 << 29, Devices: []*pb.DeviceAccount{{DeviceId: "GPU-1", Model: "H100-80GB", ShareAllocated: 250}, {DeviceId: "GPU-2", Model: "H100-80GB", ShareAllocated: 1000}}}},
		{Node: &pb.Node{Id: "n-b", Name: "gpu-2", Addr: "10.0.0.2:7301", State: pb.NodeState_NODE_STATE_SILENT, CpuMilli: 8000, MemoryBytes: 16 << 30,
			Devices: []*pb.Device{stale, device("GPU-4", "H100-80GB", 1, ok)}}, Account: &pb.NodeAccount{}},
		{Node: &pb.Node{Id: "n-c", Name: "cpu-1", Addr: "10.0.0.3:7301", State: pb.NodeState_NODE_STATE_LOST, CpuMilli: 4000, MemoryBytes: 8 << 30}, Account: &pb.NodeAccount{}},
	}}
}

func someStatus() *pb.ClusterStatus {
	return &pb.ClusterStatus{ClusterId: "c-1", Name: "lab", LeaderId: "s-1", LeaderAddr: "10.0.0.1:7300", Term: 4, AppliedIndex: 120,
		NodesReady: 2, NodesTotal: 3, DevicesFree: 3, DevicesTotal: 4, JobsRunning: 2, JobsPending: 1,
		Servers: []*pb.ServerStatus{
			{Id: "s-1", Addr: "10.0.0.1:7300", Voter: true, Leader: true, Reachable: true, AppliedIndex: 120},
			{Id: "s-2", Addr: "10.0.0.2:7300", Voter: true, Reachable: true, AppliedIndex: 119},
			{Id: "s-3", Addr: "10.0.0.3:7300"}}}
}

// TestTables holds what people see: ps, nodes, status and why, in a pipe.
func TestTables(t *testing.T) {
	a, out, _ := testApp()
	names := map[string]string{"n-a": "gpu-1", "n-b": "gpu-2"}
	a.showJobs(someJobs(), names, true, false)
	golden(t, "ps.golden", out.String())
	out.Reset()
	a.showNodes(someNodes())
	golden(t, "nodes.golden", out.String())
	out.Reset()
	a.showStatus(someStatus())
	a.printf("\n")
	a.showStatus(&pb.ClusterStatus{ClusterId: "c-1", InvariantFault: "I2: device d of node n is held twice"})
	golden(t, "status.golden", out.String())
	out.Reset()
	waits := &pb.Explanation{JobId: "second-1", State: pb.JobState_JOB_STATE_PENDING, Reason: "needs 3 devices at once; the freest node has 1",
		Remedy: "it starts when first-1 ends", Details: []string{"gpu-1: 1 of 4 devices are free", "gpu-2: is silent"},
		WouldStart: []string{"with 1 GPU", "in queue language"}, ExpectedStartMs: noon.Add(72 * time.Minute).UnixMilli(),
		Events: []*pb.Event{{TimeMs: noon.UnixMilli(), Kind: "job.submitted", Message: "submitted by u-1"}, {TimeMs: noon.UnixMilli() + 1000, Kind: "job.waits"}}}
	a.showExplanation(waits, false)
	a.printf("\n")
	a.showExplanation(waits, true)
	golden(t, "why.golden", out.String())
}

// TestDeviceTables holds what people see of devices and their errors, in a pipe.
func TestDeviceTables(t *testing.T) {
	a, out, _ := testApp()
	nodes := someNodes()
	nodes.Nodes[0].Node.Unfit = "device GPU-1: XID 79 (the GPU has fallen off the bus)"
	slice := nodes.Nodes[1].Node.Devices[1]
	slice.MigProfile, slice.MemoryBytes, slice.Health, slice.Reason = "1g.10gb", 10<<30, pb.DeviceHealth_DEVICE_HEALTH_BLOCKED, "3.0 GiB of its memory are held by process 17, of no task of this node"
	nodes.Nodes[0].Sample = &pb.NodeSample{Devices: []*pb.DeviceSample{
		{DeviceId: "GPU-1", Percent: 97, MemoryUsedBytes: 61 << 30, Celsius: 64, Milliwatt: 688_700, EccCorrected: 3},
		{DeviceId: "GPU-2", Percent: -1, MemoryUsedBytes: -1, Celsius: -1, Milliwatt: -1, EccCorrected: -1, EccUncorrected: -1}}}
	nodes.Nodes[0].Allocations = []*pb.Allocation{{TaskId: "train-1.e1.r0", Devices: []*pb.DeviceGrant{{DeviceId: "GPU-1"}}}, {TaskId: "small-1.e1.r0", Devices: []*pb.DeviceGrant{{DeviceId: "GPU-1"}, {DeviceId: "GPU-2"}}}}
	a.showDevices(nodes)
	a.printf("\n")
	a.showNodes(nodes)
	a.printf("\n")
	a.showXIDs(&pb.XIDActions{Unknown: "drain device", Xids: []*pb.XIDAction{{Code: 31, Action: "ignore", Meaning: "a page fault"}, {Code: 79, Action: "needs reset", Meaning: "fallen off", Changed: true}}}, true)
	golden(t, "devices.golden", out.String())
	out.Reset()
	a.showDevices(&pb.ListNodesResponse{})
	if out.Len() > 0 {
		t.Errorf("%s", out)
	}
}

// TestTablesOnTerminal holds tables to the width of the terminal and colours to their place.
func TestTablesOnTerminal(t *testing.T) {
	for _, width := range []int{widthMax, 200} {
		a, out, _ := testApp()
		a.outTTY, a.columns = true, func() int { return width }
		a.showJobs(someJobs(), nil, true, false)
		if !strings.Contains(out.String(), "\x1b["+green+"mrunning\x1b[0m") {
			t.Errorf("no colour on a terminal:\n%q", out)
		}
		a.getenv = func(name string) (string, bool) { return "1", name == "NO_COLOR" }
		out.Reset()
		a.showJobs(someJobs(), nil, true, false)
		for _, line := range strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n") {
			if n := utf8.RuneCountInString(line); n > min(width, widthMax) {
				t.Errorf("%d columns on a terminal of %d: %s", n, width, line)
			}
		}
		if strings.Contains(out.String(), "\x1b") {
			t.Errorf("colours in spite of NO_COLOR:\n%q", out)
		}
	}
}

func TestEmptyListsSayWhatToDo(t *testing.T) {
	a, out, errOut := testApp()
	a.showJobs(&pb.ListJobsResponse{}, nil, false, false)
	a.showJobs(&pb.ListJobsResponse{}, nil, true, false)
	a.showNodes(&pb.ListNodesResponse{})
	if out.Len() > 0 || strings.Count(errOut.String(), "llmos ") < 3 {
		t.Errorf("out %q, err %q", out, errOut)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\x1b[31mb\nc\td\x07"); got != "a[31mb c d" {
		t.Errorf("got %q", got)
	}
}
