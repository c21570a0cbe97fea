package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func asRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can hold tasks to devices and run them as another user")
	}
}

// Both ways of holding a task to its devices are tried, whichever this machine prefers.
func TestDevicesAreHeld(t *testing.T) {
	asRoot(t)
	for _, way := range []string{"v2", "v1"} {
		t.Run(way, func(t *testing.T) {
			h := findHierarchies()
			switch {
			case way == "v1" && h.v1["devices"] == "":
				t.Skip("no devices controller of v1 is mounted")
			case way == "v1":
				h.unified = ""
			case h.unified == "":
				t.Skip("no unified hierarchy is mounted")
			}
			node := filepath.Join(t.TempDir(), "zero2") // 1:5 by another name, and a disk
			if err := unix.Mknod(node, unix.S_IFCHR|0o666, int(unix.Mkdev(1, 5))); err != nil {
				t.Skip("no device files can be made here: ", err)
			}
			g := makeGroup(h, cgroupRoot+"/n-exectest/devices-"+way)
			defer g.remove()
			if err := g.limitDevices(deviceRules(nil, nil)); err != nil {
				t.Fatal(err)
			}
			out := runIn(t, g, `echo x > /dev/null && head -c 1 /dev/zero >/dev/null && head -c 1 /dev/urandom > /dev/null && head -c 1 `+node+` >/dev/null && echo base
				mknod `+node+`.k c 1 11 && echo made; head -c 1 `+node+`.k >/dev/null 2>&1 || echo kept from kmsg
				mknod `+node+`.b b 254 0; head -c 1 `+node+`.b >/dev/null 2>`+node+`.err; grep -o "Operation not permitted" `+node+`.err`)
			if want := "base\nmade\nkept from kmsg\nOperation not permitted\n"; out != want {
				t.Errorf("said %q, want %q", out, want)
			}
		})
	}
}

// runIn runs a script in the group and gives what it says.
func runIn(t *testing.T, g *group, script string) string {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	f := &forker{group: g, work: make(chan func()), ready: make(chan struct{})}
	go offMainThread(func() {
		g.enterThread()
		close(f.ready)
		for fn := range f.work {
			fn()
		}
	})
	pid, err := f.start(launch{path: "/bin/sh", argv: []string{"sh", "-c", script}, env: []string{"PATH=/usr/bin:/bin"}, workdir: "/"}, w, w)
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		b.Write(buf[:n])
		if err != nil {
			break
		}
	}
	if _, err := unix.Wait4(pid, nil, 0, nil); err != nil {
		t.Fatal(err)
	}
	f.leave()
	close(f.work)
	return b.String()
}

func TestDeviceRules(t *testing.T) {
	dir := t.TempDir()
	table := filepath.Join(dir, "devices")
	if err := os.WriteFile(table, []byte("Character devices:\n  1 mem\n511 nvidia-uvm\n\nBlock devices:\n  7 nvidia-uvm\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(driverRules(table, acceleratorDrivers)); got != "[c 511:* rw]" {
		t.Errorf("rules of the drivers: %s", got)
	}
	without, with := deviceRules(nil, nil), deviceRules([]string{"/dev/full"}, []string{"/dev/tty"})
	if got := fmt.Sprint(with[len(without):]); !strings.Contains(got, "c 1:7 rw") || !strings.Contains(got, "c 5:0 rw") {
		t.Errorf("rules for what is granted and allowed: %s", got)
	}
}

// A task of another user reaches its own folder and the job's, and neither a neighbour's,
// though the user is the same, nor the agent's.
func TestFence(t *testing.T) {
	asRoot(t)
	if landlockABI() < fenceABIMin {
		t.Skip("this kernel has no Landlock that lets files be moved")
	}
	home, err := os.MkdirTemp("/var/lib", "llmos-fence-") // no folder above it belongs to everybody
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(home) })
	secret, neighbour, jobDir, dir := filepath.Join(home, "secret"), filepath.Join(home, "tasks/b/work"), filepath.Join(home, "shared/j"), filepath.Join(home, "tasks/a")
	for _, p := range []string{neighbour, jobDir, dir} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{neighbour, jobDir} {
		if err := os.Chown(p, 65534, 65534); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range []string{secret, filepath.Join(neighbour, "model")} {
		if err := os.WriteFile(p, []byte("secret\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(home, 0o755); err != nil {
		t.Fatal(err)
	}
	d := testDriver(t)
	spec := shell(dir, `cat `+secret+` `+neighbour+`/model; rm -f `+neighbour+`/model; touch `+neighbour+`/new
		mkdir -p x y && echo own > x/f && mv x/f y/g && cat y/g && echo job > `+jobDir+`/f && cat `+jobDir+`/f && ls / > /dev/null && echo tmp > /tmp/llmos-fence-$$ && mv /tmp/llmos-fence-$$ z && cat z
		cat /proc/$PPID/environ > /dev/null 2>&1 || echo apart`)
	spec.User, spec.Hidden, spec.JobDir = "nobody", home, jobDir
	h := start(t, d, dir, spec)
	awaitExit(t, h)
	out := output(t, dir)
	for _, want := range []string{secret + ": Permission denied", neighbour + "/model: Permission denied", neighbour + "/model': Permission denied",
		neighbour + "/new': Permission denied", "own\njob\ntmp\napart\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
}

func TestFenceIsNotPutWhereTheUserWouldMissIt(t *testing.T) {
	asRoot(t)
	d := testDriver(t)
	dir := taskDir(t, d) // below /tmp, where the task makes files that it must read
	for p := dir; p != "/tmp" && p != "/"; p = filepath.Dir(p) {
		if err := os.Chmod(p, 0o711); err != nil {
			t.Fatal(err)
		}
	}
	spec := shell(dir, "f=$(mktemp /tmp/llmos-XXXXXX) && echo mine > $f && cat $f && rm $f")
	spec.User, spec.Hidden = "nobody", filepath.Dir(dir)
	if e := awaitExit(t, start(t, d, dir, spec)); e.State != Succeeded || output(t, dir) != "mine\n" {
		t.Errorf("got %+v, %q", e, output(t, dir))
	}
}

func TestWorkdirThatLeadsToTheAgentsOwn(t *testing.T) {
	d := testDriver(t)
	home := t.TempDir()
	dir, other := filepath.Join(home, "tasks/a"), filepath.Join(home, "tasks/b/work")
	for _, p := range []string{dir, other} {
		if err := os.MkdirAll(p, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(other, link); err != nil {
		t.Fatal(err)
	}
	spec := shell(dir, "true")
	spec.Workdir, spec.Hidden = link, home
	want := "working directory " + link + " leads to " + other + " on node n1, which is the agent's own"
	if e := awaitExit(t, start(t, d, dir, spec)); e.Code != ExitCannotStart || e.Reason != want {
		t.Errorf("got %+v, want %q", e, want)
	}
	if err := os.Symlink("/etc", filepath.Join(home, "tasks/work")); err != nil {
		t.Fatal(err)
	}
	dir2 := filepath.Join(home, "tasks")
	if e := awaitExit(t, start(t, d, dir2, shell(dir2, "true"))); e.Code != ExitCannotStart || !strings.Contains(e.Reason, "is no folder of the task's own") {
		t.Errorf("a link in the place of the private folder: %+v", e)
	}
}
