package exec

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A machine that loses its power soon after a task's start may keep the names of files that
// were not synced, and of their content nothing or zeros. Such a task does not run, and the
// agent has to find that out.
func TestPowerLossLeavesATaskThatDoesNotRun(t *testing.T) {
	d := testDriver(t)
	for _, damage := range []struct {
		name    string
		content []byte
	}{{"empty", nil}, {"zeros", bytes.Repeat([]byte{0}, 80)}} {
		for _, file := range []string{claimFile, specFile, identityFile} {
			t.Run(damage.name+" "+file, func(t *testing.T) {
				dir := t.TempDir()
				for name, v := range map[string]any{specFile: shell(dir, "true"), claimFile: claim{BootID: "earlier", PID: 1 << 21},
					identityFile: Identity{BootID: "earlier", PID: 1 << 21}} {
					if err := writeJSON(dir, name, v, syncNone); err != nil {
						t.Fatal(err)
					}
				}
				if err := os.WriteFile(filepath.Join(dir, file), damage.content, 0o600); err != nil {
					t.Fatal(err)
				}
				if _, err := d.Adopt(context.Background(), dir); !errors.Is(err, ErrDied) {
					t.Fatalf("got %v, want %v", err, ErrDied)
				}
			})
		}
	}
}

// suspend stops the shim of dir and gives its number.
func suspend(t *testing.T, dir string) int {
	t.Helper()
	var c claim
	if _, err := readJSON(dir, claimFile, &c); err != nil {
		t.Fatal(err)
	}
	if err := unix.Kill(c.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if stat, err := readStat(c.PID); err != nil || stat.state == 'T' {
			return c.PID
		}
		<-tick.C
	}
}

func TestStopReachesAShimThatIsSuspended(t *testing.T) {
	d := testDriver(t)
	for _, adopt := range []bool{false, true} {
		dir := taskDir(t, d)
		h := start(t, d, dir, shell(dir, "echo up; sleep 1000"))
		awaitStart(t, h)
		suspend(t, dir)
		if adopt {
			h.Detach()
			var err error
			if h, err = d.Adopt(context.Background(), dir); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(h.Detach)
		}
		h.Stop()
		if e := awaitExit(t, h); e.State != Stopped {
			t.Fatalf("adopted %v: got %+v", adopt, e)
		}
	}
}

func TestMountsAreFound(t *testing.T) {
	const table = `22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 22 0:26 / /data/tasks/a/work/my\040set rw - nfs4 filer:/x rw
31 22 0:27 / /data/tasks/ab rw - tmpfs tmpfs rw
`
	for dir, want := range map[string]string{"/data/tasks/a": "/data/tasks/a/work/my set", "/data/tasks/ab": "/data/tasks/ab",
		"/data/tasks/b": "", "/data/tasks/a/work/my": "", "/data/tasks/a/work/my set": "/data/tasks/a/work/my set"} {
		if got := mountBelow(table, dir); got != want {
			t.Errorf("below %s: %q, want %q", dir, got, want)
		}
	}
}

// A task of root may have mounted a data set in its home and gone: cleaning up after it
// must not delete the data set.
func TestWhatATaskHasMountedIsNotDeleted(t *testing.T) {
	data, dir := t.TempDir(), t.TempDir()
	kept := filepath.Join(data, "precious")
	if err := os.WriteFile(kept, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	at := filepath.Join(HomeDir(dir), "data")
	if err := os.MkdirAll(at, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(data, at, "", unix.MS_BIND, ""); err != nil {
		t.Skip("this machine lets us mount nothing: ", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	for name, remove := range map[string]func(string) error{"shrink": Shrink, "remove": Remove} {
		if err := remove(dir); err == nil || !strings.Contains(err.Error(), at) {
			t.Errorf("%s: %v, want an error that names %s", name, err, at)
		}
		if _, err := os.Stat(kept); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if err := unix.Unmount(at, unix.MNT_DETACH); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(Shrink(dir), Remove(dir)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
}
