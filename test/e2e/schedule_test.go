package e2e

import (
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
)

// TestPreemption: an urgent job stops one of lower priority, which resumes afterwards.
func TestPreemption(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	d.configure(func(c *pb.SchedulerConfig) { c.MinRunMs = 1 })
	low := d.job("low", 2, 2)
	low.Priority = 25
	lowID := d.submit(low)
	d.seeRunning(lowID)
	small := d.job("small", 1, 1)
	smallID := d.submit(small) // of higher priority than low, too
	d.seeRunning(smallID)
	view := d.see(lowID, "waiting again", pending)
	if view.Job.Preemptions != 1 || view.Job.RetriesLeft != low.Retries || !happened(view, "job.preempted", smallID) {
		t.Errorf("preempted job: %v, events %v", view.Job, view.Events)
	}
	d.end("small")
	d.seeDone(smallID)
	if v := d.seeRunning(lowID); v.Job.Epoch != 2 {
		t.Errorf("the preempted job runs in epoch %d", v.Job.Epoch)
	}
	d.end("low")
	d.seeDone(lowID)
}

// TestReclaim: a queue takes back what it had lent, and no more.
func TestReclaim(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	d.configure(func(c *pb.SchedulerConfig) { c.MinRunMs = 1 })
	if _, err := d.api().SetQueues(d.ctx, &pb.SetQueuesRequest{Queues: []*pb.Queue{gpuQueue("red", 2, -1), gpuQueue("blue", 2, -1)}}); err != nil {
		t.Fatal(err)
	}
	var blue []string
	for _, name := range []string{"blue1", "blue2", "blue3", "blue4"} {
		job := d.job(name, 1, 1)
		job.Queue = "blue"
		blue = append(blue, d.submit(job))
	}
	for _, id := range blue {
		d.seeRunning(id)
	}
	job := d.job("red", 1, 2)
	job.Queue = "red"
	red := d.submit(job)
	d.seeRunning(red)
	left, stopped := 0, 0
	for _, id := range blue {
		v := d.view(id)
		left += int(v.Job.Preemptions) ^ 1
		stopped += int(v.Job.Preemptions)
		if v.Job.Preemptions > 0 && !happened(v, "job.preempted", "red") {
			t.Errorf("%s does not say for whom it was stopped: %v", id, v.Events)
		}
	}
	if stopped != 2 || left != 2 {
		t.Errorf("%d jobs of blue were stopped, 2 were needed", stopped)
	}
}

// TestElastic: a job shrinks for another and grows back when that has ended.
func TestElastic(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	d.configure(func(c *pb.SchedulerConfig) { c.MinRunMs, c.ElasticEveryMs = 1, 500 })
	job := d.job("elastic", 4, 1)
	job.Roles[0].CountMin = 1
	elastic := d.submit(job)
	size := func(n int) func(*pb.JobView) bool {
		return func(v *pb.JobView) bool { return running(v) && len(v.Tasks) == n && v.Attempt.WorldSize == int32(n) }
	}
	d.see(elastic, "running with 4", size(4))
	fixed := d.submit(d.job("fixed", 1, 2))
	d.seeRunning(fixed)
	v := d.see(elastic, "running with 2", size(2))
	if v.Job.Resizes == 0 || !happened(v, "job.resized") {
		t.Errorf("the shrunk job: %v, %v", v.Job, v.Events)
	}
	d.end("fixed")
	d.seeDone(fixed)
	d.see(elastic, "running with 4 again", size(4))
	d.end("elastic")
	d.seeDone(elastic)
}

// TestBackfill: behind a blocked gang only what ends in time passes.
func TestBackfill(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	d.configure(func(c *pb.SchedulerConfig) { c.HoldAfterMs = 1 })
	long := d.job("long", 1, 2)
	long.TimeLimitMs, long.ExpectedMs = time.Hour.Milliseconds(), time.Hour.Milliseconds()
	longID := d.submit(long)
	d.seeRunning(longID)
	wide := d.submit(d.job("wide", 2, 2))
	d.seeWaiting(wide)
	endless := d.job("endless", 1, 1)
	endless.TimeLimitMs, endless.ExpectedMs = 24*time.Hour.Milliseconds(), 24*time.Hour.Milliseconds()
	endlessID := d.submit(endless)
	short := d.job("short", 1, 1)
	short.TimeLimitMs, short.ExpectedMs = time.Minute.Milliseconds(), time.Minute.Milliseconds()
	shortID := d.submit(short)
	d.seeRunning(shortID)
	d.seeWaiting(endlessID)
	d.end("short")
	d.end("long")
	d.seeDone(longID)
	d.seeRunning(wide)
	if v := d.view(endlessID); !pending(v) {
		t.Errorf("a job that would have delayed the blocked gang runs: %v", v.Job)
	}
}

// TestReservation: nodes are kept for those who reserved them, from the start on.
func TestReservation(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	start := time.Now().Add(6 * time.Second)
	if _, err := d.api().CreateReservation(d.ctx, &pb.CreateReservationRequest{Reservation: &pb.Reservation{Name: "demo",
		Kind: pb.ReservationKind_RESERVATION_KIND_USE, StartMs: start.UnixMilli(), EndMs: start.Add(time.Hour).UnixMilli(), Nodes: 1}}); err != nil {
		t.Fatal(err)
	}
	booked := d.job("booked", 1, 2)
	booked.Reservation = "demo"
	bookedID := d.submit(booked)
	long := func(name string) string {
		job := d.job(name, 1, 2)
		job.ExpectedMs = time.Hour.Milliseconds()
		return d.submit(job)
	}
	first, second := long("first"), long("second")
	d.see(first, "or second running", func(*pb.JobView) bool { return running(d.view(first)) || running(d.view(second)) })
	v := d.seeRunning(bookedID)
	if at := v.Job.StartedMs; at < start.UnixMilli() {
		t.Errorf("the reserved job started %d ms before its time", start.UnixMilli()-at)
	}
	if running(d.view(first)) && running(d.view(second)) {
		t.Error("both other jobs run, though one node is reserved")
	}
}

// TestArray: copies run a few at a time, each with its index, and the array ends with them.
func TestArray(t *testing.T) {
	d := sit(t, 1, "4xH100-80GB")
	spec := d.job("sweep", 1, 1)
	spec.Array = &pb.ArraySpec{Count: 5, Parallel: 2}
	spec.Roles[0].Command = []string{"sh", "-c", `echo "copy $LLMOS_ARRAY_INDEX of $LLMOS_ARRAY_COUNT"; ` + untilTold}
	id := d.submit(spec)
	d.seeRunning(id + "_0")
	d.seeRunning(id + "_1")
	d.seeWaiting(id + "_2")
	d.end("sweep")
	v := d.seeDone(id)
	if v.Job.Copies != 5 || v.Job.CopiesFailed != 0 || v.Job.CopiesUnfinished != 0 {
		t.Errorf("the array: %v", v.Job)
	}
	if s := llmos(t, d.c, "logs", id+"_3"); s.out == "" || s.code != 0 {
		t.Errorf("log of copy 3: %q %s", s.out, s.err)
	}
}

// TestDependencies: after waits, and what can never be met cancels.
func TestDependencies(t *testing.T) {
	d := sit(t, 1, "4xH100-80GB")
	first := d.submit(d.job("first", 1, 1))
	fails := d.job("fails", 1, 1)
	fails.Roles[0].Command = []string{"sh", "-c", untilTold + "; exit 3"}
	failing := d.submit(fails)
	after := func(name, on string, kind pb.DependencyKind) string {
		job := d.job(name, 1, 1)
		job.After = []*pb.Dependency{{Job: on, Kind: kind}}
		d.end(name)
		return d.submit(job)
	}
	ok := after("ok", "first", pb.DependencyKind_DEPENDENCY_KIND_OK)
	chained := after("chained", "ok", pb.DependencyKind_DEPENDENCY_KIND_OK)
	anyway := after("anyway", "fails", pb.DependencyKind_DEPENDENCY_KIND_ANY)
	cleanup := after("cleanup", "fails", pb.DependencyKind_DEPENDENCY_KIND_FAILED)
	never := after("never", "fails", pb.DependencyKind_DEPENDENCY_KIND_OK)
	d.seeRunning(first)
	d.seeRunning(failing)
	d.seeWaiting(ok)
	d.seeWaiting(never)
	d.end("first")
	d.end("fails")
	d.seeDone(ok)
	d.seeDone(chained)
	d.seeDone(anyway)
	d.seeDone(cleanup)
	v := d.see(never, "cancelled", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_CANCELLED })
	if v.Job.Reason == "" {
		t.Error("the cancelled job does not say why")
	}
}

// TestCron: copies start by the clock until the cron job is stopped.
func TestCron(t *testing.T) {
	d := sit(t, 1, "4xH100-80GB")
	spec := d.job("nightly", 1, 1)
	spec.Cron = &pb.CronSpec{Schedule: "@every 1s"}
	d.end("nightly")
	id := d.submit(spec)
	d.see(id, "fired twice", func(v *pb.JobView) bool { return v.Job.Copies >= 2 })
	d.seeDone(id + "_0")
	d.seeDone(id + "_1")
	if _, err := d.cl.StopJob(d.ctx, &pb.StopJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	d.see(id, "stopped", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_CANCELLED })
}

// TestGangRepair: when a host is lost, the slots that survive are kept for the gang, and a
// job that wants them waits.
func TestGangRepair(t *testing.T) {
	d := sit(t, 3, "2xH100-80GB")
	gang := d.submit(d.job("gang", 2, 2))
	v := d.seeRunning(gang)
	third := d.submit(d.job("third", 1, 2))
	d.seeRunning(third)
	greedy := d.submit(d.job("greedy", 1, 2))
	d.seeWaiting(greedy)
	kept, lost := v.Tasks[0].NodeId, v.Tasks[1].NodeId
	agentOf(d.c, lost).KillHost()
	d.see(gang, "waiting for its repair", func(v *pb.JobView) bool { return pending(v) && v.Job.Claim != nil })
	d.seeWaiting(greedy)
	d.end("third")
	d.seeDone(third)
	v = d.seeRunning(gang)
	if v.Job.Epoch != 2 || (v.Tasks[0].NodeId != kept && v.Tasks[1].NodeId != kept) {
		t.Errorf("the repaired gang runs in epoch %d on %s and %s; %s had survived", v.Job.Epoch, v.Tasks[0].NodeId, v.Tasks[1].NodeId, kept)
	}
	if !pending(d.view(greedy)) {
		t.Error("a later job got the slots that were kept")
	}
}
