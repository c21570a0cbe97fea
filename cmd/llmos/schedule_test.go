package main

import (
	"context"
	"strings"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// The rpcs of the scheduler, as the scripted server answers them.

func (s *scripted) SetQueues(_ context.Context, r *pb.SetQueuesRequest) (*pb.SetQueuesResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queues = append(s.queues, r)
	return &pb.SetQueuesResponse{Index: 9}, nil
}

func (s *scripted) ListQueues(context.Context, *pb.ListQueuesRequest) (*pb.ListQueuesResponse, error) {
	return &pb.ListQueuesResponse{Queues: someQueues()}, nil
}

func (s *scripted) ListUsage(context.Context, *pb.ListUsageRequest) (*pb.ListUsageResponse, error) {
	return &pb.ListUsageResponse{Days: someUsage()}, nil
}

func (s *scripted) DrainNode(_ context.Context, r *pb.DrainNodeRequest) (*pb.DrainNodeResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.drained = append(s.drained, r)
	return &pb.DrainNodeResponse{}, nil
}

func (s *scripted) GetSchedulerConfig(context.Context, *pb.GetSchedulerConfigRequest) (*pb.SchedulerConfig, error) {
	return &pb.SchedulerConfig{Backfill: "none", ModifyIndex: 5}, nil
}

func (s *scripted) SetSchedulerConfig(_ context.Context, r *pb.SetSchedulerConfigRequest) (*pb.SetSchedulerConfigResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = r.Config
	return &pb.SetSchedulerConfigResponse{Index: 9}, nil
}

func (s *scripted) CreateReservation(_ context.Context, r *pb.CreateReservationRequest) (*pb.CreateReservationResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved = append(s.reserved, r.Reservation)
	return &pb.CreateReservationResponse{Index: 9}, nil
}

func (s *scripted) ListReservations(context.Context, *pb.ListReservationsRequest) (*pb.ListReservationsResponse, error) {
	return &pb.ListReservationsResponse{Reservations: someReservations()}, nil
}

func (s *scripted) RemoveReservation(_ context.Context, r *pb.RemoveReservationRequest) (*pb.RemoveReservationResponse, error) {
	return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no reservation %q", r.Name)
}

func (s *scripted) PlanJob(_ context.Context, r *pb.PlanJobRequest) (*pb.PlanJobResponse, error) {
	if r.Spec.Queue == "gone" {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no queue gone").At("queue", 0)
	}
	return somePlan(), nil
}

func someQueues() []*pb.QueueView {
	gpu := func(nominal, borrow int64) []*pb.QuotaLimit {
		return []*pb.QuotaLimit{{Resource: "gpu", Nominal: nominal, Borrow: borrow, Lend: -1}}
	}
	return []*pb.QueueView{
		{Queue: &pb.Queue{Name: "a-team", Weight: 1}, Running: 1, Share: 0.031, FairShare: 0.25},
		{Queue: &pb.Queue{Name: "a", Weight: 30, Limits: append(gpu(16_000, -1), &pb.QuotaLimit{Resource: "memory", Nominal: 2 << 40, Borrow: 0}), RunningMax: 20},
			Running: 4, Pending: 120, Share: 0.375, FairShare: 0.5, PastUsage: 1234.5, Used: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 12_500}, {Resource: "memory", Nominal: 1 << 40}}},
		{Queue: &pb.Queue{Name: "a/b", Parent: "a", Weight: 1, Limits: gpu(8000, 4000), PendingMax: 1000}, Running: 4, Pending: 120, Share: 0.375, FairShare: 0.5, PastUsage: 0.01,
			Used: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 12_000}}},
		{Queue: &pb.Queue{Name: "default", Weight: 1}, FairShare: 0.25},
	}
}

func someUsage() []*pb.UsageDay {
	const hour = int64(1000 * 3_600_000)
	return []*pb.UsageDay{
		{Day: 20_000, Queue: "a/b", User: "ann", GpuMilliMs: 12 * hour, CpuMilliMs: 30 * hour, Jobs: 3},
		{Day: 20_001, Queue: "a/b", User: "ann", GpuMilliMs: 8 * hour, Jobs: 1},
		{Day: 20_001, Queue: "default", User: "bob", GpuMilliMs: 25 * hour / 2, CpuMilliMs: hour / 100, Jobs: 40},
	}
}

func someReservations() []*pb.Reservation {
	at := func(d time.Duration) int64 { return noon.Add(d).UnixMilli() }
	return []*pb.Reservation{
		{Name: "done", StartMs: at(-3 * time.Hour), EndMs: at(-time.Hour), Gpus: 1},
		{Name: "demo", StartMs: at(-time.Hour), EndMs: at(time.Hour), Gpus: 32, Queue: "vision", Reason: "the board comes",
			Where: &pb.Expr{Expr: &pb.Expr_Match{Match: &pb.ExprMatch{Key: "gpu_model", Values: []string{"H100-80GB"}}}}},
		{Name: "friday", StartMs: at(50 * time.Hour), EndMs: at(54 * time.Hour), Nodes: 4},
		{Name: "cooling", Kind: pb.ReservationKind_RESERVATION_KIND_MAINTENANCE, StartMs: at(9000 * time.Hour), EndMs: at(9001 * time.Hour), NodeIds: []string{"n-a", "n-z"}},
	}
}

func somePlan() *pb.PlanJobResponse {
	p := &pb.PlanJobResponse{StartsNow: true, Evicts: []string{"low-1", "low-2"}}
	for _, at := range []struct{ node, role, devices string }{{"gpu-1", "ps", ""}, {"gpu-1", "worker", "GPU-1"}, {"gpu-1", "worker", "GPU-2"}, {"gpu-2", "worker", "GPU-3 GPU-4"}, {"gpu-1", "worker", "GPU-5"}} {
		p.Tasks = append(p.Tasks, &pb.PlannedTask{NodeId: "n-" + at.node, NodeName: at.node, Role: at.role, DeviceIds: strings.Fields(at.devices)})
	}
	return p
}

// manyJobs has arrays, cron jobs and elastic jobs, besides what someJobs has.
func manyJobs() *pb.ListJobsResponse {
	array := jobView("sweep-1", pb.JobState_JOB_STATE_RUNNING, 0, 60)
	array.Job.Spec = &pb.JobSpec{Queue: "a/b", Array: &pb.ArraySpec{Count: 100, Parallel: 2}, Roles: array.Job.Spec.Roles}
	array.Job.Spec.Roles[0].Count = 1
	array.Job.Copies, array.Job.CopiesUnfinished, array.Job.CopiesFailed = 100, 61, 2
	jobs := []*pb.JobView{array}
	for i, s := range []pb.JobState{pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_RUNNING, pb.JobState_JOB_STATE_PENDING} {
		c := jobView("sweep-1_"+string(rune('0'+i)), s, 1, 60)
		c.Job.Parent = "sweep-1"
		jobs = append(jobs, c)
	}
	cron := jobView("nightly-1", pb.JobState_JOB_STATE_SCHEDULED, 1, 90_000)
	cron.Job.Spec = &pb.JobSpec{Cron: &pb.CronSpec{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"}, Roles: cron.Job.Spec.Roles}
	cron.Job.Copies, cron.Job.CopiesUnfinished, cron.ExpectedStartMs = 7, 1, noon.Add(14*time.Hour).UnixMilli()
	made := jobView("nightly-1_6", pb.JobState_JOB_STATE_RUNNING, 1, 30)
	made.Job.Parent, made.ExpectedEndMs = "nightly-1", noon.Add(40*time.Minute).UnixMilli()
	small := jobView("elastic-1", pb.JobState_JOB_STATE_RUNNING, 4, 20)
	small.Job.Spec.Roles[0].Count, small.Job.Spec.Roles[0].CountMin, small.Attempt = 8, 2, &pb.Attempt{Counts: []int32{4}}
	waiting := jobView("elastic-2", pb.JobState_JOB_STATE_PENDING, 0, 10)
	waiting.Job.Spec.Roles[0].Count, waiting.Job.Spec.Roles[0].CountMin = 8, 2
	waiting.WaitingReason, waiting.ExpectedStartMs = "needs 2 GPUs; none is free", noon.Add(90*time.Minute).UnixMilli()
	return &pb.ListJobsResponse{Jobs: append(jobs, cron, made, small, waiting)}
}

// TestScheduleTables holds what people see of queues, usage, reservations, plans and jobs.
func TestScheduleTables(t *testing.T) {
	a, out, _ := testApp()
	part := func(name string, show func()) {
		a.printf("--- %s\n", name)
		show()
	}
	part("queue ls", func() { a.show(queueTable(someQueues(), false)) })
	part("queue ls --stale", func() { a.show(queueTable(someQueues(), true)) })
	part("queue usage", func() { a.showUsage(someUsage()) })
	part("reserve ls", func() { a.showReservations(someReservations(), map[string]string{"n-a": "gpu-1"}) })
	part("config get", func() {
		a.showSettings(&pb.SchedulerConfig{Backfill: "none", HoldAfterMs: 90_000, ElasticEveryMs: -1, NoPreempt: true}, nil)
	})
	part("plan", func() { a.showPlan(&pb.JobSpec{Name: "train"}, somePlan()) })
	part("plan, waits", func() {
		a.showPlan(&pb.JobSpec{GenerateName: "train", Array: &pb.ArraySpec{Count: 3}}, &pb.PlanJobResponse{Explanation: &pb.Explanation{Reason: "needs 8 GPUs at once; 6 are free",
			Remedy: "it starts when first-1 ends", WouldStart: []string{"with 6 GPUs"}, ExpectedStartMs: noon.Add(140 * time.Minute).UnixMilli(), Details: []string{"gpu-1: 6 of 8 free"}}})
	})
	part("ps", func() { a.showJobs(manyJobs(), nil, false, false) })
	part("ps --copies", func() { a.showJobs(manyJobs(), nil, false, true) })
	nodes := someNodes()
	nodes.Nodes[0].Node.Drain = &pb.Drain{SinceMs: noon.UnixMilli(), StopAtMs: noon.Add(time.Hour).UnixMilli(), Reason: "new fan", User: "ann"}
	nodes.Nodes[1].Node.Drain = &pb.Drain{SinceMs: noon.Add(-48 * time.Hour).UnixMilli()}
	nodes.Nodes[0].Node.Labels = map[string]string{"zone": "a", "rack": "r7"}
	part("nodes", func() { a.showNodes(nodes) })
	golden(t, "schedule.golden", out.String())
}

// TestScheduleVerbs runs the verbs against a scripted server.
func TestScheduleVerbs(t *testing.T) {
	s := &scripted{}
	a, out, errOut, _ := startScripted(t, s)
	a.in = strings.NewReader("queues:\n  - name: a\n    children: [{name: b}]\n")
	for _, c := range []struct {
		line string
		code int
		out  string
		err  string
	}{
		{"queue apply --prune -", 0, "2 queues set, removed a-team\n", ""},
		{"queue ls", 0, "a-team", ""},
		{"queue ls -o json", 0, `"fair_share":0.5`, ""},
		{"queue rm a-team a/b", 0, "removed a-team and a/b\n", ""},
		{"queue usage", 0, "a/b", "UTC"},
		{"queue usage -o json", 0, `"gpu_milli_ms"`, ""},
		{"drain gpu-1 --stop-after 10m --reason fan", 0, "gpu-1 takes no new work; what still runs there in 10m is stopped", ""},
		{"drain gpu-1 --now", 0, "is being stopped and placed again", ""},
		{"drain gpu-1 --undo", 0, "gpu-1 takes work again", ""},
		{"config get backfill", 0, "none\n", ""},
		{"config set backfill=none", 0, "nothing changes\n", ""},
		{"config set elastic_every=off backfill=default", 0, "scheduler.backfill is easy now, and was none\nscheduler.elastic_every is off now, and was 1m\n", ""},
		{"reserve x --for 2h --node gpu-1,gpu-2 --maintenance", 0, "x is reserved: gpu-1 and gpu-2 from ", ""},
		{"reserve ls", 0, "cooling", ""},
		{"reserve rm x", exitNotFound, "", "there is no reservation"},
		{"plan -- true", 0, "true would start now: 5 tasks on 2 nodes\n", "nothing was submitted"},
		{"plan --queue gone -- true", exitNotFound, "", "llmos: --queue: there is no queue gone"},
		{"plan -o json -- true", 0, `"starts_now":true`, ""},
	} {
		out.Reset()
		errOut.Reset()
		strip := strings.NewReplacer(": ", ":", " ,", ",")
		code := a.run(t.Context(), strings.Fields(c.line))
		if code != c.code || !strings.Contains(strip.Replace(out.String()), strip.Replace(c.out)) || !strings.Contains(errOut.String(), c.err) || c.err == "" && errOut.Len() > 0 {
			t.Errorf("llmos %s: exit code %d, want %d\nout: %s\nerr: %s", c.line, code, c.code, out, errOut)
		}
	}
	if got := s.queues[0]; len(got.Queues) != 2 || got.Queues[1].Name != "a/b" || strings.Join(got.Remove, " ") != "a-team" {
		t.Errorf("set %v", got)
	}
	if s.drained[0].StopAfterMs != 600_000 || s.drained[0].Reason != "fan" || s.drained[1].StopAfterMs != -1 || !s.drained[2].Undo {
		t.Errorf("drained %v", s.drained)
	}
	if s.config.ElasticEveryMs != -1 || s.config.Backfill != "" || s.config.ModifyIndex != 5 {
		t.Errorf("the policy is %v", s.config)
	}
	if r := s.reserved[0]; r.EndMs-r.StartMs != 7_200_000 || len(r.NodeIds) != 2 || r.Kind != pb.ReservationKind_RESERVATION_KIND_MAINTENANCE {
		t.Errorf("reserved %v", r)
	}
}

func TestSpansText(t *testing.T) {
	for want, numbers := range map[string][]int{"0-3, 6": {0, 1, 2, 3, 6}, "5": {5}, "": nil, "0, 2, 4-5": {0, 2, 4, 5}} {
		if got := spansText(numbers); got != want {
			t.Errorf("%v is %q, want %q", numbers, got, want)
		}
	}
}

func TestClock(t *testing.T) {
	a, _, _ := testApp()
	for want, at := range map[string]time.Time{"13:30": noon.Add(90 * time.Minute), "Mar 2 12:00": noon.Add(24 * time.Hour), "2027-03-01 12:00": noon.AddDate(1, 0, 0)} {
		if got := a.clock(at.UnixMilli()); got != want {
			t.Errorf("%v is %s, want %s", at, got, want)
		}
	}
}
