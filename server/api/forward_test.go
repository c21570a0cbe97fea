package api

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

func simpleSpec(name string, count int32) *pb.JobSpec {
	return &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Roles: []*pb.RoleSpec{{
		Name: "worker", Count: count, Command: []string{"true"},
		Resources: &pb.Resources{CpuMilli: 100, MemoryBytes: 1 << 20},
	}}}
}

// TestForwarding asks the follower for everything: writes and reads are answered by the
// leader, in the caller's name.
func TestForwarding(t *testing.T) {
	r := newRig(t)
	r.server("s-000000000001")
	follower := r.server("s-000000000002")
	api := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane"))
	ctx := testContext(t)
	submitted, err := api.SubmitJob(ctx, &pb.SubmitJobRequest{Spec: simpleSpec("x", 1), RequestId: "k"})
	if err != nil {
		t.Fatal(err)
	}
	view, err := api.GetJob(ctx, &pb.GetJobRequest{JobId: submitted.JobId})
	if err != nil || view.Job.User != "jane" {
		t.Fatalf("got user %q, %v; want jane", view.GetJob().GetUser(), err)
	}
	stream, err := api.WatchJob(ctx, &pb.WatchJobRequest{JobId: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := stream.Recv(); err != nil || v.Job.Id != submitted.JobId {
		t.Errorf("watch: got %v, %v", v, err)
	}
	if status, err := api.GetStatus(ctx, &pb.GetStatusRequest{Local: true}); err != nil || status.ServerId != follower.id {
		t.Errorf("the local status was answered by %s, %v", status.GetServerId(), err)
	}
	if status, err := api.GetStatus(ctx, &pb.GetStatusRequest{}); err != nil || status.ServerId != "s-000000000001" {
		t.Errorf("the status was answered by %s, %v", status.GetServerId(), err)
	}
}

// TestFaultsTravelWhole lets every kind of fault arise on the leader and arrive at a
// caller of the follower.
func TestFaultsTravelWhole(t *testing.T) {
	r := newRig(t)
	r.server("s-000000000001")
	follower := r.server("s-000000000002")
	api := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane"))
	for number := range pb.ErrorKind_name {
		kind := pb.ErrorKind(number)
		switch kind {
		case pb.ErrorKind_ERROR_KIND_UNSPECIFIED, pb.ErrorKind_ERROR_KIND_NOT_LEADER:
			continue // no fault; and a wait for the leader, below
		}
		want := kinded(kind)
		r.script(func(context.Context, func() []*pb.Result) ([]*pb.Result, error) { return nil, want })
		_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: simpleSpec("x", 1)})
		if got := fault.From(err); got == nil || !proto.Equal(got.Fault, want.Fault) {
			t.Errorf("%v: got %v", kind, err)
		}
	}
	r.script(func(context.Context, func() []*pb.Result) ([]*pb.Result, error) {
		return nil, errors.New("disk on fire")
	})
	_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: simpleSpec("x", 1)})
	wantKind(t, "an error that is no fault", err, pb.ErrorKind_ERROR_KIND_INTERNAL)
}

// TestNoLoops has two servers each of which takes the other for the leader.
func TestNoLoops(t *testing.T) {
	r := newRig(t)
	a, b := r.server("s-000000000001"), r.server("s-000000000002")
	a.thinks, b.thinks = b.id, a.id
	_, err := pb.NewClusterServiceClient(r.conn(a, roleUser, "jane")).ListNodes(testContext(t), &pb.ListNodesRequest{})
	wantKind(t, "two servers that disagree", err, pb.ErrorKind_ERROR_KIND_UNAVAILABLE)
	ctx := metadata.AppendToOutgoingContext(testContext(t), callerKey, "user/jane")
	_, err = pb.NewClusterServiceClient(r.conn(b, roleServer, a.id)).ListNodes(ctx, &pb.ListNodesRequest{})
	wantKind(t, "a forwarded call at a server that does not lead", err, pb.ErrorKind_ERROR_KIND_NOT_LEADER)
	if got := fault.From(err).Fault.LeaderAddr; got != a.addr {
		t.Errorf("leader address %q, want %q", got, a.addr)
	}
}

// TestWaitsForALeader asks while nobody leads, and lets one come.
func TestWaitsForALeader(t *testing.T) {
	r := newRig(t)
	leader, follower := r.server("s-000000000001"), r.server("s-000000000002")
	api := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane"))
	r.setLeader("")
	_, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{})
	wantKind(t, "nobody leads", err, pb.ErrorKind_ERROR_KIND_UNAVAILABLE)
	if fault.From(err).Fault.Hint == "" {
		t.Error("the fault has no hint")
	}
	answered := make(chan error, 1)
	go func() {
		_, err := api.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: simpleSpec("x", 1)})
		answered <- err
	}()
	r.setLeader(leader.id)
	if err := <-answered; err != nil {
		t.Errorf("a submit that waited: %v", err)
	}
	if _, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{Stale: true}); err != nil {
		t.Errorf("a stale read: %v", err)
	}
}

// TestBrokenForwardIsUnknown stops the leader while it handles a write of the follower's.
func TestBrokenForwardIsUnknown(t *testing.T) {
	r := newRig(t)
	leader, follower := r.server("s-000000000001"), r.server("s-000000000002")
	r.script(func(ctx context.Context, apply func() []*pb.Result) ([]*pb.Result, error) {
		results := apply()
		go leader.grpc.Stop()
		<-ctx.Done() // the connection is cut
		return results, nil
	})
	_, err := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane")).
		CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{Role: roleAgent})
	wantKind(t, "a write whose answer was lost", err, pb.ErrorKind_ERROR_KIND_UNKNOWN)
}

// TestSubmitIsNeverDoubled applies submits and denies it, refuses them and denies that,
// and moves the leader about, under a client that tries again by itself.
func TestSubmitIsNeverDoubled(t *testing.T) {
	r := newRig(t)
	a, b := r.server("s-000000000001"), r.server("s-000000000002")
	c := r.client("jane", a, b)
	for i := range 8 {
		tries := 0
		r.script(func(_ context.Context, apply func() []*pb.Result) ([]*pb.Result, error) {
			tries++
			switch {
			case tries == 1 && i%2 == 0:
				apply()
				return nil, kinded(pb.ErrorKind_ERROR_KIND_UNKNOWN)
			case tries == 1:
				return nil, kinded(pb.ErrorKind_ERROR_KIND_UNKNOWN)
			case tries == 2 && i%4 < 2:
				r.setLeader([]string{b.id, a.id}[i/4])
				return nil, notLeader("s-0", "")
			}
			return apply(), nil
		})
		resp, err := c.SubmitJob(testContext(t), &pb.SubmitJobRequest{Spec: &pb.JobSpec{
			GenerateName: "job", Kind: pb.JobKind_JOB_KIND_BATCH, Roles: simpleSpec("", 1).Roles}})
		if err != nil {
			t.Fatal(err)
		}
		if want := i%2 == 0; resp.RepeatedRequest != want {
			t.Errorf("submit %d: repeated %v, want %v", i, resp.RepeatedRequest, want)
		}
	}
	list, err := c.ListJobs(testContext(t), &pb.ListJobsRequest{All: true})
	if err != nil || len(list.Jobs) != 8 {
		t.Errorf("%d jobs, %v; want 8", len(list.GetJobs()), err)
	}
}

// TestDeposedLeader lets the leader hang, as one that was stopped does, and names another:
// a read is answered by that one, a write is UNKNOWN, and neither waits for the old.
func TestDeposedLeader(t *testing.T) {
	r := newRig(t)
	old, next, follower := r.server("s-000000000001"), r.server("s-000000000002"), r.server("s-000000000003")
	old.thinks = old.id
	api := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane"))
	asked := make(chan struct{}, 2)
	r.script(func(ctx context.Context, apply func() []*pb.Result) ([]*pb.Result, error) {
		asked <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	old.hang = asked
	wrote, read := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := api.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{Role: roleAgent})
		wrote <- err
	}()
	go func() {
		_, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{})
		read <- err
	}()
	<-asked
	<-asked
	r.setLeader(next.id)
	wantKind(t, "a write", <-wrote, pb.ErrorKind_ERROR_KIND_UNKNOWN)
	if err := <-read; err != nil {
		t.Errorf("a read: %v", err)
	}
}
