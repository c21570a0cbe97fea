package cluster_test

import (
	"strings"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

// TestSeedExample is the mission's own sample: a node of 4 CPUs and 2 GPUs, job 1 with 2
// CPUs and 1 GPU, job 2 with 1 CPU and 1 GPU. Both run at once; a third, which the sample
// would have failed, waits with a reason and runs when a GPU is free; nothing leaks.
func TestSeedExample(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 2).Connect()
	one := submit(t, c, job("one", 1, 2, 1), "")
	two := submit(t, c, job("two", 1, 1, 1), "")
	tasks := map[string]*pb.Task{}
	devices := map[string]string{}
	for _, id := range []string{one, two} {
		order := agent.Order(id, toRun)
		tasks[id] = order.Task
		if len(order.Allocation.Devices) != 1 || len(order.AttemptKey) != 32 {
			t.Fatalf("the order for %s is %v", id, order)
		}
		devices[order.Allocation.Devices[0].DeviceId] = id
	}
	if len(devices) != 2 {
		t.Errorf("two jobs share the devices %v", devices)
	}
	agent.Report(cluster.Seen(tasks[one], running), cluster.Seen(tasks[two], running))
	wantAllocated(t, read(t, c), 3000, 2)

	three := submit(t, c, job("three", 1, 1, 1), "")
	why, err := c.Client().ExplainJob(c.Context(), &pb.ExplainJobRequest{JobId: three})
	if err != nil || why.State != pb.JobState_JOB_STATE_PENDING || !strings.Contains(why.Reason, "GPU") {
		t.Errorf("why does the third wait: %v, %v", why, err)
	}
	t.Logf("why: %s; %s", why.GetReason(), why.GetRemedy())
	if v := view(t, c, three); v.WaitingReason == "" || v.Attempt != nil {
		t.Errorf("the third is %v", v)
	}

	agent.Report(cluster.Seen(tasks[one], succeeded))
	order := agent.Order(three, toRun)
	if id := devices[order.Allocation.Devices[0].DeviceId]; id != one {
		t.Errorf("the third got the device of %s", id)
	}
	agent.Report(cluster.Seen(tasks[two], succeeded), cluster.Seen(order.Task, running))
	wantAllocated(t, read(t, c), 1000, 1)
	agent.Report(cluster.Seen(order.Task, succeeded))
	s := read(t, c)
	for _, id := range []string{one, two, three} {
		if j := s.Job(id); j.State != pb.JobState_JOB_STATE_SUCCEEDED || j.ExitCode != 0 {
			t.Errorf("job %s is %v", id, j)
		}
	}
	wantEmptyLedger(t, s)
	wantEmptyLedger(t, c.WaitSame())
}

// wantAllocated checks the one node's page of the ledger.
func wantAllocated(t *testing.T, s *state.State, cpuMilli int64, devices int) {
	t.Helper()
	for a := range s.Accounts() {
		held := 0
		for _, d := range a.Devices {
			if d.ShareAllocated == 1000 {
				held++
			}
		}
		if a.CpuAllocated != cpuMilli || held != devices {
			t.Errorf("%d millicores and %d devices are allocated, want %d and %d", a.CpuAllocated, held, cpuMilli, devices)
		}
	}
}
