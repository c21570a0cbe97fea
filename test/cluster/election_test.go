package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"llmos/server"
	"llmos/test/cluster"
)

// TestElection ends the leader in both ways: one that says goodbye and one that falls
// silent. Each time another server leads in a later term and writes go on.
func TestElection(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 3)
	term := uint64(0)
	for i, end := range []func(*cluster.Server){func(s *cluster.Server) { _ = s.Stop() }, c.Kill} {
		old := c.Leader()
		before := submit(t, c, job(fmt.Sprintf("before%d", i), 1, 1, 0), "")
		term = max(term, old.ClusterStatus(context.Background(), true).Term)
		end(old)
		after := submit(t, c, job(fmt.Sprintf("after%d", i), 1, 1, 0), "")
		next := c.Leader()
		if now := next.ClusterStatus(context.Background(), true).Term; next == old || now <= term {
			t.Errorf("the next leader leads in term %d, the last one did in %d", now, term)
		}
		s := read(t, c)
		if s.Job(before) == nil || s.Job(after) == nil {
			t.Errorf("after the loss: job %s is %v, job %s is %v", before, s.Job(before), after, s.Job(after))
		}
		old.Start()
		c.WaitSame()
	}
}

// calm is a timing with which a busy machine elects nobody by accident.
func calm() server.Timing {
	calm := server.Fast()
	calm.HeartbeatTimeout, calm.ElectionTimeout, calm.LeaderLease = 600*time.Millisecond, 600*time.Millisecond, 600*time.Millisecond
	return calm
}

// TestReturningServerDeposesNobody cuts a follower off until it has stood for election
// several times in vain. Without pre-vote its term would have grown and its return would
// force an election.
func TestReturningServerDeposesNobody(t *testing.T) {
	t.Parallel()
	timing := calm()
	c := cluster.Start(t, 3, cluster.WithTiming(timing))
	leader := c.Leader()
	away := followers(c, leader)[0]
	term := leader.ClusterStatus(context.Background(), true).Term
	c.Network.Cut(away.Config.Listen)
	cluster.Wait(t, "the follower to miss its leader", func() bool {
		id, _, _ := away.Leader()
		return id == ""
	})
	<-time.After(3 * timing.ElectionTimeout) // the time itself is the point: room for three candidacies
	id := submit(t, c, job("meanwhile", 1, 1, 0), "")
	c.Network.Mend(away.Config.Listen)
	cluster.Wait(t, "the follower to catch up", func() bool { return away.Stale().Job(id) != nil })
	c.WaitSame()
	for _, s := range c.Servers {
		status := s.ClusterStatus(context.Background(), true)
		if status.Term != term || status.LeaderId != leader.ServerID() {
			t.Errorf("%s sees leader %s in term %d, want %s in term %d", s.Config.Name, status.LeaderId, status.Term, leader.ServerID(), term)
		}
	}
}
