package exec

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// pidIn reads a process number that a task has written.
func pidIn(t *testing.T, path string) int {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// TestEndIsAFailureWithItsReason: a task that is ended for what it did has failed, whatever
// order comes after, and its log says so too.
func TestEndIsAFailureWithItsReason(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	h := start(t, d, dir, shell(dir, "trap '' TERM; while :; do sleep 0.05; done"))
	awaitStart(t, h)
	const why = "used 12.3 GiB of device GPU-1234, 10 GiB were granted"
	h.End(why)
	h.Stop()
	h.Kill()
	if e := awaitExit(t, h); e.State != Failed || e.Reason != why || e.Code != 137 || e.Signal != 9 {
		t.Errorf("%+v, want failed: %s", e, why)
	}
	if log := output(t, dir); !strings.Contains(log, "llmos: ended: "+why) {
		t.Errorf("log %q", log)
	}
}

// TestEndAfterAStopIsAStop: who was asked to stop before is not blamed.
func TestEndAfterAStopIsAStop(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	ready := filepath.Join(dir, "ready")
	h := start(t, d, dir, shell(dir, "trap 'echo > "+ready+"' TERM; echo up; while :; do sleep 0.05; done"))
	awaitStart(t, h)
	waitOutput(t, dir, "up")
	h.Stop()
	awaitPath(t, ready)
	h.End("it used too much")
	if e := awaitExit(t, h); e.State != Stopped || strings.Contains(e.Reason, "too much") {
		t.Errorf("%+v, want stopped", e)
	}
}

// TestEndSurvivesTheAgent: the reason is in the shim's record, whoever reads it.
func TestEndSurvivesTheAgent(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	h := start(t, d, dir, shell(dir, "sleep 60"))
	awaitStart(t, h)
	h.End("it used too much")
	h.Detach()
	again, err := testDriver(t).Adopt(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Detach)
	if e := awaitExit(t, again); e.State != Failed || e.Reason != "it used too much" {
		t.Errorf("%+v", e)
	}
}

// TestOwners: a process belongs to the task from whose shim it descends, also when it has
// left its parents and its environment names a neighbour.
func TestOwners(t *testing.T) {
	d := testDriver(t)
	mine, other := taskDir(t, d), taskDir(t, d)
	away := filepath.Join(mine, "away")
	script := "(env -i " + marker + other + " setsid sh -c 'echo $$ > " + away + ".new; mv " + away + ".new " + away + "; sleep 60' &) ; sleep 60"
	h := start(t, d, mine, shell(mine, script))
	id := awaitStart(t, h)
	neighbour := awaitStart(t, start(t, d, other, shell(other, "sleep 60")))
	awaitPath(t, away)
	owners := OwnersOf([]string{mine, other, t.TempDir()})
	for _, c := range []struct {
		name string
		pid  int
		want string
	}{
		{"first process", id.PID, mine}, {"the neighbour's", neighbour.PID, other}, {"detached", pidIn(t, away), mine},
		{"nobody's", os.Getpid(), ""}, {"no process", 1 << 30, ""}, {"init", 1, ""},
	} {
		if dir, ok := owners.Of(c.pid); dir != c.want || ok != (c.want != "") {
			t.Errorf("%s: process %d belongs to %q, want %q", c.name, c.pid, dir, c.want)
		}
	}
	h.Kill()
	awaitExit(t, h)
	if dir, ok := owners.Of(id.PID); ok {
		t.Errorf("a process that has gone belongs to %s", dir)
	}
}

// awaitPath waits for a file that a task makes.
func awaitPath(t *testing.T, path string) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("%s is not there within %s", path, patience)
		}
	}
}
