package cluster_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"llmos/server"
	"llmos/test/cluster"
)

// snapshots gives the newest index of the snapshots in a server's directory, and their
// names as <term>-<index>, which a snapshot keeps when it is sent to another server.
func snapshots(t *testing.T, s *cluster.Server) (newest uint64, names map[string]bool) {
	t.Helper()
	names = map[string]bool{}
	entries, err := os.ReadDir(filepath.Join(s.Config.DataDir, "raft", "snapshots"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for _, e := range entries {
		parts := strings.Split(e.Name(), "-") // term, index, time; an unfinished one ends in .tmp
		if len(parts) != 3 || strings.HasSuffix(e.Name(), ".tmp") {
			continue
		}
		index, err := strconv.ParseUint(parts[1], 10, 64)
		if err != nil {
			t.Fatalf("snapshot %s: %v", e.Name(), err)
		}
		newest = max(newest, index)
		names[parts[0]+"-"+parts[1]] = true
	}
	return newest, names
}

// TestSnapshotAndRestore leaves a follower so far behind that the log no longer has what it
// lacks: it must take the leader's snapshot. Afterwards its state is the others', and the
// idempotency keys from before are in it, also when all servers start from their snapshots.
func TestSnapshotAndRestore(t *testing.T) {
	t.Parallel()
	timing := server.Fast()
	timing.SnapshotThreshold, timing.SnapshotEvery, timing.TrailingLogs = 20, 50*time.Millisecond, 5
	c := cluster.Start(t, 3, cluster.WithTiming(timing))
	first := submit(t, c, job("first", 1, 1, 0), "r-first")
	lagging := followers(c, c.Leader())[0]
	last := c.WaitSame().Index()
	_ = lagging.Stop()
	for i := range 60 {
		submit(t, c, job(fmt.Sprintf("job%d", i), 1, 1, 0), fmt.Sprintf("r-%d", i))
	}
	leader := c.Leader()
	var offered map[string]bool
	cluster.Wait(t, "a snapshot that ends the follower's log", func() bool {
		newest, names := snapshots(t, leader)
		offered = names
		return newest > last+2*timing.TrailingLogs+timing.SnapshotThreshold
	})
	lagging.Start()
	c.WaitSame()
	_, taken := snapshots(t, lagging)
	_, newer := snapshots(t, leader) // it may have taken one more before it sent one
	maps.Copy(offered, newer)
	if !overlap(offered, taken) {
		t.Errorf("the follower has snapshots %v and the leader offered %v: none was installed", taken, offered)
	}
	if r := lagging.Stale().Request("r-30"); r == nil || lagging.Stale().Request("r-first").GetJobId() != first {
		t.Errorf("the restored server does not know the keys: %v, %v", r, lagging.Stale().Request("r-first"))
	}

	for _, s := range c.Servers {
		_ = s.Stop()
	}
	for _, s := range c.Servers {
		s.Start()
	}
	c.Leader()
	hash := c.WaitSame().Hash()
	resp, err := c.Client().SubmitJob(c.Context(), request("r-first", job("first", 1, 1, 0)))
	if err != nil || resp.JobId != first || !resp.RepeatedRequest {
		t.Errorf("the repeated request gave %v, %v, want %s", resp, err, first)
	}
	_, err = c.Client().SubmitJob(c.Context(), request("r-first", job("other", 1, 1, 0)))
	wantKind(t, "the key with another job", err, conflict)
	if again := c.WaitSame(); again.Hash() != hash {
		t.Error("repeated requests changed the state")
	}
}

func overlap(a, b map[string]bool) bool {
	for name := range a {
		if b[name] {
			return true
		}
	}
	return false
}
