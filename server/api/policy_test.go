package api

import (
	"strings"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	kindConflict = pb.ErrorKind_ERROR_KIND_CONFLICT
	kindDenied   = pb.ErrorKind_ERROR_KIND_DENIED
)

// says holds an error to its kind and its words; kind 0 wants none.
func says(t *testing.T, what string, err error, kind pb.ErrorKind, words string) {
	t.Helper()
	if kind == 0 {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
		return
	}
	wantKind(t, what, err, kind)
	if err != nil && !strings.Contains(fault.From(err).Error(), words) {
		t.Errorf("%s: %q does not say %q", what, fault.From(err).Error(), words)
	}
}

// TestQueues sets a tree, lists it both ways, and is refused what cannot be.
func TestQueues(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	set := func(what string, kind pb.ErrorKind, words string, remove []string, queues ...*pb.Queue) {
		t.Helper()
		_, err := api.SetQueues(testContext(t), &pb.SetQueuesRequest{Queues: queues, Remove: remove})
		says(t, what, err, kind, words)
	}
	a, ab := &pb.Queue{Name: "a", Weight: 2}, &pb.Queue{Name: "a/b", Parent: "a", Weight: 1}
	set("nothing", kindInvalid, "changes no queue", nil)
	set("no weight", kindInvalid, "queues[0].weight", nil, &pb.Queue{Name: "a"})
	set("an orphan", kindNotFound, "does not exist", nil, ab)
	set("a tree", 0, "", nil, a, ab, &pb.Queue{Name: "a-c", Weight: 1})
	set("what is not there", kindNotFound, "gone", []string{"gone"})
	set("a long name", kindLimit, "remove", []string{strings.Repeat("x", 300)})
	r.must(&pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: "k", User: "jane", Spec: func() *pb.JobSpec {
		s := simpleSpec("x", 1)
		s.Queue = "a/b"
		return s
	}()}}})
	set("a queue with jobs", kindConflict, "unfinished job", []string{"a/b"})
	bare, err := api.ListQueues(testContext(t), &pb.ListQueuesRequest{Stale: true})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, v := range bare.Queues {
		names = append(names, v.Queue.Name)
		if want := v.Queue.Name == "a" || v.Queue.Name == "a/b"; (v.Pending == 1) != want {
			t.Errorf("%s: %d pending", v.Queue.Name, v.Pending)
		}
	}
	if got := strings.Join(names, " "); got != "a a/b a-c default" {
		t.Errorf("the tree is %s", got)
	}
	full, err := api.ListQueues(testContext(t), &pb.ListQueuesRequest{})
	if err != nil || len(full.Queues) != 4 || full.Queues[0].Share != 0.5 {
		t.Errorf("the leader's view: %v, %v", full, err)
	}
}

// TestReservations makes, lists and removes them, and is refused those that cannot be.
func TestReservations(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	r.node("n-000000000001", "gpu-1", "127.0.0.1:1", 4)
	r.node("n-000000000002", "gpu-2", "127.0.0.1:2", 4)
	now := time.Now().UnixMilli()
	const hour = 3_600_000
	span := func(name string, change func(*pb.Reservation)) *pb.Reservation {
		x := &pb.Reservation{Name: name, StartMs: now + hour, EndMs: now + 2*hour, Nodes: 1}
		change(x)
		return x
	}
	for _, c := range []struct {
		words string
		kind  pb.ErrorKind
		r     *pb.Reservation
	}{
		{"", 0, span("later", func(x *pb.Reservation) { x.StartMs, x.EndMs = now+5*hour, now+6*hour })},
		{"", 0, span("soon", func(x *pb.Reservation) { x.Nodes, x.NodeIds = 0, []string{"gpu-2", "n-000000000002"} })},
		{"", 0, span("now", func(x *pb.Reservation) { x.StartMs = now - 1000 })},
		{"has passed", kindInvalid, span("past", func(x *pb.Reservation) { x.StartMs = now - hour })},
		{"ends before it starts", kindInvalid, span("back", func(x *pb.Reservation) { x.EndMs = now })},
		{"a reservation's name", kindInvalid, span("No!", func(*pb.Reservation) {})},
		{"neither which nodes nor how many", kindInvalid, span("none", func(x *pb.Reservation) { x.Nodes = 0 })},
		{"in more than one way", kindInvalid, span("both", func(x *pb.Reservation) { x.Gpus = 3 })},
		{"the cluster has 2", kindNoCapacity, span("many", func(x *pb.Reservation) { x.Nodes = 3 })},
		{"the cluster has 8", kindNoCapacity, span("gpus", func(x *pb.Reservation) { x.Nodes, x.Gpus = 0, 9 })},
		{`there is no node "gpu-9"`, kindNotFound, span("where", func(x *pb.Reservation) { x.Nodes, x.NodeIds = 0, []string{"gpu-9"} })},
		{`there is no queue "nlp"`, kindNotFound, span("queue", func(x *pb.Reservation) { x.Queue = "nlp" })},
		{"there is a reservation later already", kindConflict, span("later", func(*pb.Reservation) {})},
		{"there is no reservation", kindInvalid, nil},
	} {
		_, err := api.CreateReservation(testContext(t), &pb.CreateReservationRequest{Reservation: c.r})
		says(t, c.r.GetName(), err, c.kind, c.words)
	}
	list := func() string {
		resp, err := api.ListReservations(testContext(t), &pb.ListReservationsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, x := range resp.Reservations {
			names = append(names, x.Name)
			if x.User != "jane" || x.Name == "soon" && strings.Join(x.NodeIds, " ") != "n-000000000002" {
				t.Errorf("the record is %v", x)
			}
		}
		return strings.Join(names, " ")
	}
	if got := list(); got != "now soon later" {
		t.Errorf("by start: %s", got)
	}
	if _, err := api.RemoveReservation(testContext(t), &pb.RemoveReservationRequest{Name: "soon"}); err != nil {
		t.Error(err)
	}
	_, err := api.RemoveReservation(testContext(t), &pb.RemoveReservationRequest{Name: "soon"})
	says(t, "what is gone", err, kindNotFound, "llmos reserve ls")
	if got := list(); got != "now later" {
		t.Errorf("after one went: %s", got)
	}
}

// TestPolicy changes the scheduling policy as two people would at once.
func TestPolicy(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	get := func() *pb.SchedulerConfig {
		t.Helper()
		c, err := api.GetSchedulerConfig(testContext(t), &pb.GetSchedulerConfigRequest{})
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	set := func(c *pb.SchedulerConfig) error {
		_, err := api.SetSchedulerConfig(testContext(t), &pb.SetSchedulerConfigRequest{Config: c})
		return err
	}
	says(t, "the first", set(&pb.SchedulerConfig{Backfill: "conservative", HoldAfterMs: 1000}), 0, "")
	mine, theirs := get(), get()
	mine.Order = "fifo"
	theirs.MinRunMs = 5000
	says(t, "mine", set(mine), 0, "")
	says(t, "theirs, read before", set(theirs), kindConflict, "changed meanwhile")
	if c := get(); c.Order != "fifo" || c.Backfill != "conservative" || c.MinRunMs != 0 {
		t.Errorf("the policy is %v", c)
	}
	says(t, "no such word", set(&pb.SchedulerConfig{Order: "random"}), kindInvalid, "scheduler.order")
	says(t, "none", set(nil), kindInvalid, "no policy")
}

// TestDrain takes a node out and in again, by its name.
func TestDrain(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	r.node("n-000000000001", "gpu-1", "127.0.0.1:1", 1)
	drain := func(req *pb.DrainNodeRequest) error {
		_, err := api.DrainNode(testContext(t), req)
		return err
	}
	for _, c := range []struct {
		after, least, most int64
	}{{0, 0, 0}, {60_000, 60_000, 60_000}, {-1, 0, 0}} {
		says(t, "drain", drain(&pb.DrainNodeRequest{NodeId: "gpu-1", Reason: "fan", StopAfterMs: c.after}), 0, "")
		d := r.f.State().Node("n-000000000001").GetDrain()
		if d.GetReason() != "fan" || d.GetUser() != "jane" || (d.GetStopAtMs() == 0) != (c.after == 0) {
			t.Errorf("after %d ms: %v", c.after, d)
		}
	}
	says(t, "undo", drain(&pb.DrainNodeRequest{NodeId: "gpu-1", Undo: true}), 0, "")
	if r.f.State().Node("n-000000000001").GetDrain() != nil {
		t.Error("the node is drained still")
	}
	says(t, "nobody", drain(&pb.DrainNodeRequest{NodeId: "gpu-9"}), kindNotFound, "llmos nodes")
	says(t, "for ever", drain(&pb.DrainNodeRequest{NodeId: "gpu-1", StopAfterMs: 1 << 60}), kindInvalid, "stop_after_ms")
	says(t, "a long reason", drain(&pb.DrainNodeRequest{NodeId: "gpu-1", Reason: strings.Repeat("x", 2000)}), kindLimit, "reason")
}

// TestPlan asks what would happen, and is refused what a submit would be.
func TestPlan(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	r.must(&pb.Command{Op: &pb.Command_SetQueues{SetQueues: &pb.SetQueues{Queues: []*pb.Queue{
		{Name: "a", Weight: 1}, {Name: "a/b", Parent: "a", Weight: 1, PriorityMax: 60}}}}})
	for _, c := range []struct {
		words  string
		kind   pb.ErrorKind
		change func(*pb.JobSpec)
	}{
		{"", 0, func(*pb.JobSpec) {}},
		{"priority", kindInvalid, func(s *pb.JobSpec) { s.Priority = 101 }},
		{`queue: there is no queue "z"`, kindNotFound, func(s *pb.JobSpec) { s.Queue = "z" }},
		{"such as a/b", kindInvalid, func(s *pb.JobSpec) { s.Queue = "a" }},
		{"priority: priority 70", kindDenied, func(s *pb.JobSpec) { s.Queue, s.Priority = "a/b", 70 }},
		{"after[0].job", kindNotFound, func(s *pb.JobSpec) { s.After = []*pb.Dependency{{Job: "y"}} }},
		{"deadline", kindInvalid, func(s *pb.JobSpec) { s.DeadlineMs = 5 }},
		{"reservation", kindNotFound, func(s *pb.JobSpec) { s.Reservation = "friday" }},
	} {
		spec := simpleSpec("x", 1)
		c.change(spec)
		resp, err := api.PlanJob(testContext(t), &pb.PlanJobRequest{Spec: spec})
		says(t, "plan", err, c.kind, c.words)
		if err == nil && resp.Explanation.GetReason() != "planned x for jane" {
			t.Errorf("the leader answered %v", resp)
		}
	}
	late := simpleSpec("late", 1)
	late.DeadlineMs = 5
	_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: late})
	says(t, "a submit past its deadline", err, kindInvalid, "deadline")
}

func TestForecastAndUsage(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	r.node("n-000000000001", "gpu-1", "127.0.0.1:1", 1)
	id := r.submit("x", 1)
	got, err := api.GetForecast(testContext(t), &pb.GetForecastRequest{JobId: "x"})
	if err != nil || got.JobId != id+" for 3600000" {
		t.Errorf("forecast %v, %v", got, err)
	}
	_, err = api.GetForecast(testContext(t), &pb.GetForecastRequest{JobId: "x", HorizonMs: -1})
	says(t, "backwards", err, kindInvalid, "horizon_ms")
	_, err = api.GetForecast(testContext(t), &pb.GetForecastRequest{JobId: "y"})
	says(t, "nobody's", err, kindNotFound, "y")
	r.place(id, "n-000000000001")
	r.report(id, "n-000000000001", 0, taskRunning, 0)
	r.report(id, "n-000000000001", 0, taskSucceeded, 0)
	used, err := api.ListUsage(testContext(t), &pb.ListUsageRequest{})
	if err != nil || len(used.Days) != 1 || used.Days[0].User != "jane" || used.Days[0].Queue != "default" || used.Days[0].Jobs != 1 {
		t.Errorf("usage %v, %v", used, err)
	}
	_, err = api.ListUsage(testContext(t), &pb.ListUsageRequest{FromDay: 9, ToDay: 8})
	says(t, "backwards", err, kindInvalid, "from_day")
	_, err = api.ListUsage(testContext(t), &pb.ListUsageRequest{FromDay: -1})
	says(t, "before 1970", err, kindInvalid, "1970")
}

// TestParents explains arrays, cron jobs and jobs that wait for others.
func TestParents(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	submit := func(name string, change func(*pb.JobSpec)) string {
		t.Helper()
		spec := simpleSpec(name, 1)
		change(spec)
		resp, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: spec})
		if err != nil {
			t.Fatal(err)
		}
		return resp.JobId
	}
	array := submit("sweep", func(s *pb.JobSpec) { s.Array = &pb.ArraySpec{Count: 3, Parallel: 2} })
	submit("tick", func(s *pb.JobSpec) { s.Cron = &pb.CronSpec{Schedule: "0 3 * * *", TimeZone: "Europe/Berlin"} })
	submit("last", func(s *pb.JobSpec) { s.After = []*pb.Dependency{{Job: "sweep"}} })
	for job, want := range map[string]string{"sweep": "3 of its 3 copies have not ended", "tick": "0 3 * * * (Europe/Berlin)",
		"last": "waits for " + array, "sweep_2": "not looked", array + "_0": "not looked"} {
		x, err := api.ExplainJob(testContext(t), &pb.ExplainJobRequest{JobId: job})
		if err != nil || !strings.Contains(x.GetReason(), want) {
			t.Errorf("%s: %v, %v; want %q", job, x, err, want)
		}
		if job == "tick" && time.Until(time.UnixMilli(x.GetExpectedStartMs())) > 25*time.Hour {
			t.Errorf("the next copy starts at %d", x.GetExpectedStartMs())
		}
	}
	v, err := api.GetJob(testContext(t), &pb.GetJobRequest{JobId: "tick"})
	if err != nil || v.ExpectedStartMs == 0 {
		t.Errorf("the view of a cron job: %v, %v", v, err)
	}
	stream, err := api.ReadLogs(testContext(t), &pb.ReadLogsRequest{JobId: "sweep"})
	if err == nil {
		_, err = stream.Recv()
	}
	says(t, "the output of an array", err, kindInvalid, "llmos logs "+array+"_0")
}
