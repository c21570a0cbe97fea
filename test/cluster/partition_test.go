package cluster_test

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

// TestMinorityLeader cuts the leader off from the two others, for Raft, gossip and calls
// alike. Alone it may neither accept a write nor give a linearizable answer, from the first
// moment on; the others go on without it; healed, all are equal and nothing that was
// refused has happened.
func TestMinorityLeader(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3)
	before := submit(t, c, job("before", 1, 1, 0), "r-before")
	c.WaitSame()
	old := c.Leader()
	c.Network.Cut(old.Config.Listen)

	// At once, while it still believes that it leads.
	ctx := c.Context()
	wrote := make(chan error, 1)
	go func() {
		_, err := old.Propose(ctx, submitCommand("r-lonely", "lonely"))
		wrote <- err
	}()
	_, err := old.Read(ctx)
	wantKind(t, "a read of the minority's leader", err, notLeader, unavailable)
	err = <-wrote
	wantKind(t, "a write to the minority's leader", err, notLeader, unavailable, pb.ErrorKind_ERROR_KIND_UNKNOWN)
	maybe := fault.Kind(err) == pb.ErrorKind_ERROR_KIND_UNKNOWN

	// Later, through the API, while the others go on.
	var minority sync.WaitGroup
	minority.Go(func() { wantMinority(t, ctx, c.API(old), before) })
	var meanwhile []string
	for i := range 5 {
		meanwhile = append(meanwhile, submit(t, c, job(fmt.Sprintf("meanwhile%d", i), 1, 1, 0), ""))
	}
	if old.Stale().Job(meanwhile[0]) != nil {
		t.Fatal("the cut does not cut: the minority knows the majority's jobs")
	}
	cluster.Wait(t, "the leader to miss the server that is cut off", func() bool {
		for _, s := range c.Leader().ClusterStatus(ctx, true).Servers {
			if s.Id == old.ServerID() {
				return !s.Reachable
			}
		}
		return false
	})
	minority.Wait()

	c.Network.Mend(old.Config.Listen)
	cluster.Wait(t, "the healed server to catch up", func() bool { return old.Stale().Job(meanwhile[4]) != nil })
	s := c.WaitSame()
	for _, id := range append(meanwhile, before) {
		if s.Job(id) == nil {
			t.Errorf("job %s was acknowledged and is lost", id)
		}
	}
	if done := s.Request("r-lonely"); done != nil && !maybe {
		t.Errorf("the refused write was done: %v", done)
	}
	if done := s.Request("r-cut"); done != nil {
		t.Errorf("the write that the minority refused was done: %v", done)
	}
}

// wantMinority holds a server without a quorum to refusing everything but stale reads.
func wantMinority(t *testing.T, ctx context.Context, api pb.ClusterServiceClient, known string) {
	var calls sync.WaitGroup
	calls.Go(func() {
		_, err := api.SubmitJob(ctx, request("r-cut", job("cut", 1, 1, 0)))
		wantKind(t, "a submit to the minority", err, notLeader, unavailable)
	})
	calls.Go(func() {
		_, err := api.GetJob(ctx, &pb.GetJobRequest{JobId: known})
		wantKind(t, "a read of the minority", err, notLeader, unavailable)
	})
	if v, err := api.GetJob(ctx, &pb.GetJobRequest{JobId: known, Stale: true}); err != nil || v.Job.Id != known {
		t.Errorf("a stale read of the minority: %v, %v", v, err)
	}
	calls.Wait()
}

func submitCommand(request, name string) *pb.Command {
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{RequestId: request, Spec: job(name, 1, 1, 0)}}}
}
