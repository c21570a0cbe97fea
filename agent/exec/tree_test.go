package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// bothWays runs a test with cgroups, where this machine has them, and without.
func bothWays(t *testing.T, f func(t *testing.T, d *Driver)) {
	t.Run("cgroups", func(t *testing.T) { f(t, testDriver(t)) })
	t.Run("no cgroups", func(t *testing.T) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		d := NewDriver(DriverConfig{Self: self, Args: []string{"shim"}, Log: slog.New(slog.DiscardHandler)})
		t.Cleanup(d.Close)
		f(t, d)
	})
}

// family is a script whose tree has a child in its own session, double-forked, and one
// that ignores SIGTERM. Each prints its number.
const family = `
(setsid sh -c 'trap "" TERM; echo grandchild $$; while :; do sleep 300; done' &)
sh -c 'trap "" TERM; echo sibling $$; while :; do sleep 300; done' &
echo parent $$
`

// pids reads the numbers that the family has printed.
func pids(t *testing.T, dir string) []int {
	t.Helper()
	var out []int
	for _, name := range []string{"parent ", "sibling ", "grandchild "} {
		waitOutput(t, dir, name)
	}
	for line := range strings.Lines(output(t, dir)) {
		fields := strings.Fields(line)
		pid, err := strconv.Atoi(fields[len(fields)-1])
		if err != nil {
			t.Fatalf("line %q", line)
		}
		out = append(out, pid)
	}
	if len(out) != 3 {
		t.Fatalf("family of %d: %q", len(out), output(t, dir))
	}
	return out
}

func TestStopTakesTheWholeTree(t *testing.T) {
	bothWays(t, func(t *testing.T, d *Driver) {
		dir := taskDir(t, d)
		spec := shell(dir, family+"wait")
		spec.GraceMS = 100
		h := start(t, d, dir, spec)
		all := pids(t, dir)
		h.Stop()
		if e := awaitExit(t, h); e.State != Stopped || e.Signal != int(unix.SIGTERM) {
			t.Fatalf("got %+v", e)
		}
		for _, pid := range all {
			waitGone(t, pid)
		}
	})
}

func TestWhatOutlivesTheFirstProcessIsKilled(t *testing.T) {
	bothWays(t, func(t *testing.T, d *Driver) {
		dir := taskDir(t, d)
		gate := fifo(t)
		h := start(t, d, dir, shell(dir, family+"read x < "+gate+"; exit 6"))
		all := pids(t, dir)
		open(t, gate)
		if e := awaitExit(t, h); e.State != Failed || e.Code != 6 || !e.LeftoverTree {
			t.Fatalf("got %+v", e)
		}
		for _, pid := range all {
			waitGone(t, pid)
		}
	})
}

func fifo(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "gate")
	if err := unix.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t *testing.T, gate string) {
	t.Helper()
	if err := os.WriteFile(gate, []byte("go\n"), 0); err != nil {
		t.Fatal(err)
	}
}

func TestGraceEndsInAKill(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, `trap "echo heard" TERM; echo up; while :; do sleep 0.05; done`)
	spec.GraceMS = 300
	h := start(t, d, dir, spec)
	waitOutput(t, dir, "up")
	h.Stop()
	if e := awaitExit(t, h); e.State != Stopped || e.Signal != int(unix.SIGKILL) || e.Code != 137 {
		t.Fatalf("got %+v", e)
	}
	if out := output(t, dir); !strings.Contains(out, "heard\n") {
		t.Fatalf("output %q", out)
	}
}

func TestStopSignalOfTheJob(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, `trap "echo int; exit 0" INT; echo up; while :; do sleep 0.05; done`)
	spec.StopSignal = "SIGINT"
	h := start(t, d, dir, spec)
	waitOutput(t, dir, "up")
	h.Stop()
	if e := awaitExit(t, h); e.State != Stopped || e.Code != 0 || output(t, dir) != "up\nint\n" {
		t.Fatalf("got %+v, output %q", e, output(t, dir))
	}
}

func TestKillDoesNotWaitForTheGrace(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, `trap "" TERM; echo up; while :; do sleep 300; done`)
	spec.GraceMS = 3_600_000
	h := start(t, d, dir, spec)
	waitOutput(t, dir, "up")
	h.Stop()
	h.Kill()
	if e := awaitExit(t, h); e.State != Stopped || e.Signal != int(unix.SIGKILL) {
		t.Fatalf("got %+v", e)
	}
}

func TestTaskOutlivesItsDriver(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	gate := fifo(t)
	h := start(t, d, dir, shell(dir, "echo before; read x < "+gate+"; echo after; exit 9"))
	id := awaitStart(t, h)
	h.Detach()
	d.Close()
	again := testDriver(t)
	adopted, err := again.Adopt(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(adopted.Detach)
	if got := awaitStart(t, adopted); got != id {
		t.Fatalf("adopted %+v, started %+v", got, id)
	}
	open(t, gate)
	if e := awaitExit(t, adopted); e.Code != 9 || output(t, dir) != "before\nafter\n" {
		t.Fatalf("got %+v, output %q", e, output(t, dir))
	}
	// And once more, now that it has ended.
	ended, err := again.Adopt(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	if e := awaitExit(t, ended); e.Code != 9 {
		t.Fatalf("got %+v", e)
	}
}

// A stop once taken is carried out by the shim, whatever becomes of the agent.
func TestStopGoesOnWithoutTheAgent(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	gate := fifo(t)
	spec := shell(dir, `trap "read x < `+gate+`; exit 0" TERM; echo up; while :; do sleep 0.05; done`)
	h := start(t, d, dir, spec)
	waitOutput(t, dir, "up")
	h.Stop()
	h.Detach()
	d.Close()
	open(t, gate)
	again, err := testDriver(t).Adopt(context.Background(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(again.Detach)
	if e := awaitExit(t, again); e.State != Stopped || e.Code != 0 {
		t.Fatalf("got %+v", e)
	}
}

func TestDeathOfTheShimIsTheTasks(t *testing.T) {
	bothWays(t, func(t *testing.T, d *Driver) {
		for _, adopt := range []bool{false, true} {
			t.Run(fmt.Sprintf("adopted %v", adopt), func(t *testing.T) {
				dir := taskDir(t, d)
				h := start(t, d, dir, shell(dir, family+"wait"))
				all := pids(t, dir)
				awaitStart(t, h)
				var c claim
				if _, err := readJSON(dir, claimFile, &c); err != nil {
					t.Fatal(err)
				}
				if adopt {
					h.Detach()
				}
				if err := unix.Kill(c.PID, unix.SIGKILL); err != nil {
					t.Fatal(err)
				}
				var err error
				if adopt {
					h, err = d.Adopt(context.Background(), dir)
				}
				if err == nil { // the shim may still have been dying
					for range h.Updates() {
					}
					err = h.Err()
				}
				if !errors.Is(err, ErrDied) {
					t.Fatalf("got %v", err)
				}
				for _, pid := range all {
					waitGone(t, pid)
				}
			})
		}
	})
}

func TestShimSurvivesSignals(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	gate := fifo(t)
	h := start(t, d, dir, shell(dir, "read x < "+gate+"; exit 2"))
	awaitStart(t, h)
	var c claim
	if _, err := readJSON(dir, claimFile, &c); err != nil {
		t.Fatal(err)
	}
	for _, sig := range []unix.Signal{unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGPIPE} {
		if err := unix.Kill(c.PID, sig); err != nil {
			t.Fatal(err)
		}
	}
	if sid, err := unix.Getsid(c.PID); err != nil || sid != c.PID {
		t.Fatalf("the shim's session is %d (%v), want its own, %d", sid, err, c.PID)
	}
	open(t, gate)
	if e := awaitExit(t, h); e.Code != 2 {
		t.Fatalf("got %+v", e)
	}
}

func TestTaskStartsAtMostOnce(t *testing.T) {
	d := testDriver(t)
	t.Run("voided before the start", func(t *testing.T) {
		dir := taskDir(t, d)
		if _, err := d.Adopt(context.Background(), dir); !errors.Is(err, ErrNotStarted) {
			t.Fatalf("got %v", err)
		}
		refused(t, d, dir)
		if out := output(t, dir); out != "" {
			t.Fatalf("it ran: %q", out)
		}
	})
	t.Run("started twice", func(t *testing.T) {
		dir := taskDir(t, d)
		awaitExit(t, start(t, d, dir, shell(dir, "echo ran")))
		h := start(t, d, dir, shell(dir, "echo ran"))
		awaitExit(t, h) // the first one's record
		if out := output(t, dir); out != "ran\n" {
			t.Fatalf("output %q", out)
		}
	})
}

func refused(t *testing.T, d *Driver, dir string) {
	t.Helper()
	h := start(t, d, dir, shell(dir, "echo ran"))
	for range h.Updates() {
	}
	if !errors.Is(h.Err(), ErrNotStarted) {
		t.Fatalf("got %v", h.Err())
	}
}

// A number that another process has got in the meantime is not the task's.
func TestIdentityTellsProcessesApart(t *testing.T) {
	stat, err := readStat(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	mine := &Identity{PID: os.Getpid(), Ticks: stat.ticks, BootID: BootID()}
	if !sameProcess(mine) {
		t.Error("this process is not recognised")
	}
	other := *mine
	other.Ticks--
	if sameProcess(&other) {
		t.Error("a process that started at another time is taken for this one")
	}
	// With that identity nothing may be killed, least of all this test.
	if !sweep(t.TempDir(), &other, &group{}, testDeadline()) {
		t.Error("something is left of a task that never was")
	}
}
