package cluster_test

import (
	"strings"
	"testing"
	"time"

	"llmos/test/cluster"
)

// TestRestart stops all servers at once and starts them: jobs that run, wait and have
// ended, the ledger, the node and the keys are what they were, to the bit.
func TestRestart(t *testing.T) {
	t.Parallel()
	timing := steady()
	timing.SilentAfter = time.Hour // the agent's silence must not change the state in between
	c := cluster.Start(t, 3, cluster.WithTiming(timing))
	agent := c.Agent("rack1", 4, 2).Connect()
	done := submit(t, c, job("done", 1, 1, 1), "r-done")
	agent.Report(cluster.Seen(agent.Order(done, toRun).Task, succeeded))
	busy := submit(t, c, job("busy", 2, 1, 1), "r-busy")
	agent.Report(cluster.Seen(agent.Order(busy, toRun).Task, running))
	waiting := submit(t, c, job("waiting", 1, 1, 2), "r-waiting")
	before := c.WaitSame()
	agent.Drop()

	for _, s := range c.Servers {
		if err := s.Stop(); err != nil {
			t.Errorf("stop %s: %v", s.Config.Name, err)
		}
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.Leader()
	after := c.WaitSame()
	if after.Hash() != before.Hash() {
		t.Errorf("the hash at index %d is %x, before the restart at %d it was %x", after.Index(), after.Hash(), before.Index(), before.Hash())
	}
	for _, id := range []string{done, busy, waiting} {
		if was, is := before.Job(id), after.Job(id); is == nil || is.State != was.State || is.Epoch != was.Epoch {
			t.Errorf("job %s is %v, was %v", id, is, was)
		}
	}
	if again := submit(t, c, job("busy", 2, 1, 1), "r-busy"); again != busy {
		t.Errorf("the repeated request gave %s, want %s", again, busy)
	}
}

// TestDataDirectoryInUse starts a second server on the directory of a running one.
func TestDataDirectoryInUse(t *testing.T) {
	t.Parallel()
	c := cluster.Start(t, 1)
	second := &cluster.Server{Config: c.Servers[0].Config}
	second.Config.Listen = "127.0.0.1:0"
	err := second.Try()
	wantKind(t, "the second server", err, conflict)
	if err == nil || !strings.Contains(err.Error(), "another llmos is running on data directory "+second.Config.DataDir) {
		t.Errorf("the second server: %v", err)
	}
	submit(t, c, job("unharmed", 1, 1, 0), "")
	if err := c.Servers[0].Stop(); err != nil {
		t.Fatal(err)
	}
	c.Servers[0].Start() // the lock is free again
	submit(t, c, job("again", 1, 1, 0), "")
}
