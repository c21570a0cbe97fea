package device

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// usedRig is a rig that sees the host's processes.
func usedRig(t *testing.T, mode string) *rig {
	r := newRig(t, mode)
	r.foreign = func() bool { return false }
	return r
}

func (r *rig) wantUseError(t *testing.T, part string) {
	t.Helper()
	u, err := r.Use(context.Background())
	if err == nil || !strings.Contains(err.Error(), part) || u.Processes != nil {
		t.Fatalf("%v and error %v, want one that says %q", u, err, part)
	}
}

func TestUseOfTheChild(t *testing.T) {
	r := usedRig(t, "used")
	r.wantUseError(t, "the NVML child does not run") // a look starts nothing
	r.wantDevices(t, 1)
	u, err := r.Use(context.Background())
	if err != nil || len(u.Processes) != 1 || u.Processes[0] != (ProcessUse{"GPU-1", 42, 5 << 30}) || u.Figures["GPU-1"].Percent != 70 {
		t.Fatalf("%v, %v", u, err)
	}
	r.raise(t)
	r.wantUseError(t, "NVML: the driver is busy")
	r.wantDevices(t, 1) // the child lives on
	r.foreign = func() bool { return true }
	r.wantUseError(t, "host's PID namespace")
}

func TestUseThatHangsOrTalksNonsenseEndsTheChild(t *testing.T) {
	r := usedRig(t, "used-nonsense")
	r.wantDevices(t, 1)
	r.wantUseError(t, "answered nonsense: the use of device \"GPU-1\" by process 42")
	if r.child != nil {
		t.Error("a child that talks nonsense is kept")
	}
	r = usedRig(t, "used-hang")
	r.wantDevices(t, 1)
	r.answerTimeout = 100 * time.Millisecond
	r.wantUseError(t, "did not answer within 100ms")
	r.answerTimeout = 20 * time.Second
	r.clock = r.clock.Add(restartMax)
	r.wantDevices(t, 1)
}

// TestProbeAndUseTakeTurns: the two loops that ask the child never mix their answers.
func TestProbeAndUseTakeTurns(t *testing.T) {
	r := usedRig(t, "used")
	r.wantDevices(t, 1)
	done := make(chan error, 1)
	go func() {
		for range 50 {
			if u, err := r.Use(context.Background()); err != nil || len(u.Processes) != 1 {
				done <- err
				return
			}
		}
		done <- nil
	}()
	for range 50 {
		r.wantDevices(t, 1)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	r.turn <- struct{}{}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := r.Use(ctx); err == nil {
		t.Error("a look whose time is over waits for its turn")
	}
	r.leave()
}

func TestScriptedUses(t *testing.T) {
	dir := t.TempDir()
	path, pid := filepath.Join(dir, "devices.yaml"), filepath.Join(dir, "pid")
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(path, "devices:\n  - {model: H100-80GB, count: 2, island: left, numa_node: 1}\n  - {model: A100-80GB, id: s, mig: 1G.10gb, parent: g, percent: 30}\n"+
		"uses:\n  - {device: s, pid: 7, memory_mb: 100}\n  - {device: n-1-g0, pid_file: "+pid+", memory_mb: 2048}\n")
	p, err := Scripted(path, "n-1")
	if err != nil {
		t.Fatal(err)
	}
	devices := probe(t, p)
	if d := devices[1]; d.Island != "left" || d.NumaNode != 1 || d.MemoryBytes != 80<<30 {
		t.Errorf("%v", d)
	}
	if d := devices[2]; d.MigProfile != "1g.10gb" || d.Parent != "g" || d.MemoryBytes != 10<<30 || d.Model != "A100-80GB" {
		t.Errorf("%v", d)
	}
	look := func() Use {
		t.Helper()
		u, err := Look(context.Background(), []Prober{listed{}, p})
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := look(); len(u.Processes) != 1 || u.Processes[0] != (ProcessUse{"s", 7, 100 << 20}) || len(u.Figures) != 1 || u.Figures["s"].Percent != 30 {
		t.Errorf("%v", u)
	}
	write(pid, strconv.Itoa(os.Getpid())+"\n")
	if u := look(); len(u.Processes) != 2 || u.Processes[1] != (ProcessUse{"n-1-g0", os.Getpid(), 2 << 30}) {
		t.Errorf("%v", u)
	}
	write(pid, "many\n")
	if u, err := Look(context.Background(), []Prober{p}); err == nil || u.Processes != nil {
		t.Errorf("a file without a number gives %v", u)
	}
}

func TestScriptedUseFaults(t *testing.T) {
	path := filepath.Join(t.TempDir(), "devices.yaml")
	for text, want := range map[string]string{
		"devices: [{model: L4-24GB, mig: 9x}]":                                                    `devices[0].mig: "9x" is not a MIG profile such as 1g.10gb`,
		"devices: [{model: L4-24GB, percent: 101}]":                                               "devices[0].percent: busy for 101 %, want 0 to 100",
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: b, pid: 1}]":                         `uses[0].device: no device has the ID "b"`,
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: a}]":                                 "uses[0].pid: a use has either",
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: a, pid: 1, pid_file: /x}]":           "uses[0].pid: a use has either",
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: a, pid_file: x}]":                    `uses[0].pid_file: "x" is not an absolute path`,
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: a, pid: 1, memory_mb: -1}]":          "uses[0].memory_mb: -1 MiB, want 0 to 4194304",
		"devices: [{model: L4-24GB, id: a}]\nuses: [{device: a, pid: 99999999999, memory_mb: 1}]": "uses[0].pid: a use has either",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Scripted(path, "n-1"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}
