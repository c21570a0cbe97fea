package device

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
)

// rig is a prober with a played child and a clock that the test moves.
type rig struct {
	*nvidia
	flag  string
	clock time.Time
}

func newRig(t *testing.T, mode string) *rig {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{flag: filepath.Join(t.TempDir(), "flag"), clock: time.Unix(1000, 0)}
	r.nvidia = newNVIDIA([]string{self}, []string{childModeVar + "=" + mode, flagVar + "=" + r.flag}, slog.New(slog.DiscardHandler))
	r.now = func() time.Time { return r.clock }
	t.Cleanup(func() { r.stopChild() })
	return r
}

func (r *rig) raise(t *testing.T) {
	t.Helper()
	if err := os.WriteFile(r.flag, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) lower(t *testing.T) {
	t.Helper()
	if err := os.Remove(r.flag); err != nil {
		t.Fatal(err)
	}
}

func (r *rig) wantDevices(t *testing.T, n int) {
	t.Helper()
	devices, err := r.Probe(context.Background())
	if err != nil || len(devices) != n {
		t.Fatalf("%d devices (%v), want %d", len(devices), err, n)
	}
}

func (r *rig) wantError(t *testing.T, part string) {
	t.Helper()
	devices, err := r.Probe(context.Background())
	if err == nil || !strings.Contains(err.Error(), part) || devices != nil {
		t.Fatalf("%d devices and error %v, want one that says %q", len(devices), err, part)
	}
}

func TestChildThatCrashesIsStartedAgain(t *testing.T) {
	r := newRig(t, "crash")
	r.wantDevices(t, 1)
	r.raise(t)
	r.wantError(t, "symbol lookup error: undefined symbol: nvmlDeviceGetCount_v2")
	r.wantError(t, "waits 1s before it starts the NVML child again: the NVML child broke off (exit status 127)")
	r.clock = r.clock.Add(time.Second)
	r.wantError(t, "broke off")
	r.wantError(t, "waits 2s")
	r.lower(t)
	r.clock = r.clock.Add(2 * time.Second)
	r.wantDevices(t, 1)
	r.raise(t)
	r.wantError(t, "broke off")
	r.wantError(t, "waits 1s") // a success ends the growing of the pause
}

func TestChildThatHangsIsKilled(t *testing.T) {
	r := newRig(t, "hang")
	r.wantDevices(t, 1)
	r.raise(t)
	hung := r.child
	r.answerTimeout = 100 * time.Millisecond
	r.wantError(t, "the NVML child did not answer within 100ms")
	select {
	case <-hung.ended:
	case <-time.After(20 * time.Second):
		t.Fatal("the child that hung still runs")
	}
	r.lower(t)
	r.answerTimeout = 20 * time.Second
	r.clock = r.clock.Add(restartMax)
	r.wantDevices(t, 1)
}

// A child that is stuck in the driver cannot be ended. No other is started beside it, or a
// wedged driver would fill the machine with them, and the inventory heals when it has gone.
func TestChildThatCannotBeEndedHasNoSuccessor(t *testing.T) {
	r := newRig(t, "good")
	r.wantDevices(t, 1)
	real := r.child
	stuck := *real
	stuck.ended = make(chan struct{}) // as if the kernel had not let it go
	r.child = &stuck
	r.stopChild()
	<-real.ended
	r.answerTimeout = 50 * time.Millisecond
	for range 3 {
		r.clock = r.clock.Add(restartMax)
		r.wantError(t, "is stuck in the driver")
		if r.child != nil {
			t.Fatal("another child was started beside the one that is stuck")
		}
	}
	close(stuck.ended)
	r.answerTimeout = 20 * time.Second
	r.clock = r.clock.Add(restartMax)
	r.wantDevices(t, 1)
}

func TestDriverThatComesLateIsFound(t *testing.T) {
	r := newRig(t, "late")
	r.wantDevices(t, 0)
	r.raise(t)
	r.wantDevices(t, 0) // not looked for again so soon
	r.clock = r.clock.Add(absentRetry)
	r.wantDevices(t, 1)
	r.lower(t)
	r.wantError(t, "the NVIDIA driver is not there any more")
	r.wantError(t, "waits 30s")
	r.raise(t)
	r.clock = r.clock.Add(absentRetry)
	r.wantDevices(t, 1)
}

func TestChildThatTalksNonsense(t *testing.T) {
	newRig(t, "garbage").wantError(t, "want 1 to 524288")
	newRig(t, "twice").wantError(t, "answered nonsense: device GPU-1 is listed twice")
	missing := newNVIDIA([]string{"/does/not/exist"}, nil, slog.New(slog.DiscardHandler))
	if _, err := missing.Probe(context.Background()); err == nil || !strings.Contains(err.Error(), "start the NVML child") {
		t.Errorf("a program that is not there gives %v", err)
	}
	r := newRig(t, "error")
	r.wantDevices(t, 1)
	r.raise(t)
	r.wantError(t, "NVML: count the devices: Unknown Error")
	r.lower(t)
	r.clock = r.clock.Add(restartMax)
	r.wantDevices(t, 1)
}

// TestInventoryTurnsStaleAndHeals runs the whole chain: a child that crashes must leave its
// devices in the inventory, STALE after two failures, and OK again later.
func TestInventoryTurnsStaleAndHeals(t *testing.T) {
	r := newRig(t, "crash")
	w := &watcher{nodeID: "n-1", probers: []*watched{{prober: r}}, log: slog.New(slog.DiscardHandler)}
	health := func() pb.DeviceHealth {
		t.Helper()
		inv := w.probe(context.Background())
		if len(inv.Devices) != 1 || inv.Devices[0].Id != "GPU-1" {
			t.Fatalf("devices %v, want GPU-1 always", inv.Devices)
		}
		return inv.Devices[0].Health
	}
	want := func(h pb.DeviceHealth) {
		t.Helper()
		if got := health(); got != h {
			t.Fatalf("health %v, want %v", got, h)
		}
	}
	want(pb.DeviceHealth_DEVICE_HEALTH_OK)
	r.raise(t)
	want(pb.DeviceHealth_DEVICE_HEALTH_OK)
	want(pb.DeviceHealth_DEVICE_HEALTH_STALE)
	before := w.probe(context.Background())
	if after := w.probe(context.Background()); !after.equal(before) {
		t.Errorf("an inventory that stays stale changes: %v, then %v", before, after)
	}
	if reason := before.Devices[0].Reason; !strings.HasPrefix(reason, "prober nvml is silent: ") {
		t.Errorf("reason %q", reason)
	}
	r.lower(t)
	r.clock = r.clock.Add(restartMax)
	want(pb.DeviceHealth_DEVICE_HEALTH_OK)
}
