package exec

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
)

// enter starts a command beside the task of dir.
func enter(t *testing.T, dir string, b Beside) *Session {
	t.Helper()
	s, err := Enter(dir, b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// running starts a task that runs until it is stopped.
func running(t *testing.T) (d *Driver, h *Handle, dir string) {
	t.Helper()
	d = testDriver(t)
	dir = taskDir(t, d)
	spec := shell(dir, "sleep 600")
	spec.Env = append(spec.Env, "COLOUR=blue")
	h = start(t, d, dir, spec)
	await(t, h, "a start", func(s Status) bool { return s.Identity != nil })
	return d, h, dir
}

func TestCommandBesideATask(t *testing.T) {
	_, _, dir := running(t)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", `read word; echo "$word $COLOUR $MORE"; pwd; echo oops >&2; exit 7`}, Env: []string{"MORE=x"}})
	if _, err := io.WriteString(s.Stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	out, err := io.ReadAll(s.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if want := "hello blue x\n" + HomeDir(dir) + "\n"; string(out) != want {
		t.Errorf("stdout %q, want %q", out, want)
	}
	if errs, _ := io.ReadAll(s.Stderr); string(errs) != "oops\n" {
		t.Errorf("stderr %q", errs)
	}
	if code, err := s.Wait(); code != 7 || err != nil {
		t.Errorf("exit code %d, error %v", code, err)
	}
}

// A command beside a task is a process of the task: in its cgroup, and of its shim.
func TestCommandBesideATaskIsOneOfIt(t *testing.T) {
	_, _, dir := running(t)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", "cat /proc/self/cgroup; cat /proc/$(cat /proc/self/stat | cut -d' ' -f4)/cgroup"}})
	out, err := io.ReadAll(s.Stdout)
	if err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 && !bytes.Contains(out, []byte("n-exectest")) {
		t.Errorf("it is in no group of the task:\n%s", out)
	}
}

func TestTerminalBesideATask(t *testing.T) {
	_, _, dir := running(t)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", "stty size; tty; read line; echo got $line; exit 3"}, Terminal: true, Rows: 40, Cols: 132})
	if _, err := io.WriteString(s.Stdin, "abc\n"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(s.Stdout) // ends with EIO once nobody has the terminal open
	for _, want := range []string{"40 132", "/dev/pts/", "got abc"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in %q", want, out)
		}
	}
	if code, _ := s.Wait(); code != 3 {
		t.Errorf("exit code %d", code)
	}
}

// Whoever hangs up ends the command, even one that ignores it, and not the task.
func TestHangingUpEndsTheCommandAlone(t *testing.T) {
	_, h, dir := running(t)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", "trap '' HUP; echo $$; sleep 600"}})
	buf := make([]byte, 32)
	n, err := s.Stdout.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(buf[:n])))
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	waitGone(t, pid)
	select {
	case st := <-h.Updates():
		if st.Exit != nil {
			t.Errorf("the task ended: %+v", st.Exit)
		}
	default:
	}
}

// The end of the task is the end of what runs beside it, which is not held against the task.
func TestTaskEndsWhatRunsBesideIt(t *testing.T) {
	_, h, dir := running(t)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", "echo here; sleep 600"}})
	if _, err := s.Stdout.Read(make([]byte, 32)); err != nil {
		t.Fatal(err)
	}
	h.Stop()
	if code, err := s.Wait(); code != 128+9 || err != nil {
		t.Errorf("exit code %d, error %v", code, err)
	}
	end := await(t, h, "the end", func(s Status) bool { return s.Exit != nil })
	if end.Exit.State != Stopped || end.Exit.LeftoverTree {
		t.Errorf("%+v", end.Exit)
	}
}

func TestNothingRunsBesideAnEndedTask(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	h := start(t, d, dir, shell(dir, "exit 0"))
	await(t, h, "the end", func(s Status) bool { return s.Exit != nil })
	if _, err := Enter(dir, Beside{Command: []string{"true"}}); !errors.Is(err, ErrNoTask) {
		t.Errorf("error %v", err)
	}
}

func TestCommandThatCannotStart(t *testing.T) {
	_, _, dir := running(t)
	_, err := Enter(dir, Beside{Command: []string{"no-such-program"}})
	if code, ok := StartCode(err); !ok || code != ExitNotFound || !strings.Contains(err.Error(), `"no-such-program" was not found on node n1`) {
		t.Errorf("%v (%d)", err, code)
	}
}
