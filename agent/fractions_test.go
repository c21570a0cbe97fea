package agent

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"llmos/agent/device"
	"llmos/agent/fraction"
	pb "llmos/proto/llmos/v1"
)

const gib = 1 << 30

func part(id string, bytes int64) *pb.DeviceGrant {
	return &pb.DeviceGrant{DeviceId: id, ShareMilli: 250, MemoryBytes: bytes}
}

func whole(id string) *pb.DeviceGrant {
	return &pb.DeviceGrant{DeviceId: id, ShareMilli: 1000, MemoryBytes: 80 * gib}
}

// watched is a fractions whose world a test sets.
type watched struct {
	*fractions
	tasks    []sampleTarget
	use      device.Use
	fails    error
	looks    int
	ended    []taskExcess
	warnings []taskWarned
	clock    time.Time
}

func newWatched(tasks ...sampleTarget) *watched {
	w := &watched{tasks: tasks, clock: time.Unix(1000, 0)}
	w.fractions = &fractions{log: quiet, memory: func(string) int64 { return 80 * gib },
		targets: func() []sampleTarget { return w.tasks },
		look:    func(context.Context) (device.Use, error) { w.looks++; return w.use, w.fails },
		owners: func(dirs []string) func(int) (string, bool) {
			return func(pid int) (string, bool) { // process n hundred and something is of dir n
				dir := "/" + strconv.Itoa(pid/100)
				return dir, slices.Contains(dirs, dir)
			}
		},
		post: func(n any) bool {
			switch n := n.(type) {
			case taskExcess:
				w.ended = append(w.ended, n)
			case taskWarned:
				w.warnings = append(w.warnings, n)
			}
			return true
		}}
	return w
}

func (w *watched) step(n int) {
	for range n {
		w.clock = w.clock.Add(lookEvery)
		w.turn(context.Background(), w.clock)
	}
}

func TestWatchEndsWhoTakesTooMuch(t *testing.T) {
	w := newWatched(sampleTarget{id: "a", dir: "/1", grants: []*pb.DeviceGrant{part("g", 10*gib)}},
		sampleTarget{id: "b", dir: "/2", grants: []*pb.DeviceGrant{part("g", 10*gib)}}, sampleTarget{id: "c", dir: "/3"})
	w.use.Processes = []device.ProcessUse{{DeviceID: "g", PID: 100, MemoryBytes: 6 * gib}, {DeviceID: "g", PID: 101, MemoryBytes: 6 * gib},
		{DeviceID: "g", PID: 200, MemoryBytes: 9 * gib}, {DeviceID: "g", PID: 900, MemoryBytes: 50 * gib}, {DeviceID: "g", PID: 300, MemoryBytes: 20 * gib}}
	w.step(1)
	if len(w.ended) != 0 {
		t.Fatalf("one look ends %v", w.ended)
	}
	w.fails = errors.New("the driver is silent")
	w.step(3)
	w.fails = nil
	w.step(1)
	if len(w.ended) != 0 {
		t.Fatalf("looks that are not in a row end %v", w.ended)
	}
	w.step(1)
	if want := (taskExcess{"a", "used 12 GiB of device g, 10 GiB were granted"}); len(w.ended) != 1 || w.ended[0] != want {
		t.Fatalf("%v, want %v", w.ended, want)
	}
	if u, ok := w.fractions.use("b", w.clock); !ok || u.memoryBytes != 9*gib || u.percent != percentNone {
		t.Errorf("b holds %+v (%v)", u, ok)
	}
	if _, ok := w.fractions.use("c", w.clock); ok {
		t.Error("a task without devices has a use of devices")
	}
}

// TestLooksAreSpared: nobody asks the driver without need.
func TestLooksAreSpared(t *testing.T) {
	w := newWatched(sampleTarget{id: "c", dir: "/3"})
	w.step(10)
	if w.looks != 0 {
		t.Errorf("%d looks without a device", w.looks)
	}
	w.tasks = []sampleTarget{{id: "a", dir: "/1", grants: []*pb.DeviceGrant{whole("g"), whole("h")}}}
	w.use = device.Use{Figures: map[string]device.Figure{"g": {Percent: 90}, "h": {Percent: 40}}, Processes: []device.ProcessUse{
		{DeviceID: "g", PID: 100, MemoryBytes: 70 * gib}, {DeviceID: "h", PID: 100, MemoryBytes: 79 * gib}}}
	w.step(30) // a minute
	if w.looks != 10 {
		t.Errorf("%d looks in a minute at whole devices, want one each 6 s", w.looks)
	}
	if u, ok := w.fractions.use("a", w.clock); !ok || u.memoryBytes != 149*gib || u.percent != 65 || len(w.ended) != 0 {
		t.Errorf("%+v (%v), ended %v", u, ok, w.ended)
	}
	if _, ok := w.fractions.use("a", w.clock.Add(time.Minute)); ok {
		t.Error("a look of a minute ago is taken for news")
	}
	before := w.looks
	w.tasks[0].grants[0] = part("g", 80*gib)
	w.step(10)
	if w.looks-before != 10 {
		t.Errorf("%d looks in 10 turns with a part of a device", w.looks-before)
	}
	if u, _ := w.fractions.use("a", w.clock); u.percent != percentNone {
		t.Errorf("a task on a shared device is busy for %d %%", u.percent)
	}
}

// TestExcessEndsATaskAsFailed runs a real task and a real look at its processes.
func TestExcessEndsATaskAsFailed(t *testing.T) {
	r := newRig(t, t.TempDir())
	pidFile := filepath.Join(t.TempDir(), "pid")
	a := shellTask(first, "sh -c 'echo $$ > "+pidFile+".new; mv "+pidFile+".new "+pidFile+"; exec sleep 60' & wait")
	a.Allocation.Devices = []*pb.DeviceGrant{part("g", gib)}
	r.desire(a)
	r.await(first, running)
	pid := 0
	eventually(t, "the child's number", func() bool {
		text, err := os.ReadFile(pidFile)
		if err == nil {
			pid, err = strconv.Atoi(strings.TrimSpace(string(text)))
		}
		return err == nil
	})
	f := &fractions{log: quiet, memory: func(string) int64 { return 0 }, owners: ownersOf, targets: r.supervisor.targets, post: r.supervisor.post,
		look: func(context.Context) (device.Use, error) {
			return device.Use{Processes: []device.ProcessUse{{DeviceID: "g", PID: pid, MemoryBytes: 3 * gib}, {DeviceID: "g", PID: os.Getpid(), MemoryBytes: 9 * gib}}}, nil
		}}
	at := time.Unix(1000, 0)
	for range fraction.LooksMin {
		f.turn(context.Background(), at)
	}
	r.supervisor.post(taskExcess{"nobody", "no such task"})
	report := r.await(first, failed, stopped, succeeded)
	if report.GetState() != failed || report.GetReason() != "used 3 GiB of device g, 1 GiB were granted" || report.GetExitCode() != 137 {
		t.Errorf("report %v", report)
	}
}

func TestEnvironmentOfAPartUnderMPS(t *testing.T) {
	dir := t.TempDir()
	s := site{tasks: t.TempDir(), mps: func() string { return dir }, deviceMemory: func(string) int64 { return 80 * gib }}
	of := func(grants ...*pb.DeviceGrant) string {
		a := shellTask(first, "")
		a.Allocation.Devices = grants
		a.Role.Env = map[string]string{mpsLimit: "0=99G", "CUDA_VISIBLE_DEVICES": "g"}
		var got []string
		for _, v := range s.environment(a, 1) {
			if strings.HasPrefix(v, "CUDA_MPS") {
				got = append(got, v)
			}
		}
		slices.Sort(got)
		return strings.Join(got, " ")
	}
	pipe := " CUDA_MPS_PIPE_DIRECTORY=" + dir
	for _, c := range []struct{ name, got, want string }{
		{"a quarter", of(part("g", 10*gib)), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25 CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=10240M" + pipe},
		{"two", of(part("g", 10*gib), part("h", gib)), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=25 CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=10240M,1=1024M" + pipe},
		{"an eighth, rounded up", of(&pb.DeviceGrant{DeviceId: "g", ShareMilli: 125, MemoryBytes: gib}), "CUDA_MPS_ACTIVE_THREAD_PERCENTAGE=13 CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1024M" + pipe},
		{"less memory alone", of(&pb.DeviceGrant{DeviceId: "g", ShareMilli: 1000, MemoryBytes: gib}), "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=1024M" + pipe},
		{"whole: the job's own", of(whole("g")), "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=99G"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s, want %s", c.name, c.got, c.want)
		}
	}
	s.mps = func() string { return "" }
	if got := of(part("g", gib)); got != "CUDA_MPS_PINNED_DEVICE_MEM_LIMIT=0=99G" {
		t.Errorf("without MPS: %s", got)
	}
}

func TestPipeDirectoryOfMPS(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(mpsVariable, dir)
	if got := mpsDir(); got != "" {
		t.Errorf("an empty directory is taken for MPS: %s", got)
	}
	control := filepath.Join(dir, mpsControl)
	if err := os.WriteFile(control, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got := mpsDir(); got != dir {
		t.Errorf("%q, want %s", got, dir)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(control, 12345, 12345); err != nil {
			t.Fatal(err)
		}
		if got := mpsDir(); got != "" {
			t.Errorf("another user's pipe is taken for MPS: %s", got)
		}
	}
}
