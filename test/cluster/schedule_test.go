package cluster_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server"
	"llmos/test/cluster"
)

// hasty is the policy of these conversations: a job may be stopped for another one at once.
func hasty(t *testing.T, c *cluster.Cluster) *pb.SchedulerConfig {
	t.Helper()
	config := &pb.SchedulerConfig{MinRunMs: 1, UsageHalfLifeMs: -1}
	if _, err := c.API(c.Leader()).SetSchedulerConfig(c.Context(), &pb.SetSchedulerConfigRequest{Config: config}); err != nil {
		t.Fatalf("set the policy: %v", err)
	}
	return config
}

// replace kills the leader, waits for the next one, and starts the killed one again.
func replace(c *cluster.Cluster) {
	killed := c.Leader()
	c.Kill(killed)
	c.Leader()
	killed.Start()
}

// snapshotting is steady timing with a snapshot every few entries, so that a server that
// starts again is restored from one.
func snapshotting() server.Timing {
	t := steady()
	t.SnapshotThreshold, t.SnapshotEvery, t.TrailingLogs = 20, 50*time.Millisecond, 5
	t.SilentAfter = time.Hour // an agent between two sessions is no event of these tests
	return t
}

// ran counts the events of a kind in a job's diary.
func ran(s *state.State, job, kind string) (out []string) {
	for _, e := range s.JobEvents(job) {
		if e.Kind == kind {
			out = append(out, e.Message)
		}
	}
	return out
}

// TestPreemptionOutlivesTheLeader kills the leader while the victim of a preemption is being
// stopped. The next leader neither stops anybody else nor gives the room away: the urgent
// job gets it, and the victim comes back when that has ended.
func TestPreemptionOutlivesTheLeader(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(snapshotting()))
	hasty(t, c)
	agent := c.Agent("node", 16, 4)
	session := agent.Connect()
	var low []string
	for _, name := range []string{"low1", "low2"} {
		spec := job(name, 1, 1, 2)
		spec.Priority = 25
		id := submit(t, c, spec, "")
		session.Report(cluster.Seen(session.Order(id, toRun).Task, running))
		low = append(low, id)
	}
	urgent := job("urgent", 1, 1, 2)
	urgent.Priority = 75
	high := submit(t, c, urgent, "")
	s := awaitState(t, c, "a victim", func(s *state.State) bool {
		return slices.ContainsFunc(low, func(id string) bool { return len(ran(s, id, "job.preempted")) > 0 })
	})
	victim, spared := low[0], low[1]
	if len(ran(s, spared, "job.preempted")) > 0 {
		victim, spared = spared, victim
	}
	if claim := s.Job(high).Claim; claim.GetKind() != pb.ClaimKind_CLAIM_KIND_PREEMPT {
		t.Errorf("the room for the urgent job is not kept: %v", claim)
	}
	room := s.Job(high).Claim

	replace(c)
	session = agent.Connect(append(reports(s, victim, 1, running), reports(s, spared, 1, running)...)...)
	order := session.Order(victim, toStop)
	if claim := read(t, c).Job(high).Claim; !proto.Equal(claim, room) {
		t.Errorf("the next leader keeps %v, the first kept %v", claim, room)
	}
	session.Report(cluster.Seen(order.Task, stopped))
	order = session.Order(high, toRun)
	if got := order.Allocation.Devices; !proto.Equal(got[0], room.Slots[0].Devices[0]) || !proto.Equal(got[1], room.Slots[0].Devices[1]) {
		t.Errorf("the urgent job holds %v, %v was kept for it", got, room.Slots[0].Devices)
	}
	session.Report(cluster.Seen(order.Task, running))
	session.Report(cluster.Seen(order.Task, succeeded))
	order = session.Order(victim, toRun)
	session.Report(cluster.Seen(order.Task, running))
	s = c.WaitSame()
	if n, m := len(ran(s, victim, "job.preempted")), len(ran(s, spared, "job.preempted")); n != 1 || m != 0 {
		t.Errorf("the victim was stopped %d times and the other job %d times", n, m)
	}
	if j := s.Job(victim); j.Preemptions != 1 || j.Epoch != 2 {
		t.Errorf("the victim is %v", j)
	}
	if j := s.Job(spared); j.Preemptions != 0 || j.Epoch != 1 {
		t.Errorf("the other job is %v", j)
	}
	session.Report(cluster.Seen(order.Task, succeeded))
	session.Report(reports(read(t, c), spared, 1, succeeded)...)
	for range read(t, c).ClaimedJobs() {
		t.Error("room is still kept though every job has ended")
	}
	wantEmptyLedger(t, c.WaitSame())
}

// schedule is what operators have set and jobs have used, as a state holds it.
type schedule struct {
	config       *pb.SchedulerConfig
	queues       []*pb.Queue
	reservations []*pb.Reservation
	usage        []*pb.UsageDay
}

func scheduleOf(s *state.State) schedule {
	return schedule{s.SchedulerConfig(), slices.Collect(s.Queues()), slices.Collect(s.Reservations()), slices.Collect(s.UsageDays(0))}
}

func wantSchedule(t *testing.T, got, want schedule) {
	t.Helper()
	if !proto.Equal(got.config, want.config) {
		t.Errorf("the policy is %v, was %v", got.config, want.config)
	}
	equal(t, "queues", got.queues, want.queues)
	equal(t, "reservations", got.reservations, want.reservations)
	equal(t, "usage", got.usage, want.usage)
}

func equal[M proto.Message](t *testing.T, what string, got, want []M) {
	t.Helper()
	if !slices.EqualFunc(got, want, func(a, b M) bool { return proto.Equal(a, b) }) {
		t.Errorf("%s are %v, were %v", what, got, want)
	}
}

// TestScheduleSurvivesRestart stops all servers with an array and a chain of dependencies
// half way through. Queues, policy, reservation and usage are what they were, and the array
// and the chain go on from where they stood, each copy and each job once.
func TestScheduleSurvivesRestart(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(snapshotting()))
	hasty(t, c)
	api, ctx := c.API(c.Leader()), c.Context()
	queue := &pb.Queue{Name: "team", Weight: 3, Limits: []*pb.QuotaLimit{{Resource: "gpu", Nominal: 2000, Borrow: 1000, Lend: -1}}}
	if _, err := api.SetQueues(ctx, &pb.SetQueuesRequest{Queues: []*pb.Queue{queue}}); err != nil {
		t.Fatal(err)
	}
	agent := c.Agent("node", 16, 4)
	session := agent.Connect()
	start := time.Now().Add(30 * 24 * time.Hour).UnixMilli()
	if _, err := api.CreateReservation(ctx, &pb.CreateReservationRequest{Reservation: &pb.Reservation{Name: "later",
		Kind: pb.ReservationKind_RESERVATION_KIND_USE, StartMs: start, EndMs: start + 3_600_000, Gpus: 1}}); err != nil {
		t.Fatal(err)
	}
	sweep := job("sweep", 1, 1, 1)
	sweep.Queue, sweep.Array = "team", &pb.ArraySpec{Count: 3, Parallel: 1}
	array := submit(t, c, sweep, "")
	first := submit(t, c, job("first", 1, 1, 1), "")
	chained := func(name, on string) string {
		spec := job(name, 1, 1, 1)
		spec.After = []*pb.Dependency{{Job: on}}
		return submit(t, c, spec, "")
	}
	second := chained("second", first)
	third := chained("third", second)
	finish := func(id string) {
		task := session.Order(id, toRun).Task
		session.Report(cluster.Seen(task, running))
		session.Report(cluster.Seen(task, succeeded))
	}
	finish(array + "_0")
	finish(first)
	for _, id := range []string{array + "_1", second} {
		session.Report(cluster.Seen(session.Order(id, toRun).Task, running))
	}
	before := c.WaitSame()
	session.Drop()
	for _, s := range c.Servers {
		_ = s.Stop()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	after := read(t, c)
	wantSchedule(t, scheduleOf(after), scheduleOf(before))
	if a := after.Job(array); a.CopiesUnfinished != 2 || after.Job(array+"_2").State != pb.JobState_JOB_STATE_PENDING {
		t.Errorf("the array after the restart: %v", a)
	}
	if j := after.Job(third); !slices.Equal(j.BlockedBy, []string{second}) || j.Epoch != 0 {
		t.Errorf("the end of the chain after the restart: %v", j)
	}

	going := append(reports(after, array+"_1", 1, running), reports(after, second, 1, running)...)
	session = agent.Connect(going...)
	for _, r := range going {
		r.State = succeeded
		session.Report(r)
	}
	finish(array + "_2")
	finish(third)
	s := awaitState(t, c, "the array's end", func(s *state.State) bool { return s.Job(array).FinishedMs != 0 })
	for _, id := range []string{array, array + "_0", array + "_1", array + "_2", first, second, third} {
		if j := s.Job(id); j.State != pb.JobState_JOB_STATE_SUCCEEDED || j.Epoch > 1 {
			t.Errorf("job %s is %v in epoch %d", id, j.State, j.Epoch)
		}
	}
	wantEmptyLedger(t, c.WaitSame())
}

// TestUsageIsWhatWasHeld kills three leaders while jobs run and end, and then restores every
// server. What the accounts of the days say is what the attempts held from their placement
// to their end, no more and no less.
func TestUsageIsWhatWasHeld(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(snapshotting()))
	agent := c.Agent("node", 16, 4)
	session := agent.Connect()
	long := submit(t, c, job("long", 1, 2, 2), "")
	session.Report(cluster.Seen(session.Order(long, toRun).Task, running))
	ids := []string{long}
	for _, name := range []string{"one", "two", "three"} {
		id := submit(t, c, job(name, 1, 1, 1), "")
		ids = append(ids, id)
		session.Report(cluster.Seen(session.Order(id, toRun).Task, running))
		s := read(t, c)
		replace(c)
		session = agent.Connect(append(reports(s, long, 1, running), reports(s, id, 1, running)...)...)
		session.Report(reports(s, id, 1, succeeded)...)
		session.Report(reports(s, id, 1, succeeded)...) // once more: it is charged once
	}
	session.Report(reports(read(t, c), long, 1, succeeded)...)
	s := c.WaitSame()
	wantUsage(t, s, ids)
	wantEmptyLedger(t, s)
	session.Drop()
	for _, s := range c.Servers {
		_ = s.Stop()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.Leader()
	after := c.WaitSame()
	wantSchedule(t, scheduleOf(after), scheduleOf(s))
}

// wantUsage compares the accounts of the days with the attempts of jobs of one task.
func wantUsage(t *testing.T, s *state.State, ids []string) {
	t.Helper()
	var gpu, cpu, jobs int64
	for _, id := range ids {
		j, a := s.Job(id), s.Attempt(id, 1)
		if j.State != pb.JobState_JOB_STATE_SUCCEEDED || a.EndedMs <= a.PlacedMs {
			t.Errorf("job %s is %v, its attempt %v", id, j.State, a)
		}
		r := j.Spec.Roles[0].Resources
		held := a.EndedMs - a.PlacedMs
		if want := held * 1000 * int64(r.Gpus); j.GpuMilliMs != want {
			t.Errorf("job %s is charged %d, it held %d", id, j.GpuMilliMs, want)
		}
		gpu, cpu, jobs = gpu+held*1000*int64(r.Gpus), cpu+held*r.CpuMilli, jobs+1
	}
	for u := range s.UsageDays(0) {
		gpu, cpu, jobs = gpu-u.GpuMilliMs, cpu-u.CpuMilliMs, jobs-u.Jobs
	}
	if gpu != 0 || cpu != 0 || jobs != 0 {
		t.Errorf("the days' accounts lack %d thousandths of a device x ms, %d millicores x ms and %d jobs", gpu, cpu, jobs)
	}
}

// TestCronFiresOnce kills the leader between the copies of a cron job: no due time starts
// two copies, every copy has its due time, and the times follow the schedule.
func TestCronFiresOnce(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	spec := job("tick", 1, 1, 0)
	spec.Cron = &pb.CronSpec{Schedule: "@every 1s", Overlap: pb.CronOverlap_CRON_OVERLAP_ALLOW}
	id := submit(t, c, spec, "")
	fired := func(n int) *state.State {
		return awaitState(t, c, "the cron job's copies", func(s *state.State) bool { return len(ran(s, id, "cron.fired")) >= n })
	}
	fired(2)
	replace(c)
	fired(4)
	replace(c)
	s := fired(6)
	dues := map[string]bool{}
	for _, text := range ran(s, id, "cron.fired") {
		_, due, found := strings.Cut(text, " was started for ")
		if !found || dues[due] {
			t.Errorf("two copies for one due time, or none said: %s", text)
		}
		dues[due] = true
	}
	if copies := int(s.Job(id).Copies); copies != len(dues) {
		t.Errorf("%d copies for %d due times", copies, len(dues))
	}
	made := 0
	for range s.Children(id) {
		made++
	}
	if made != len(dues) {
		t.Errorf("%d copies are there for %d due times", made, len(dues))
	}
	if _, err := c.Client().StopJob(c.Context(), &pb.StopJobRequest{JobId: id}); err != nil {
		t.Fatal(err)
	}
	c.WaitSame()
}
