package exec

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func testDeadline() time.Time { return time.Now().Add(patience) }

func TestUserOfTheTask(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can run tasks as another user")
	}
	d := testDriver(t)
	dir := taskDir(t, d)
	for _, p := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(p, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("secret"), 0o400); err != nil {
		t.Fatal(err)
	}
	spec := shell(dir, "id -un; cat "+key+"; echo; touch here && ls; grep NoNewPrivs /proc/self/status; cat "+filepath.Join(dir, specFile)+" 2>&1")
	spec.User, spec.Owned = "nobody", []string{key}
	e := awaitExit(t, start(t, d, dir, spec))
	out := output(t, dir)
	if !strings.Contains(out, "nobody\nsecret\nhere\nNoNewPrivs:\t1\n") {
		t.Errorf("output %q", out)
	}
	if e.State != Failed {
		t.Errorf("the task's user can read what is the agent's: %+v", e)
	}
}

func TestMemoryLimitIsNamed(t *testing.T) {
	limited(t, "memory", "memory.max")
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, "")
	spec.Command, spec.MemoryBytes = []string{"tail", "/dev/zero"}, 32<<20
	e := awaitExit(t, start(t, d, dir, spec))
	if e.State != Failed || e.Signal != 9 || e.Reason != "OOM killed: 32 MiB limit" {
		t.Fatalf("got %+v", e)
	}
}

func TestNothingIsLeftOfAWarmShim(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	awaitExit(t, start(t, d, dir, shell(dir, "true")))
	d.Close()
	for _, mount := range append([]string{d.h.unified}, d.h.v1["memory"], d.h.v1["cpu"]) {
		if mount == "" {
			continue
		}
		node := filepath.Join(mount, cgroupRoot, d.cfg.NodeID)
		deadline := testDeadline()
		for {
			left, err := filepath.Glob(filepath.Join(node, d.run+"-*"))
			if err != nil {
				t.Fatal(err)
			}
			if len(left) == 0 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("left: %v", left)
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}
