package exec

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be its own shim, as the llmos binary is.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "shim" {
		os.Exit(ShimMain(os.Args[2:]))
	}
	code := m.Run()
	stopDockerd()
	os.Exit(code)
}

const patience = 20 * time.Second

func testDriver(t *testing.T) *Driver {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	d := NewDriver(DriverConfig{Self: self, Args: []string{"shim"}, NodeID: "n-exectest", Warm: 1, Log: slog.New(slog.DiscardHandler)})
	t.Cleanup(func() { d.Close(); d.RemoveStale() })
	return d
}

// taskDir makes a task's directory whose tree is killed when the test ends.
func taskDir(t *testing.T, d *Driver) string {
	t.Helper()
	dir := t.TempDir()
	t.Cleanup(func() {
		var c claim
		if found, _ := readJSON(dir, claimFile, &c); found && !c.Void {
			if held, _ := claimHeld(dir); held {
				killVerified(c.PID, func() bool { s, err := readStat(c.PID); return err == nil && s.ticks == c.Ticks })
			}
		}
		if err := d.bury(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func shell(dir, script string) Spec {
	return Spec{TaskID: "t-1.e1.r0", NodeName: "n1", Command: []string{"/bin/sh", "-c", script},
		Env: []string{"PATH=/usr/bin:/bin", marker + dir}, GraceMS: 5000}
}

func start(t *testing.T, d *Driver, dir string, spec Spec) *Handle {
	t.Helper()
	h, err := d.Start(dir, spec)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Detach)
	return h
}

// await reads statuses until one satisfies ok.
func await(t *testing.T, h *Handle, what string, ok func(Status) bool) Status {
	t.Helper()
	timeout := time.After(patience)
	var last Status
	for {
		select {
		case s, open := <-h.Updates():
			if !open {
				t.Fatalf("%s: the task is over (last %+v, error %v)", what, last, h.Err())
			}
			last = s
			if ok(s) {
				return s
			}
		case <-timeout:
			t.Fatalf("%s: not within %s (last %+v)", what, patience, last)
		}
	}
}

func awaitStart(t *testing.T, h *Handle) Identity {
	t.Helper()
	return *await(t, h, "start", func(s Status) bool { return s.Identity != nil || s.Exit != nil }).Identity
}

func awaitExit(t *testing.T, h *Handle) Exit {
	t.Helper()
	return *await(t, h, "exit", func(s Status) bool { return s.Exit != nil }).Exit
}

// output reads the whole log.
func output(t *testing.T, dir string) string {
	t.Helper()
	r := OpenLog(dir, 0)
	defer r.Close()
	var b strings.Builder
	for {
		c, ok, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return b.String()
		}
		b.Write(c.Data)
	}
}

// waitOutput follows the log until it holds text.
func waitOutput(t *testing.T, dir, text string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		out := output(t, dir)
		if strings.Contains(out, text) {
			return out
		}
		w := WatchLog(dir)
		if out = output(t, dir); strings.Contains(out, text) {
			w.Close()
			return out
		}
		err := w.Wait(ctx)
		w.Close()
		if err != nil {
			t.Fatalf("output %q never held %q", out, text)
		}
	}
}

func waitGone(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
	if err != nil || n != 1 {
		t.Fatalf("process %d still runs", pid)
	}
}

func TestStartAndEnd(t *testing.T) {
	d := testDriver(t)
	for _, c := range []struct {
		name, script string
		state        State
		code, signal int
		out          string
	}{
		{"success", "echo hello; echo oops >&2", Succeeded, 0, 0, "hello\noops\n"},
		{"failure", "exit 3", Failed, 3, 0, ""},
		{"signal", "kill -KILL $$", Failed, 137, 9, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := taskDir(t, d)
			e := awaitExit(t, start(t, d, dir, shell(dir, c.script)))
			if e.State != c.state || e.Code != c.code || e.Signal != c.signal || e.StartedMS == 0 || e.EndedMS < e.StartedMS {
				t.Fatalf("got %+v", e)
			}
			if out := output(t, dir); len(out) != len(c.out) {
				t.Fatalf("output %q, want %q", out, c.out)
			}
			recorded, err := ReadExit(dir)
			if err != nil || *recorded != e {
				t.Fatalf("recorded %+v (%v), reported %+v", recorded, err, e)
			}
		})
	}
}

func TestEnvironmentIsExactlyTheGiven(t *testing.T) {
	t.Setenv("AGENT_SECRET", "hidden")
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, "")
	spec.Command = []string{"env"}
	spec.Env = append(spec.Env, "A=1", "B=x y")
	awaitExit(t, start(t, d, dir, spec))
	want := strings.Join(spec.Env, "\n") + "\n"
	if got := output(t, dir); got != want {
		t.Fatalf("environment\n%s\nwant\n%s", got, want)
	}
}

func TestCannotStart(t *testing.T) {
	d := testDriver(t)
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	orphan := filepath.Join(t.TempDir(), "orphan")
	if err := os.WriteFile(orphan, []byte("#!/no/such/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("hello"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*Spec)
		code   int
		reason string
	}{
		{"workdir", func(s *Spec) { s.Workdir = "/no/such" }, 125, "working directory /no/such does not exist on node n1"},
		{"workdir is a file", func(s *Spec) { s.Workdir = plain }, 125, "working directory " + plain + " on node n1 is not a directory"},
		{"command", func(s *Spec) { s.Command = []string{"pyhton", "train.py"} }, 127, `command "pyhton" was not found on node n1 (PATH=/usr/bin:/bin)`},
		{"path", func(s *Spec) { s.Command = []string{"/no/such"} }, 127, `command "/no/such" was not found on node n1`},
		{"not executable", func(s *Spec) { s.Command = []string{plain} }, 126, `is not executable on node n1`},
		{"interpreter", func(s *Spec) { s.Command = []string{orphan} }, 127, "names an interpreter that does not exist"},
		{"no program", func(s *Spec) { s.Command = []string{text} }, 126, "is not a program for this machine"},
		{"user", func(s *Spec) { s.User = "nobody-here" }, 125, `user "nobody-here" does not exist on node n1`},
		{"no command", func(s *Spec) { s.Command = nil }, 125, "the task has no command"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := taskDir(t, d)
			spec := shell(dir, "true")
			c.change(&spec)
			e := awaitExit(t, start(t, d, dir, spec))
			if e.State != Failed || e.Code != c.code || !strings.Contains(e.Reason, c.reason) || e.StartedMS != 0 {
				t.Fatalf("got %+v, want code %d and %q", e, c.code, c.reason)
			}
			if out := output(t, dir); !strings.Contains(out, e.Reason) {
				t.Errorf("the log says %q and not why", out)
			}
		})
	}
}
