package cluster_test

import (
	"context"
	"os"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server"
	"llmos/test/cluster"
)

// TestRejoinWithWipedDisk loses a server's disk. It comes back with a new ID, first without
// a vote and after its time of proof with one, and the old ID goes. At no moment may the
// configuration be one whose living voters are no quorum.
func TestRejoinWithWipedDisk(t *testing.T) {
	t.Parallel()
	for name, move := range map[string]func(*cluster.Cluster, *cluster.Server) *cluster.Server{
		"same address": func(c *cluster.Cluster, s *cluster.Server) *cluster.Server {
			s.Config.Join, s.Config.Token = c.Addrs(), c.Token(pb.MemberRole_MEMBER_ROLE_SERVER)
			s.Config.Bootstrap = false
			s.Start()
			return s
		},
		"another address": func(c *cluster.Cluster, _ *cluster.Server) *cluster.Server { return c.AddServer() },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			timing := server.Fast()
			timing.DeadAfter, timing.StableAfter = time.Second, 1500*time.Millisecond
			c := cluster.Start(t, 3, cluster.WithTiming(timing))
			id := submit(t, c, job("kept", 1, 1, 0), "r-kept")
			wiped := followers(c, c.Leader())[0]
			oldID := wiped.ServerID()
			_ = wiped.Stop()
			if err := os.RemoveAll(wiped.Config.DataDir); err != nil {
				t.Fatal(err)
			}
			begun := time.Now()
			newcomer := move(c, wiped)
			newID := newcomer.ServerID()
			if newID == oldID {
				t.Fatalf("the wiped server came back as %s", oldID)
			}
			watchReplacement(t, c, oldID, newID)
			if took := time.Since(begun); took < timing.StableAfter {
				t.Errorf("the newcomer votes %s after its start; it had to prove itself for %s", took, timing.StableAfter)
			}
			if again := submit(t, c, job("kept", 1, 1, 0), "r-kept"); again != id {
				t.Errorf("the repeated request gave %s, want %s", again, id)
			}
			if c.WaitSame(); newcomer.Stale().Job(id) == nil {
				t.Error("the newcomer does not hold the job from before")
			}
		})
	}
}

// watchReplacement looks at every configuration until the new server has the old one's vote.
func watchReplacement(t *testing.T, c *cluster.Cluster, oldID, newID string) {
	t.Helper()
	seenWithout := false
	cluster.Wait(t, "the newcomer to vote in the lost server's place", func() bool {
		voters, living, newVotes, old := 0, 0, false, false
		for _, s := range c.Leader().ClusterStatus(context.Background(), true).Servers {
			if s.Id == newID {
				newVotes = s.Voter
				seenWithout = seenWithout || !s.Voter
			}
			old = old || s.Id == oldID
			if s.Voter {
				voters++
				if s.Id != oldID {
					living++
				}
			}
		}
		if living < voters/2+1 {
			t.Errorf("%d of %d voters live: no quorum", living, voters)
		}
		return newVotes && !old && voters == 3
	})
	if !seenWithout {
		t.Error("the newcomer voted at once")
	}
}
