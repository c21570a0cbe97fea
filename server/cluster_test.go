package server_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

func submit(t *testing.T, c *cluster.Cluster, name, request string) string {
	t.Helper()
	resp, err := c.Client().SubmitJob(c.Context(), &pb.SubmitJobRequest{RequestId: request, Spec: spec(name)})
	if err != nil {
		t.Fatalf("submit %s: %v", name, err)
	}
	return resp.JobId
}

func spec(name string) *pb.JobSpec {
	return &pb.JobSpec{Name: name, Kind: pb.JobKind_JOB_KIND_BATCH, Priority: 50, Roles: []*pb.RoleSpec{{
		Name: "worker", Count: 1, Command: []string{"true"}, Resources: &pb.Resources{CpuMilli: 100, MemoryBytes: 1 << 20}}}}
}

func TestOneServerServesAndRestarts(t *testing.T) {
	c := cluster.Start(t, 1)
	id := submit(t, c, "alone", "r-1")
	s := c.Servers[0]
	if err := s.Stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	s.Start() // Bootstrap is still set: a directory that holds a cluster just starts
	if again := submit(t, c, "alone", "r-1"); again != id {
		t.Fatalf("the retry after a restart gave job %s, the first submit %s", again, id)
	}
	view, err := c.Client().GetJob(c.Context(), &pb.GetJobRequest{JobId: id})
	if err != nil || view.Job.State != pb.JobState_JOB_STATE_PENDING {
		t.Fatalf("after the restart: %v, %v", view, err)
	}
	status, err := c.Client().GetStatus(c.Context(), &pb.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if status.InvariantFault != "" || status.LeaderId != s.ServerID() || status.ClusterId != s.ClusterID() || len(status.StateHash) != 32 {
		t.Fatalf("status %v", status)
	}
}

func TestLeaderLossLosesNoSubmit(t *testing.T) {
	c := cluster.Start(t, 3)
	acknowledged := map[string]string{}
	for i := range 20 {
		name := fmt.Sprintf("job%d", i)
		acknowledged[name] = submit(t, c, name, "r-"+name)
		if i == 10 {
			_ = c.Leader().Stop()
		}
	}
	leader := c.Leader()
	s, err := leader.Read(c.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, id := range acknowledged {
		if job := s.Job(id); job == nil || job.Spec.Name != name {
			t.Errorf("acknowledged job %s (%s) is %v", name, id, job)
		}
	}
	for _, other := range c.Servers {
		if other.Server == nil {
			other.Start()
		}
	}
	same := func() bool {
		want := leader.Stale()
		for _, other := range c.Servers {
			if got := other.Stale(); got.Index() != want.Index() || got.Hash() != want.Hash() {
				return false
			}
		}
		return true
	}
	cluster.Wait(t, "equal states on all servers", same)
}

func TestFollowersSayWhoLeads(t *testing.T) {
	c := cluster.Start(t, 3)
	leader := c.Leader()
	for _, s := range c.Servers {
		if s == leader {
			continue
		}
		_, err := s.Propose(c.Context(), &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{Spec: spec("x")}}})
		if f := fault.From(err); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_LEADER || f.Fault.LeaderAddr != leader.Addr() {
			t.Errorf("a follower's Propose: %v", err)
		}
		if _, err := s.Read(c.Context()); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_LEADER {
			t.Errorf("a follower's Read: %v", err)
		}
	}
}

// TestReplacedServer loses a server's disk: it comes back on the same address under a new
// ID, and takes the old one's place.
func TestReplacedServer(t *testing.T) {
	c := cluster.Start(t, 3)
	leader := c.Leader()
	var lost *cluster.Server
	for _, s := range c.Servers {
		if s != leader {
			lost = s
		}
	}
	oldID := lost.ServerID()
	_ = lost.Stop()
	lost.Config.DataDir += "-new"
	lost.Config.Token = c.Token(pb.MemberRole_MEMBER_ROLE_SERVER)
	lost.Config.Bootstrap = false
	lost.Config.Join = c.Addrs()
	lost.Start()
	cluster.Wait(t, "the newcomer to vote in the lost server's place", func() bool {
		voters := map[string]bool{}
		for _, v := range c.Leader().ClusterStatus(context.Background(), true).Servers {
			voters[v.Id] = v.Voter
		}
		_, old := voters[oldID]
		return len(voters) == 3 && voters[lost.ServerID()] && !old
	})
}

func TestWrongTokens(t *testing.T) {
	c := cluster.Start(t, 1)
	cfg := c.Servers[0].Config
	cfg.DataDir, cfg.Bootstrap, cfg.Listen = t.TempDir(), false, "127.0.0.1:0"
	cfg.Join, cfg.Token = c.Addrs(), c.Token(pb.MemberRole_MEMBER_ROLE_AGENT)
	joiner := &cluster.Server{Config: cfg}
	if err := joiner.Try(); err == nil {
		t.Fatal("a server joined with an agent's token")
	}
	joiner.Config.Token = "llmos1.not.a.token.x"
	if err := joiner.Try(); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID || !strings.Contains(err.Error(), "token") {
		t.Fatalf("a broken token: %v", err)
	}
}
