package cluster_test

import (
	"context"
	"fmt"
	"testing"
	"time"

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
		term = max(term, termOf(old))
		end(old)
		after := submit(t, c, job(fmt.Sprintf("after%d", i), 1, 1, 0), "")
		next := c.Leader()
		if now := termOf(next); next == old || now <= term {
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

// TestReturningServerDeposesNobody cuts a follower off until it has stood for election
// several times in vain. Without pre-vote its term would have grown, and its return would
// force an election.
func TestReturningServerDeposesNobody(t *testing.T) {
	t.Parallel()
	timing := steady()
	c := cluster.Start(t, 3, cluster.WithTiming(timing))
	away := followers(c, c.Leader())[0]
	term := termOf(away)
	c.Network.Cut(away.Config.Listen)
	cluster.Wait(t, "the follower to miss its leader", func() bool {
		id, _, _ := away.Leader()
		return id == ""
	})
	<-time.After(3 * timing.ElectionTimeout) // the time itself is the point: room for candidacies
	id := submit(t, c, job("meanwhile", 1, 1, 0), "")
	if now := termOf(away); now > term {
		t.Errorf("the server that was cut off raised its term from %d to %d", term, now)
	}
	leader := c.Leader()
	term = termOf(leader)
	c.Network.Mend(away.Config.Listen)
	cluster.Wait(t, "the follower to hear the leader", func() bool {
		id, _, _ := away.Leader()
		return id != ""
	})
	if now, next := termOf(away), c.Leader(); now != term || next != leader {
		t.Errorf("%s leads in term %d after the return, before it %s led in term %d", next.Config.Name, now, leader.Config.Name, term)
	}
	cluster.Wait(t, "the follower to catch up", func() bool { return away.Stale().Job(id) != nil })
	c.WaitSame()
}

func termOf(s *cluster.Server) uint64 { return s.ClusterStatus(context.Background(), true).Term }
