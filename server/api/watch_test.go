package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// views watches a job in the background and gives each view as it comes; the channel is
// closed at the end of the watch, whose error is then in the second one.
func (r *rig) views(c interface {
	WatchJob(context.Context, string, func(*pb.JobView) error) error
}, job string) (<-chan *pb.JobView, <-chan error) {
	out, end := make(chan *pb.JobView, 1024), make(chan error, 1)
	ctx := testContext(r.t)
	go func() {
		err := c.WatchJob(ctx, job, func(v *pb.JobView) error { out <- v; return nil })
		close(out)
		end <- err
	}()
	return out, end
}

// until reads views up to the first that is as wanted.
func until(t *testing.T, what string, views <-chan *pb.JobView, is func(*pb.JobView) bool) *pb.JobView {
	t.Helper()
	for v := range views {
		if is(v) {
			return v
		}
	}
	t.Fatalf("the watch ended before: %s", what)
	return nil
}

func inState(s pb.JobState) func(*pb.JobView) bool {
	return func(v *pb.JobView) bool { return v.Job.State == s }
}

// TestWatchJob follows a job from its submit to its end over a leader change.
func TestWatchJob(t *testing.T) {
	r := newRig(t)
	a, b := r.server("s-000000000001"), r.server("s-000000000002")
	const node = "n-000000000001"
	r.node(node, "a", "127.0.0.1:1", 0)
	r.say("all CPUs are taken")
	id := r.submit("x", 2)
	views, end := r.views(r.client("jane", b, a), "x")

	v := until(t, "pending", views, inState(pb.JobState_JOB_STATE_PENDING))
	if v.WaitingReason != "all CPUs are taken" || len(v.Events) == 0 {
		t.Errorf("the first view: %v", v)
	}
	r.say("no node has answered")
	until(t, "a new reason without a change of state", views, func(v *pb.JobView) bool { return v.WaitingReason == "no node has answered" })
	r.place(id, node)
	v = until(t, "running", views, inState(pb.JobState_JOB_STATE_RUNNING))
	if v.Attempt.GetEpoch() != 1 || len(v.Tasks) != 2 || len(v.Allocations) != 2 {
		t.Errorf("the running view: %v", v)
	}
	r.say("", &pb.Progress{TaskId: taskID(id, 1, 0), Step: 7, Steps: 10})
	until(t, "progress", views, func(v *pb.JobView) bool { return len(v.Progress) == 1 && v.Progress[0].Step == 7 })

	r.setLeader(b.id) // the stream from a is cut, and resumed from b
	r.say("", &pb.Progress{TaskId: taskID(id, 1, 0), Step: 8, Steps: 10})
	until(t, "progress after the leader change", views, func(v *pb.JobView) bool { return len(v.Progress) == 1 && v.Progress[0].Step == 8 })
	r.reportAll(id, node, taskRunning)
	r.reportAll(id, node, taskSucceeded)
	until(t, "the end", views, inState(pb.JobState_JOB_STATE_SUCCEEDED))
	if v, open := <-views; open {
		t.Errorf("a view after the last: %v", v)
	}
	if err := <-end; err != nil {
		t.Error(err)
	}
}

// TestWatchFromAnIndex asks only for what is newer.
func TestWatchFromAnIndex(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	const node = "n-000000000001"
	r.node(node, "a", "127.0.0.1:1", 0)
	id := r.submit("x", 1)
	r.place(id, node)
	seen, err := api.GetJob(testContext(t), &pb.GetJobRequest{JobId: id})
	if err != nil {
		t.Fatal(err)
	}
	stream, err := api.WatchJob(testContext(t), &pb.WatchJobRequest{JobId: id, AfterIndex: seen.Index})
	if err != nil {
		t.Fatal(err)
	}
	r.reportAll(id, node, taskRunning)
	v, err := stream.Recv()
	if err != nil || v.Index <= seen.Index || v.Tasks[0].State != taskRunning {
		t.Errorf("got %v, %v after index %d", v, err, seen.Index)
	}
	r.reportAll(id, node, taskSucceeded)
	for err == nil {
		if v, err = stream.Recv(); err == nil {
			seen = v
		}
	}
	if !errors.Is(err, io.EOF) || seen.Job.State != pb.JobState_JOB_STATE_SUCCEEDED {
		t.Errorf("the watch ended with %v in state %v", err, seen.Job.State)
	}
	again, err := api.WatchJob(testContext(t), &pb.WatchJobRequest{JobId: id, AfterIndex: seen.Index})
	if err == nil {
		_, err = again.Recv()
	}
	if !errors.Is(err, io.EOF) {
		t.Errorf("a watch behind the end: %v", err)
	}
	missing, err := api.WatchJob(testContext(t), &pb.WatchJobRequest{JobId: "nope"})
	if err == nil {
		_, err = missing.Recv()
	}
	wantKind(t, "a job that is not there", err, kindNotFound)
}

// TestSlowWatcher reads nothing while a job changes a hundred times, and then gets the
// newest view soon: what it has missed did not queue up.
func TestSlowWatcher(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	s := &cluster{b: server, log: r.log}
	id := r.submit("x", 1)
	release, shown := make(chan struct{}), make(chan struct{}, 1)
	var got []string
	w := &watcher{s: s, id: id, send: func(v *pb.JobView) error {
		got = append(got, v.WaitingReason)
		if len(got) == 1 {
			shown <- struct{}{}
			<-release
		}
		if v.WaitingReason == "reason 100" {
			return fault.New(kindLimit, "enough")
		}
		return nil
	}}
	done := make(chan error, 1)
	go func() { done <- w.run(testContext(t), r.f.State()) }()
	<-shown
	for i := range 101 {
		r.say(fmt.Sprintf("reason %d", i))
		r.must(&pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: fmt.Sprint(i), Spec: simpleSpec(fmt.Sprintf("y%d", i), 1)}}})
	}
	close(release)
	wantKind(t, "the watch", <-done, kindLimit)
	if !slices.Equal(got, []string{"", "reason 100"}) {
		t.Errorf("the reader got %q", got)
	}
}
