package cluster_test

import (
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

// TestAnyServerTakesAnyRequest makes every kind of request of a follower, one try each.
func TestAnyServerTakesAnyRequest(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3, cluster.WithTiming(steady()))
	agent := c.Agent("node", 4, 0).Connect()
	leader := c.Leader()
	follower := followers(c, leader)[0]
	api, ctx := c.API(follower), c.Context()
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s by way of a follower: %v", what, err)
		}
	}
	made, err := api.SubmitJob(ctx, request("r-1", job("one", 1, 1, 0)))
	must("submit", err)
	// Read your writes: the follower asks the leader, so its own lag does not show.
	got, err := api.GetJob(ctx, &pb.GetJobRequest{JobId: "one"})
	must("get", err)
	if got.Job.Id != made.JobId || got.Job.User == "" {
		t.Errorf("the job is %v", got.Job)
	}
	watch, err := api.WatchJob(ctx, &pb.WatchJobRequest{JobId: made.JobId})
	must("watch", err)
	_, err = watch.Recv()
	must("watch", err)
	agent.Report(cluster.Seen(agent.Order(made.JobId, toRun).Task, succeeded))
	for last := (*pb.JobView)(nil); last.GetJob().GetState() != pb.JobState_JOB_STATE_SUCCEEDED; {
		last, err = watch.Recv()
		must("watch to the end", err)
	}
	list, err := api.ListJobs(ctx, &pb.ListJobsRequest{All: true})
	must("list", err)
	nodes, err := api.ListNodes(ctx, &pb.ListNodesRequest{})
	must("list nodes", err)
	if len(list.Jobs) != 1 || len(nodes.Nodes) != 1 {
		t.Errorf("%d jobs and %d nodes, want 1 and 1", len(list.Jobs), len(nodes.Nodes))
	}
	big, err := api.SubmitJob(ctx, request("r-2", job("big", 5, 1, 0)))
	must("submit", err)
	why, err := api.ExplainJob(ctx, &pb.ExplainJobRequest{JobId: big.JobId})
	must("explain", err)
	if why.Reason == "" {
		t.Error("the follower knows no reason why the job waits")
	}
	_, err = api.StopJob(ctx, &pb.StopJobRequest{JobId: big.JobId})
	must("stop", err)
	status, err := api.GetStatus(ctx, &pb.GetStatusRequest{})
	must("status", err)
	if status.ServerId != leader.ServerID() || status.LeaderId != leader.ServerID() || status.InvariantFault != "" {
		t.Errorf("the cluster's status is %v", status)
	}
	local, err := api.GetStatus(ctx, &pb.GetStatusRequest{Local: true})
	must("local status", err)
	if local.ServerId != follower.ServerID() {
		t.Errorf("the follower's own status is of %s", local.ServerId)
	}
	_, err = api.CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{Role: pb.MemberRole_MEMBER_ROLE_AGENT})
	must("make a token", err)
	_, err = api.GetJob(ctx, &pb.GetJobRequest{JobId: "nobody"})
	if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_FOUND {
		t.Errorf("a fault of the leader arrives as %v", err)
	}
}
