package client_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	unavailable = pb.ErrorKind_ERROR_KIND_UNAVAILABLE
	unknown     = pb.ErrorKind_ERROR_KIND_UNKNOWN
	notLeader   = pb.ErrorKind_ERROR_KIND_NOT_LEADER
	timeout     = pb.ErrorKind_ERROR_KIND_TIMEOUT
)

func ok(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
	return &pb.SubmitJobResponse{JobId: "x-1"}, nil
}

// TestSubmitKeepsItsRequestID lets a submit meet every transient outcome before it is
// accepted: each try must carry one and the same key, which the caller did not give.
func TestSubmitKeepsItsRequestID(t *testing.T) {
	var keys []string
	outcomes := []error{kinded(unknown), kinded(unavailable), kinded(notLeader), kinded(timeout), nil}
	f := &fake{}
	f.submit = func(r *pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
		keys = append(keys, r.RequestId)
		if err := outcomes[len(keys)-1]; err != nil {
			return nil, err
		}
		return ok(r)
	}
	c, waits := newRig(t, f).client("server-0")
	req := &pb.SubmitJobRequest{Spec: &pb.JobSpec{Name: "x"}}
	resp, err := c.SubmitJob(testContext(t), req)
	if err != nil || resp.JobId != "x-1" {
		t.Fatalf("got %v, %v", resp, err)
	}
	if len(keys) != len(outcomes) || keys[0] != "request-1" || len(slices.Compact(keys)) != 1 {
		t.Errorf("keys %q, want the same one %d times", keys, len(outcomes))
	}
	if req.RequestId != "" {
		t.Error("the caller's request was changed")
	}
	if *waits != len(outcomes)-1 {
		t.Errorf("%d backoffs, want %d: one after each round of the one server", *waits, len(outcomes)-1)
	}
}

// TestFinalKindsAreNotRetried sends each kind back and holds the client to what its
// meaning allows; the fault must arrive whole.
func TestFinalKindsAreNotRetried(t *testing.T) {
	for number := range pb.ErrorKind_name {
		kind := pb.ErrorKind(number)
		if slices.Contains([]pb.ErrorKind{0, unavailable, unknown, notLeader, timeout}, kind) {
			continue
		}
		f := &fake{submit: func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) { return nil, kinded(kind) }}
		c, _ := newRig(t, f).client("server-0")
		_, err := c.SubmitJob(testContext(t), &pb.SubmitJobRequest{})
		want := fault.From(kinded(kind)).Fault
		if got := fault.From(err); got == nil || !proto.Equal(got.Fault, want) {
			t.Errorf("%v: got %v, want %v", kind, err, want)
		}
		if n := f.count(); n != 1 {
			t.Errorf("%v: tried %d times", kind, n)
		}
	}
}

// TestOnlyIdempotentCallsAreRepeated makes a token: after UNKNOWN or TIMEOUT it must not
// be made a second time, after UNAVAILABLE and NOT_LEADER it may.
func TestOnlyIdempotentCallsAreRepeated(t *testing.T) {
	for kind, again := range map[pb.ErrorKind]bool{unknown: false, timeout: false, unavailable: true, notLeader: true} {
		calls := 0
		f := &fake{token: func() (*pb.CreateJoinTokenResponse, error) {
			if calls++; calls == 1 {
				return nil, kinded(kind)
			}
			return &pb.CreateJoinTokenResponse{Token: "t"}, nil
		}}
		c, _ := newRig(t, f).client("server-0")
		_, err := c.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{})
		if again != (err == nil) || !again && fault.Kind(err) != kind {
			t.Errorf("%v: got %v, again %v", kind, err, again)
		}
	}
}

// TestBrokenWriteIsUnknown cuts the connection while a write is under way: the client
// cannot know whether it was done, and must not do it again by itself.
func TestBrokenWriteIsUnknown(t *testing.T) {
	f, r := &fake{}, newRig(t)
	f.addr = "server-0"
	f.token = func() (*pb.CreateJoinTokenResponse, error) {
		r.cut()
		return &pb.CreateJoinTokenResponse{}, nil
	}
	r.start(f)
	c, _ := r.client("server-0")
	_, err := c.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{})
	if fault.Kind(err) != unknown || f.count() != 1 {
		t.Errorf("got %v after %d calls", err, f.count())
	}
}

// TestFindsTheLiveServerAndStays has two dead addresses before the live one.
func TestFindsTheLiveServerAndStays(t *testing.T) {
	f := &fake{addr: "live", submit: ok}
	c, waits := newRig(t, f).client("dead-1", "dead-2", "live")
	for range 3 {
		if _, err := c.SubmitJob(testContext(t), &pb.SubmitJobRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.Servers(); got[0] != "live" {
		t.Errorf("order %q, want the one that answers first", got)
	}
	if *waits != 0 {
		t.Errorf("%d backoffs within the first round", *waits)
	}
}

// TestServerThatComesBackIsUsed starts the only server after the first failure.
func TestServerThatComesBackIsUsed(t *testing.T) {
	r := newRig(t)
	started := false
	c := client.New([]string{"a"}, r.dial, client.WithSleep(func(context.Context, time.Duration) {
		if !started {
			started = true
			r.start(&fake{addr: "a", submit: ok})
		}
	}))
	defer c.Close()
	if _, err := c.SubmitJob(testContext(t), &pb.SubmitJobRequest{}); err != nil {
		t.Fatal(err)
	}
	if !started {
		t.Error("the first try succeeded without a server")
	}
}

// TestFollowsTheLeader has a follower that names a leader the client was not told of.
func TestFollowsTheLeader(t *testing.T) {
	follower := &fake{addr: "follower", submit: func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
		err := fault.New(notLeader, "server s-1 does not lead")
		err.Fault.LeaderAddr = "leader"
		return nil, err
	}}
	c, waits := newRig(t, follower, &fake{addr: "leader", submit: ok}).client("follower")
	if _, err := c.SubmitJob(testContext(t), &pb.SubmitJobRequest{}); err != nil {
		t.Fatal(err)
	}
	if follower.count() != 1 || *waits != 0 || c.Servers()[0] != "leader" {
		t.Errorf("%d calls of the follower, %d backoffs, order %q", follower.count(), *waits, c.Servers())
	}
}

// TestHintsThatGoRound has two servers that name each other: the client must wait between
// rounds rather than spin, and end with its context.
func TestHintsThatGoRound(t *testing.T) {
	to := func(addr string) func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
		return func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) {
			err := fault.New(notLeader, "not here")
			err.Fault.LeaderAddr = addr
			return nil, err
		}
	}
	r := newRig(t, &fake{addr: "a", submit: to("b")}, &fake{addr: "b", submit: to("a")})
	ctx, cancel := context.WithCancel(testContext(t))
	waits := 0
	c := client.New([]string{"a", "b"}, r.dial, client.WithSleep(func(context.Context, time.Duration) {
		if waits++; waits == 3 {
			cancel()
		}
	}))
	defer c.Close()
	_, err := c.SubmitJob(ctx, &pb.SubmitJobRequest{})
	if fault.Kind(err) != timeout || !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestEndedContext tells what is known when the caller's time is over.
func TestEndedContext(t *testing.T) {
	for _, c := range []struct{ last, want pb.ErrorKind }{{unavailable, unavailable}, {notLeader, notLeader}, {unknown, unknown}, {timeout, unknown}} {
		t.Run(c.last.String(), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			f := &fake{submit: func(*pb.SubmitJobRequest) (*pb.SubmitJobResponse, error) { return nil, kinded(c.last) }}
			cl := client.New([]string{"server-0"}, newRig(t, f).dial, client.WithSleep(func(ctx context.Context, _ time.Duration) { <-ctx.Done() }))
			defer cl.Close()
			_, err := cl.SubmitJob(ctx, &pb.SubmitJobRequest{})
			if got := fault.Kind(err); got != c.want || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v (%v), want %v", got, err, c.want)
			}
		})
	}
}

// TestAttemptLimit has a server that never answers and one that does.
func TestAttemptLimit(t *testing.T) {
	hung := &fake{addr: "hung", get: func(ctx context.Context, _ *pb.GetJobRequest) (*pb.JobView, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	good := &fake{addr: "good", get: func(context.Context, *pb.GetJobRequest) (*pb.JobView, error) {
		return &pb.JobView{Job: &pb.Job{Id: "x-1"}}, nil
	}}
	r := newRig(t, hung, good)
	c := client.New([]string{"hung", "good"}, r.dial, client.WithLimits(0, 50*time.Millisecond))
	defer c.Close()
	if _, err := c.GetJob(testContext(t), &pb.GetJobRequest{JobId: "x"}); err != nil {
		t.Fatal(err)
	}
	if c.Servers()[0] != "good" {
		t.Errorf("order %q", c.Servers())
	}
}

// TestStopResolvesNamesOnce must not stop a job that took the name between two tries.
func TestStopResolvesNamesOnce(t *testing.T) {
	newest := "x-1"
	var stopped []string
	f := &fake{
		get: func(context.Context, *pb.GetJobRequest) (*pb.JobView, error) {
			return &pb.JobView{Job: &pb.Job{Id: newest}}, nil
		},
		stop: func(r *pb.StopJobRequest) (*pb.StopJobResponse, error) {
			stopped = append(stopped, r.JobId)
			newest = "x-2"
			if len(stopped) == 1 {
				return nil, kinded(unknown)
			}
			return &pb.StopJobResponse{JobId: r.JobId}, nil
		},
	}
	c, _ := newRig(t, f).client("server-0")
	if _, err := c.StopJob(testContext(t), &pb.StopJobRequest{JobId: "x"}); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(stopped, []string{"x-1", "x-1"}) {
		t.Errorf("stopped %q", stopped)
	}
}

// TestNoServers and a closed client say so at once.
func TestNoServers(t *testing.T) {
	r := newRig(t, &fake{submit: ok})
	none, _ := r.client()
	if _, err := none.SubmitJob(testContext(t), nil); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
		t.Errorf("no servers: %v", err)
	}
	shut, _ := r.client("server-0")
	shut.Close()
	if _, err := shut.SubmitJob(testContext(t), nil); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
		t.Errorf("closed: %v", err)
	}
	if _, err := shut.SubmitJob(testContext(t), nil); err == nil {
		t.Error("a closed client works")
	}
}

// TestGenericStream uses the embedded stub's own streaming call.
func TestGenericStream(t *testing.T) {
	f := &fake{addr: "b", watch: func(_ *pb.WatchJobRequest, s grpc.ServerStreamingServer[pb.JobView]) error {
		return s.Send(&pb.JobView{Index: 5})
	}}
	c, _ := newRig(t, f).client("a", "b")
	stream, err := c.ClusterServiceClient.WatchJob(testContext(t), &pb.WatchJobRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if v, err := stream.Recv(); err != nil || v.Index != 5 {
		t.Errorf("got %v, %v", v, err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
}
