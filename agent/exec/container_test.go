package exec

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"llmos/agent/exec/engine"
	"llmos/test/rig"
)

// contain starts a task in a container of the test's image that runs a script.
func contain(t *testing.T, d *Driver, e *testEngine, dir, script string, change func(*Spec)) *Handle {
	t.Helper()
	spec := shell(dir, script)
	spec.Image, spec.Engine, spec.NodeID = rig.EngineImage, e.Socket, "n-exectest"
	spec.Env = []string{marker + dir, "HOME=" + HomeDir(dir), "TMPDIR=" + TempDir(dir)}
	if change != nil {
		change(&spec)
	}
	t.Cleanup(func() { e.clear(t, dir) })
	return start(t, d, dir, spec)
}

// clear removes what a failed test has left.
func (e *testEngine) clear(t *testing.T, dir string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if n, err := removeContainers(ctx, e.client, dirLabel, dir, nil); err != nil || n > 0 && !t.Failed() {
		t.Errorf("%d containers were left of the task (%v)", n, err)
	}
}

func containerDriver(t *testing.T, e *testEngine) *Driver {
	t.Helper()
	d := testDriver(t)
	d.cfg.Engine = e.Socket
	return d
}

func TestContainerRunsTheTask(t *testing.T) {
	e := docker(t)
	d := containerDriver(t, e)
	dir := taskDir(t, d)
	key, jobDir := filepath.Join(dir, "key"), t.TempDir()
	if err := os.WriteFile(key, []byte("secret\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	h := contain(t, d, e, dir, `echo "$COLOUR"; id -u; pwd; cat `+key+`; echo mine > "$HOME/f"; echo temp > /tmp/t; cat "$TMPDIR/t"; echo shared > `+jobDir+`/s
		ls /proc/1/root/work 2>/dev/null; ls / | grep -c work; grep NoNewPrivs /proc/self/status; df /dev/shm | tail -n 1 | cut -c 1-50; echo oops >&2; echo "@llmos step=3 steps=4"; exit 3`, func(s *Spec) {
		s.Env, s.User, s.Owned, s.JobDir = append(s.Env, "COLOUR=blue"), "nobody", []string{key, jobDir}, jobDir
		s.MemoryBytes, s.SaveDir = 64<<20, "a/ckpt"
	})
	end := awaitExit(t, h)
	out := output(t, dir)
	if end.State != Failed || end.Code != 3 || end.Reason != "exit 3" || end.StartedMS == 0 {
		t.Errorf("got %+v, said %s", end, out)
	}
	for _, want := range []string{"blue\n65534\n" + HomeDir(dir) + "\n", "oops\n", "secret\ntemp\n0\nNoNewPrivs:\t1\n", "65536"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	if data, err := os.ReadFile(filepath.Join(HomeDir(dir), "f")); string(data) != "mine\n" {
		t.Errorf("the private folder holds %q (%v)", data, err)
	}
	if info, err := os.Stat(filepath.Join(HomeDir(dir), "a/ckpt")); err != nil || !info.IsDir() {
		t.Errorf("the folder of checkpoints: %v", err)
	}
	if data, err := os.ReadFile(filepath.Join(jobDir, "s")); string(data) != "shared\n" {
		t.Errorf("the job's folder holds %q (%v)", data, err)
	}
}

func TestContainerIsHeldToItsLimits(t *testing.T) {
	e := docker(t)
	d := containerDriver(t, e)
	for _, c := range []struct {
		name, script, reason string
		change               func(*Spec)
	}{
		{"memory", "tail /dev/zero; exit 1", "OOM killed: 64 MiB limit", func(s *Spec) { s.MemoryBytes = 64 << 20 }},
		{"pids", `for i in $(seq 100); do sleep 600 & done; echo no`, "exit 2", func(s *Spec) { s.PIDs = 32 }},
		{"disk of the private folder", `head -c 30000000 /dev/zero > "$HOME/f"; sleep 600`, "used more than the 20 MiB of disk it asked for", func(s *Spec) { s.DiskBytes = 20 << 20 }},
		{"disk of the image", `head -c 30000000 /dev/zero > /f; sleep 600`, "used more than the 20 MiB of disk it asked for", func(s *Spec) { s.DiskBytes = 20 << 20 }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := taskDir(t, d)
			if end := awaitExit(t, contain(t, d, e, dir, c.script, c.change)); end.State != Failed || end.Reason != c.reason {
				t.Errorf("got %+v, want %q; said %s", end, c.reason, output(t, dir))
			}
		})
	}
}

func TestContainerIsStopped(t *testing.T) {
	e := docker(t)
	d := containerDriver(t, e)
	t.Run("by its signal", func(t *testing.T) {
		dir := taskDir(t, d)
		h := contain(t, d, e, dir, `trap 'echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done`, nil)
		awaitStart(t, h)
		waitOutput(t, dir, "up")
		h.Stop()
		if end := awaitExit(t, h); end.State != Stopped || end.Code != 0 || !strings.Contains(output(t, dir), "saved") {
			t.Errorf("got %+v, said %s", end, output(t, dir))
		}
	})
	t.Run("by force", func(t *testing.T) {
		dir := taskDir(t, d)
		h := contain(t, d, e, dir, `trap "" TERM; (while :; do sleep 1; done) & echo up; while :; do sleep 1; done`, func(s *Spec) { s.GraceMS = 50 })
		awaitStart(t, h)
		waitOutput(t, dir, "up")
		h.Stop()
		if end := awaitExit(t, h); end.State != Stopped || end.Code != 137 {
			t.Errorf("got %+v", end)
		}
		gone(t, d, dir)
	})
}

func TestContainerCannotStart(t *testing.T) {
	e := docker(t)
	d := containerDriver(t, e)
	for _, c := range []struct {
		name   string
		change func(*Spec)
		code   int
		reason string
	}{
		{"no engine", func(s *Spec) { s.Engine = "/no/such.sock" }, 125, "node n1 has no container engine: /no/such.sock is not there (start Docker or Podman, or name its socket with `llmos agent --engine`)"},
		{"no image", func(s *Spec) { s.Image = "localhost:9/no/such:1" }, 125, "image localhost:9/no/such:1 is not on node n1 and could not be fetched: "},
		{"no command", func(s *Spec) { s.Command = nil }, 125, "the task has no command, and image " + rig.EngineImage + " names none"},
		{"command", func(s *Spec) { s.Command = []string{"pyhton"} }, 127, `command "pyhton" was not found in image ` + rig.EngineImage + ` on node n1`},
		{"path", func(s *Spec) { s.Command = []string{"/no/such"} }, 127, `command "/no/such" was not found in image ` + rig.EngineImage + ` on node n1`},
		{"not executable", func(s *Spec) { s.Command = []string{"/bin/plain"} }, 126, `command "/bin/plain" is not executable in image ` + rig.EngineImage + ` on node n1`},
		{"user", func(s *Spec) { s.User = "nobody-here" }, 125, `user "nobody-here" does not exist on node n1`},
		{"device", func(s *Spec) { s.Devices, s.DeviceIDs = []string{"/dev/nvidia0"}, []string{"GPU-1"} }, 125, "node n1 cannot give device GPU-1 to a container: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := taskDir(t, d)
			end := awaitExit(t, contain(t, d, e, dir, "true", c.change))
			if end.State != Failed || end.Code != c.code || !strings.HasPrefix(end.Reason, c.reason) || end.StartedMS != 0 {
				t.Errorf("got %+v, want code %d and %q", end, c.code, c.reason)
			}
			if out := output(t, dir); !strings.Contains(out, end.Reason) {
				t.Errorf("the log says %q and not why", out)
			}
		})
	}
}

// Both sides can go away under a container: the agent, and the engine itself.
func TestContainerOutlivesItsDriverAndItsEngine(t *testing.T) {
	e := docker(t)
	first := containerDriver(t, e)
	dir := taskDir(t, first)
	h := contain(t, first, e, dir, `echo up; until [ -e "$HOME/go" ]; do sleep 0.05; done; echo gone on; exit 5`, nil)
	id := awaitStart(t, h)
	waitOutput(t, dir, "up")
	h.Detach()
	first.Close()
	e.Stop()
	if err := e.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	d := containerDriver(t, e)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	again, err := d.Adopt(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Detach()
	if now := awaitStart(t, again); now != id {
		t.Errorf("adopted %+v, started %+v", now, id)
	}
	if usage, ok := d.Usage(id.Cgroup); !ok || usage.MemoryBytes == 0 {
		t.Errorf("usage %+v, known %v", usage, ok)
	}
	if owner, ok := OwnersOf([]string{dir}).Of(id.PID); !ok || owner != dir {
		t.Errorf("process %d of the container belongs to %q", id.PID, owner)
	}
	waitOutput(t, dir, "let go of the task's output")
	if err := os.WriteFile(filepath.Join(HomeDir(dir), "go"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if end := awaitExit(t, again); end.Code != 5 || !strings.Contains(output(t, dir), "gone on") {
		t.Errorf("got %+v, said %s", end, output(t, dir))
	}
}

// What a dead shim has left is removed: by the adoption of its task, or when an agent starts.
func TestContainerOfADeadShimIsRemoved(t *testing.T) {
	e := docker(t)
	for _, way := range []string{"adopt", "sweep"} {
		t.Run(way, func(t *testing.T) {
			d := containerDriver(t, e)
			dir := taskDir(t, d)
			h := contain(t, d, e, dir, `sleep 600`, nil)
			id := awaitStart(t, h)
			h.Detach()
			var c claim
			if _, err := readJSON(dir, claimFile, &c); err != nil {
				t.Fatal(err)
			}
			if err := unix.Kill(c.PID, unix.SIGKILL); err != nil {
				t.Fatal(err)
			}
			waitGone(t, c.PID)
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if way == "adopt" {
				if _, err := d.Adopt(ctx, dir); !errors.Is(err, ErrDied) {
					t.Errorf("adopt: %v", err)
				}
			} else {
				d.RemoveStale()
				d.Close() // waits for it
			}
			waitGone(t, id.PID)
			if _, err := e.client.Inspect(ctx, id.Container); !engine.NotFound(err) {
				t.Errorf("the container is still there (%v)", err)
			}
		})
	}
}

func TestCommandBesideAContainer(t *testing.T) {
	e := docker(t)
	d := containerDriver(t, e)
	dir := taskDir(t, d)
	h := contain(t, d, e, dir, `echo up; sleep 600`, func(s *Spec) { s.User = "nobody" })
	awaitStart(t, h)
	s := enter(t, dir, Beside{Command: []string{"sh", "-c", `read word; echo "$word $HOME $MORE"; id -u; echo oops >&2; exit 7`}, Env: []string{"MORE=x"}})
	if _, err := io.WriteString(s.Stdin, "hello\n"); err != nil {
		t.Fatal(err)
	}
	out, _ := io.ReadAll(s.Stdout)
	errs, _ := io.ReadAll(s.Stderr)
	if want := "hello " + HomeDir(dir) + " x\n65534\n"; string(out) != want || string(errs) != "oops\n" {
		t.Errorf("said %q and %q, want %q", out, errs, want)
	}
	if code, err := s.Wait(); code != 7 || err != nil {
		t.Errorf("exit code %d, error %v", code, err)
	}
	s = enter(t, dir, Beside{Command: []string{"sh", "-c", `tty; until [ "$(stty size)" = "30 100" ]; do sleep 0.05; done; echo as large; sleep 600`}, Terminal: true, Rows: 30, Cols: 100})
	if said := readUntil(t, s.Stdout, "as large"); !strings.Contains(said, "/dev/pts/") {
		t.Errorf("the terminal said %q", said)
	}
	s.Close() // hangs up
	h.Stop()
	if end := awaitExit(t, h); end.State != Stopped {
		t.Errorf("got %+v", end)
	}
	gone(t, d, dir)
}

// readUntil reads until the text has come.
func readUntil(t *testing.T, r io.Reader, text string) string {
	t.Helper()
	var said strings.Builder
	for buf := make([]byte, 256); !strings.Contains(said.String(), text); {
		n, err := r.Read(buf)
		said.Write(buf[:n])
		if err != nil {
			t.Fatalf("said %q, then %v", said.String(), err)
		}
	}
	return said.String()
}

func TestCDINames(t *testing.T) {
	dir := t.TempDir()
	text := "cdiVersion: 0.5.0\nkind: nvidia.com/gpu\ndevices:\n- name: \"0\"\n  containerEdits: {}\n- name: GPU-b\n- name: all\n"
	if err := os.WriteFile(filepath.Join(dir, "nvidia.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "other.json"), []byte(`{"kind": "vendor.com/nic", "devices": [{"name": "1"}]}`), 0o600); err != nil {
		t.Fatal(err)
	}
	known := cdiDevices([]string{dir, "/no/such"})
	names, missing := cdiNames(known, Spec{DeviceIDs: []string{"GPU-a", "GPU-b"}, Devices: []string{"/dev/nvidia0", "/dev/nvidia1"}})
	if missing != "" || strings.Join(names, " ") != "nvidia.com/gpu=0 nvidia.com/gpu=GPU-b" {
		t.Errorf("names %v, missing %q", names, missing)
	}
	if _, missing := cdiNames(known, Spec{DeviceIDs: []string{"MIG-1"}, Devices: []string{"/dev/nvidia0"}}); missing != "MIG-1" {
		t.Errorf("a slice takes its whole device: missing %q", missing)
	}
}

func TestPlainDevices(t *testing.T) {
	if got := strings.Join(plainDevices([]string{"/dev/nvidia0", "/dev/dri/renderD128"}), " "); got != "/dev/dri/renderD128 /dev/kfd /dev/vfio/vfio" {
		t.Errorf("an AMD device beside one of NVIDIA: %s", got)
	}
	if got := plainDevices([]string{"/dev/nvidia0"}); got != nil {
		t.Errorf("a device of NVIDIA alone: %v", got)
	}
	if got := filesOf([]string{"/dev/nul*", "/no/such"}); len(got) != 1 || got[0].PathOnHost != "/dev/null" {
		t.Errorf("files: %v", got)
	}
}
