package exec

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limited skips the test where this machine lets us make no cgroup of the controller.
func limited(t *testing.T, controller, v2File string) {
	t.Helper()
	h := findHierarchies()
	g := makeGroup(h, cgroupRoot+"/n-exectest/probe")
	_, v1 := g.v1[controller]
	limits := v1 || g.v2 != "" && exists(g.v2, v2File)
	g.remove()
	if !limits {
		t.Skipf("this machine lets us make no %s cgroup", controller)
	}
}

// gone checks that nothing is left of an ended task: no process of its own, no cgroup.
func gone(t *testing.T, d *Driver, dir string) {
	t.Helper()
	for _, pid := range processes() {
		if marked(pid, dir) {
			t.Errorf("process %d is left of the task", pid)
		}
	}
	var spec Spec
	if _, err := readJSON(dir, specFile, &spec); err != nil {
		t.Fatal(err)
	}
	if spec.Cgroup != "" && len(openGroup(d.h, spec.Cgroup).members()) > 0 {
		t.Error("the task's cgroup has processes")
	}
}

func TestOOMOfAChildIsNamed(t *testing.T) {
	limited(t, "memory", "memory.max")
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, "tail /dev/zero; exit 1")
	spec.MemoryBytes = 64 << 20
	if e := awaitExit(t, start(t, d, dir, spec)); e.State != Failed || e.Reason != "OOM killed: 64 MiB limit" {
		t.Errorf("got %+v", e)
	}
	gone(t, d, dir)
}

func TestForkBombIsContained(t *testing.T) {
	limited(t, "pids", "pids.max")
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, "bomb() { bomb | bomb & bomb; }; bomb")
	spec.PIDs = 64
	e := awaitExit(t, start(t, d, dir, spec))
	if e.State != Failed || !strings.HasPrefix(e.Reason, "met its limit of 64 processes and threads (") {
		t.Errorf("got %+v", e)
	}
	gone(t, d, dir)
}

func TestForksThatIgnoreEverythingAreKilled(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	const deaf = `trap "" TERM HUP INT; `
	spec := shell(dir, deaf+`(setsid sh -c '`+deaf+`(setsid sh -c "`+`trap \"\" TERM; echo \$\$; while :; do sleep 600; done" &) ; sleep 600' &); while :; do sleep 600; done`)
	spec.GraceMS = 50
	h := start(t, d, dir, spec)
	awaitStart(t, h)
	waitOutput(t, dir, "\n")
	h.Stop()
	if e := awaitExit(t, h); e.State != Stopped {
		t.Errorf("got %+v", e)
	}
	gone(t, d, dir)
}

func TestDiskIsHeld(t *testing.T) {
	d := testDriver(t)
	for _, c := range []struct{ name, script string }{
		{"a file", `head -c 30000000 /dev/urandom > big; sleep 600`},
		{"many files in tmp", `mkdir -p "$TMPDIR/a/b"; for i in $(seq 300); do head -c 100000 /dev/urandom > "$TMPDIR/a/b/$i"; done; sleep 600`},
		{"a deleted file", `exec 3>big; rm big; head -c 30000000 /dev/urandom >&3; sleep 600`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := taskDir(t, d)
			spec := shell(dir, c.script)
			spec.Env = append(spec.Env, "TMPDIR="+TempDir(dir))
			spec.DiskBytes = 20 << 20
			if e := awaitExit(t, start(t, d, dir, spec)); e.State != Failed || e.Reason != "used more than the 20 MiB of disk it asked for" {
				t.Errorf("got %+v", e)
			}
			gone(t, d, dir)
		})
	}
}

func TestDiskIsCounted(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, n int) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(strings.Repeat("x", n)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	count := func() int64 {
		t.Helper()
		n, err := diskTaken([]string{dir}, nil)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	empty := count()
	write("a", 1<<20)
	one := count() - empty
	if one < 1<<20 || one > 1<<20+64<<10 {
		t.Fatalf("a file of 1 MiB counts as %d bytes", one)
	}
	if err := os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/usr", filepath.Join(dir, "usr")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(dir, "a"), 1<<30); err != nil { // a hole
		t.Fatal(err)
	}
	if n := count() - empty; n > one+64<<10 {
		t.Errorf("a second name, a link to /usr and a hole add %d bytes", n-one)
	}
	fd, err := unix.Open(dir, unix.O_DIRECTORY|unix.O_RDONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range diskDepthMax + 10 {
		if err := unix.Mkdirat(fd, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(fd, "d", unix.O_DIRECTORY|unix.O_RDONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
		fd = next
	}
	unix.Close(fd)
	if _, err := diskTaken([]string{dir}, nil); err != errTooDeep {
		t.Errorf("a nest that is too deep: %v", err)
	}
}

func TestDiskPause(t *testing.T) {
	for _, c := range []struct {
		left int64
		took time.Duration
		want time.Duration
	}{
		{-5, 0, time.Second}, {1 << 20, 0, time.Second}, {5 << 30, 0, 5 * time.Second},
		{1 << 40, 0, 10 * time.Second}, {0, time.Second, 20 * time.Second},
	} {
		if got := diskPause(c.left, c.took).Round(100 * time.Millisecond); got != c.want {
			t.Errorf("%d bytes left, a look of %s: pause %s, want %s", c.left, c.took, got, c.want)
		}
	}
}

// A task that logs much costs the node its log's limit and no memory.
func TestHugeLogIsBounded(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	spec := shell(dir, "head -c 200000000 /dev/zero; echo done >&2")
	spec.LogMaxBytes = 1 << 20
	h := start(t, d, dir, spec)
	awaitStart(t, h)
	var c claim
	if _, err := readJSON(dir, claimFile, &c); err != nil {
		t.Fatal(err)
	}
	peak := int64(0)
	e := *await(t, h, "exit", func(s Status) bool {
		peak = max(peak, peakMemory(c.PID))
		return s.Exit != nil
	}).Exit
	if e.State != Succeeded {
		t.Errorf("got %+v", e)
	}
	if peak > shimPeakMax {
		t.Errorf("the shim took %d MiB", peak>>20)
	}
	size := int64(0)
	err := filepath.WalkDir(filepath.Join(dir, logDir), func(_ string, entry fs.DirEntry, err error) error {
		if info, ierr := entry.Info(); ierr == nil && !entry.IsDir() {
			size += info.Size()
		}
		return err
	})
	if err != nil || size > spec.LogMaxBytes+readBytes {
		t.Errorf("the log takes %d bytes, limit %d (%v)", size, spec.LogMaxBytes, err)
	}
}

// peakMemory is the most memory that a process has held, bytes.
func peakMemory(pid int) int64 {
	text, _ := keyedText("/proc/"+strconv.Itoa(pid)+"/status", "VmHWM:")
	kib, _ := strconv.ParseInt(strings.TrimSuffix(text, " kB"), 10, 64)
	return kib << 10
}

func keyedText(path, key string) (string, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", false
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, key); found {
			return strings.TrimSpace(value), true
		}
	}
	return "", false
}
