package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"llmos/agent/device"
	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

// driver is a prober whose devices, errors and shape a test sets.
type driver struct {
	mu      sync.Mutex
	devices []*pb.Device
	events  []device.Event
	fails   error
	divided []string
}

func (d *driver) Name() string { return "driver" }

func (d *driver) Probe(context.Context) ([]*pb.Device, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.devices), d.fails
}

func (d *driver) Events(context.Context) ([]device.Event, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := d.events
	d.events = nil
	return out, d.fails
}

func (d *driver) Divide(_ context.Context, gpu string, profiles []string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.divided = append(d.divided, gpu+" "+strings.Join(profiles, ","))
	if d.fails == nil {
		d.devices = []*pb.Device{gpuNamed("m1", gpu), gpuNamed("g1", "")}
	}
	return d.fails
}

// occur has the driver tell of an error at its next question.
func (d *driver) occur(id string, xid uint32, at time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, device.Event{DeviceID: id, XID: xid, At: at})
}

func gpuNamed(id, parent string) *pb.Device {
	return &pb.Device{Id: id, Parent: parent, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, MemoryBytes: 80 * gib}
}

// kept is a keeper with its driver.
type kept struct {
	*keeper
	driver *driver
	stored storedFaults
}

func newKept(t *testing.T, cfg Config) *kept {
	t.Helper()
	cfg.Log, cfg.DataDir, cfg.Name = quiet, t.TempDir(), "n1"
	d := &driver{devices: []*pb.Device{gpuNamed("g0", ""), gpuNamed("g1", "")}}
	first := device.Inventory{Devices: slices.Clone(d.devices)}
	k := &kept{keeper: newKeeper(cfg, &home{dir: cfg.DataDir}, first, []device.Prober{d}), driver: d}
	k.node, k.post = newNodeBox(describe(cfg, "n-1", "addr", first)), func(any) bool { return true }
	k.save = func(s storedFaults) error { k.stored = s; return nil }
	return k
}

func (k *kept) shown() string {
	n, _ := k.node.get()
	var out []string
	for _, d := range n.Devices {
		out = append(out, d.Id+" "+strings.ToLower(strings.TrimPrefix(d.Health.String(), "DEVICE_HEALTH_")))
	}
	if n.Unfit != "" {
		out = append(out, "unfit")
	}
	return strings.Join(out, ", ")
}

func TestKeeperRemembersFaults(t *testing.T) {
	k := newKept(t, Config{})
	k.driver.occur("g1", 79, time.Now())
	k.hear(context.Background(), time.Second)
	if got := k.shown(); got != "g0 ok, g1 failed, unfit" || len(k.stored.Faults) != 1 || k.stored.BootID != exec.BootID() {
		t.Fatalf("%s, stored %+v", got, k.stored)
	}
	h := &home{dir: t.TempDir()}
	again := func() string {
		first := device.Inventory{Devices: []*pb.Device{gpuNamed("g0", ""), gpuNamed("g1", "")}}
		n := &pb.Node{}
		newKeeper(Config{Log: quiet, DataDir: h.dir}, h, first, nil).write(n)
		return fmt.Sprint(n.Devices[1].Health == pb.DeviceHealth_DEVICE_HEALTH_FAILED, n.Unfit != "")
	}
	if err := h.writeJSON(faultsFile, k.stored); err != nil {
		t.Fatal(err)
	}
	if got := again(); got != "true true" {
		t.Errorf("after a restart of the agent: %s", got)
	}
	k.stored.BootID = "another"
	if err := h.writeJSON(faultsFile, k.stored); err != nil {
		t.Fatal(err)
	}
	if got := again(); got != "false false" {
		t.Errorf("after a restart of the host: %s", got)
	}
	if got := k.repair("g1"); len(got) != 1 || k.shown() != "g0 ok, g1 ok" || len(k.stored.Faults) != 0 {
		t.Errorf("repaired %v, %s, stored %+v", got, k.shown(), k.stored)
	}
}

func TestKeeperBlocksForStrangers(t *testing.T) {
	k := newKept(t, Config{})
	use := device.Use{Processes: []device.ProcessUse{{DeviceID: "g0", PID: 7, MemoryBytes: 9 * gib}, {DeviceID: "g1", PID: 8, MemoryBytes: 9 * gib}}}
	ours := func(pid int) bool { return pid == 8 }
	now := time.Now()
	k.looked(use, ours, now)
	if got := k.shown(); got != "g0 ok, g1 ok" {
		t.Errorf("after one look: %s", got)
	}
	k.looked(use, ours, now)
	if got := k.shown(); got != "g0 blocked, g1 ok" {
		t.Errorf("after two looks: %s", got)
	}
	s := k.sample(now)
	if len(s.Devices) != 2 || s.Devices[0].StrangerBytes != 9*gib || s.Devices[1].StrangerBytes != 0 || s.Devices[1].MemoryUsedBytes != 9*gib || s.Devices[0].Percent != -1 ||
		s.DiskFreeBytes <= 0 || s.MemoryAvailableBytes <= 0 {
		t.Errorf("%v", s)
	}
	k.inventory(device.Inventory{Devices: []*pb.Device{gpuNamed("g0", ""), gpuNamed("g1", "")}})
	if got := k.shown(); got != "g0 blocked, g1 ok" {
		t.Errorf("after another probe: %s", got)
	}
	k.looked(device.Use{}, ours, now)
	k.looked(device.Use{}, ours, now)
	if got := k.shown(); got != "g0 ok, g1 ok" {
		t.Errorf("when they have gone: %s", got)
	}
	if s := k.sample(now.Add(time.Hour)); len(s.Devices) != 0 {
		t.Errorf("a look of an hour ago is told: %v", s)
	}
}

func TestDivideIsRefused(t *testing.T) {
	nobody := func(context.Context, map[string]bool) (string, error) { return "", nil }
	k := newKept(t, Config{})
	_, err := k.divide(context.Background(), "g0", []string{"1g.10gb"}, nobody)
	if err == nil || err.Error() != "the agent of node n1 does not divide GPUs (hint: start it with --allow-mig)" {
		t.Errorf("%v", err)
	}
	k = newKept(t, Config{AllowMIG: true})
	for _, c := range []struct{ gpu, profile, want string }{
		{"g0", "1g", `profiles: "1g" is not a MIG profile such as 1g.10gb`}, {"g9", "1g.10gb", `device_id: node n1 has no GPU "g9"`},
	} {
		if _, err := k.divide(context.Background(), c.gpu, []string{c.profile}, nobody); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	during := ""
	held := func(_ context.Context, parts map[string]bool) (string, error) {
		during = k.shown() + ": " + k.refuse(holding("g0"))
		return "j-1.e1.r0", nil
	}
	if _, err := k.divide(context.Background(), "g0", nil, held); err == nil || !strings.Contains(err.Error(), "task j-1.e1.r0 holds GPU g0 of node n1") {
		t.Errorf("%v", err)
	}
	if during != "g0 blocked, g1 ok: device g0 of node n1 is being divided" || k.shown() != "g0 ok, g1 ok" || len(k.driver.divided) != 0 {
		t.Errorf("during: %s, afterwards: %s, %v", during, k.shown(), k.driver.divided)
	}
	devices, err := k.divide(context.Background(), "g0", []string{"1g.10gb"}, nobody)
	if err != nil || len(devices) != 1 || devices[0].Id != "m1" || k.shown() != "g1 ok, m1 ok" {
		t.Errorf("%v, %v, %s", devices, err, k.shown())
	}
	if got := k.refuse(holding("g0")); got != "node n1 no longer has device g0" || k.refuse(holding("m1")) != "" {
		t.Errorf("%q", got)
	}
	k.driver.fails = errors.New("in use")
	if _, err := k.divide(context.Background(), "g0", nil, nobody); err == nil {
		t.Error("a driver that is silent divides")
	}
}

func holding(id string) *pb.Assignment {
	a := shellTask(first, "sleep 60")
	a.Allocation.Devices = []*pb.DeviceGrant{whole(id)}
	return a
}

// newHurtRig is a rig whose tasks' devices have a driver.
func newHurtRig(t *testing.T) (*rig, *kept) {
	t.Helper()
	k := newKept(t, Config{})
	r := newRigWith(t, t.TempDir(), k.keeper)
	k.post = r.supervisor.post
	return r, k
}

// TestErrorStopsTheTask: the task is stopped with its grace and reported as stopped, not failed.
func TestErrorStopsTheTask(t *testing.T) {
	r, k := newHurtRig(t)
	a := holding("g0")
	a.Role.Command[2] = "trap 'echo saved; exit 0' TERM; while :; do sleep 0.05; done"
	r.desire(a)
	r.await(first, running)
	k.driver.occur("g0", 48, time.Now())
	k.hear(context.Background(), time.Second)
	report := r.await(first, stopped, failed, succeeded)
	if report.GetState() != stopped || report.GetReason() != k.book.Table.Of(48).String()+" on device g0" {
		t.Errorf("%v", report)
	}
}

// TestFailureOfADeviceIsNoFailureOfTheTask: a task that fails by itself just after an error of
// its device is excused, and one that fails for another reason is not.
func TestFailureOfADeviceIsNoFailureOfTheTask(t *testing.T) {
	r, k := newHurtRig(t)
	end := filepath.Join(t.TempDir(), "end")
	a := holding("g0")
	a.Role.Command[2] = "while [ ! -e " + end + " ]; do sleep 0.02; done; exit 3"
	r.desire(a)
	r.await(first, running)
	k.driver.occur("g0", 74, time.Now()) // drains the device and leaves the task alone
	touch(t, end)
	report := r.await(first, stopped, failed)
	if report.GetState() != stopped || !strings.HasSuffix(report.GetReason(), "on device g0, and it failed: exit 3") {
		t.Errorf("%v", report)
	}
	other := holding("g1")
	other.Task.Id, other.Task.Epoch, other.Allocation.TaskId, other.Attempt.Epoch = second, 2, second, 2
	other.Role.Command[2] = "exit 3"
	r.desire(other)
	if report := r.await(second, stopped, failed); report.GetState() != failed || report.GetReason() != "exit 3" {
		t.Errorf("%v", report)
	}
}

// TestGoneDeviceStartsNoTask: a task whose device has gone is not started, which costs no retry.
func TestGoneDeviceStartsNoTask(t *testing.T) {
	r, _ := newHurtRig(t)
	r.desire(holding("g7"))
	if report := r.await(first, stopped, failed, running); report.GetState() != stopped || report.GetReason() != "node n1 no longer has device g7" {
		t.Errorf("%v", report)
	}
}

func touch(t *testing.T, path string) {
	t.Helper()
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
