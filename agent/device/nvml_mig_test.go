//go:build cgo && linux

package device

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	pb "llmos/proto/llmos/v1"
)

// slice is a MIG slice as NVML shows it.
func slice(uuid, name string, mib uint64) *mock.Device {
	return &mock.Device{
		GetUUIDFunc:       func() (string, nvml.Return) { return uuid, nvml.SUCCESS },
		GetNameFunc:       func() (string, nvml.Return) { return name, nvml.SUCCESS },
		GetMemoryInfoFunc: func() (nvml.Memory, nvml.Return) { return nvml.Memory{Total: mib << 20}, nvml.SUCCESS },
	}
}

// divide puts a mocked GPU into MIG mode; a nil slice is an index without one.
func divide(t *testing.T, lib *server.Server, i int, slices ...*mock.Device) {
	t.Helper()
	g := gpu(t, lib, i)
	g.GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	g.GetMaxMigDeviceCountFunc = func() (int, nvml.Return) { return 7, nvml.SUCCESS }
	g.GetMigDeviceHandleByIndexFunc = func(n int) (nvml.Device, nvml.Return) {
		if n >= len(slices) || slices[n] == nil {
			return nil, nvml.ERROR_NOT_FOUND
		}
		return slices[n], nvml.SUCCESS
	}
}

func TestSlicesOfAGPU(t *testing.T) {
	lib := dgxh100.New()
	whole := askNVML(t, lib, t.TempDir(), 1)[0].devices()[1]
	divide(t, lib, 1, slice("MIG-a", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9728), nil, slice("MIG-b", "NVIDIA H100 80GB HBM3 MIG 3g.40gb", 40448),
		slice("MIG-c", "NVIDIA H100 80GB HBM3", 9728))
	divide(t, lib, 2)
	devices := askNVML(t, lib, t.TempDir(), 1)[0].devices()
	var got []string
	for _, d := range devices[1:5] {
		got = append(got, fmt.Sprintf("%s %s %s %dMiB of %s at %s", d.Id, d.Model, d.MigProfile, d.MemoryBytes>>20, d.Parent, d.Path))
	}
	want := []string{
		"MIG-a H100-80GB 1g.10gb 9728MiB of " + whole.Id + " at /dev/nvidia1",
		"MIG-b H100-80GB 3g.40gb 40448MiB of " + whole.Id + " at /dev/nvidia1",
		"MIG-c H100-80GB  9728MiB of " + whole.Id + " at /dev/nvidia1",
	}
	if s, w := strings.Join(got[:3], "\n"), strings.Join(want, "\n"); s != w {
		t.Errorf("%s\nwant\n%s", s, w)
	}
	if len(devices) != 10 || devices[1].Health != pb.DeviceHealth_DEVICE_HEALTH_OK || devices[1].Index != 1 {
		t.Errorf("%d devices, slice %v", len(devices), devices[1])
	}
	if d := devices[3]; d.Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED || !strings.Contains(d.Reason, "which MIG profile") {
		t.Errorf("a slice without a profile is %v", d)
	}
	if d := devices[4]; d.Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED || d.Reason != noSlices || d.MigProfile != "" {
		t.Errorf("a GPU without slices is %v", d)
	}
}

// TestSlicesOfALostGPU: slices that were there stay, failed, when their GPU is lost.
func TestSlicesOfALostGPU(t *testing.T) {
	lib := dgxh100.New()
	a := slice("MIG-a", "NVIDIA H100 80GB HBM3 MIG 1g.10gb", 9728)
	divide(t, lib, 0, a)
	calls := 0
	a.GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		if calls++; calls > 1 {
			return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
		}
		return nvml.Memory{Total: 9728 << 20}, nvml.SUCCESS
	}
	answers := askNVML(t, lib, t.TempDir(), 2)
	first, second := answers[0].devices(), answers[1].devices()
	if len(second) != 8 || first[0].Health != pb.DeviceHealth_DEVICE_HEALTH_OK || second[0].Id != "MIG-a" || second[0].MigProfile != "1g.10gb" ||
		second[0].Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED || !strings.HasPrefix(second[0].Reason, "memory of MIG slice 0 of device 0: ") {
		t.Errorf("%v, then %v", first[0], second[0])
	}
}

func TestIslandsOfNVLink(t *testing.T) {
	lib := dgxh100.New()
	asked := 0
	join := func(joined func(a, b int) bool) {
		at := map[nvml.Device]int{}
		for i, d := range lib.Devices {
			at[d] = i
		}
		for i := range lib.Devices {
			gpu(t, lib, i).GetP2PStatusFunc = func(other nvml.Device, what nvml.GpuP2PCapsIndex) (nvml.GpuP2PStatus, nvml.Return) {
				if asked++; what != nvml.P2P_CAPS_INDEX_NVLINK {
					t.Errorf("asked for %v", what)
				}
				if joined(i, at[other]) {
					return nvml.P2P_STATUS_OK, nvml.SUCCESS
				}
				return nvml.P2P_STATUS_DISABLED_BY_REGKEY, nvml.SUCCESS
			}
		}
	}
	islands := func(questions int) string {
		var out []string
		all := askNVML(t, lib, t.TempDir(), questions)
		for _, d := range all[questions-1].devices() {
			out = append(out, d.Island)
		}
		return strings.Join(out, ",")
	}
	const none = ",,,,,,,"
	if got := islands(1); got != none {
		t.Errorf("a driver that does not say gives %s", got)
	}
	for _, c := range []struct {
		name   string
		joined func(a, b int) bool
		want   string
	}{
		{"a switch", func(int, int) bool { return true }, "nvlink0,nvlink0,nvlink0,nvlink0,nvlink0,nvlink0,nvlink0,nvlink0"},
		{"pairs", func(a, b int) bool { return a/2 == b/2 && a < 6 }, "nvlink0,nvlink0,nvlink2,nvlink2,nvlink4,nvlink4,,"},
		{"a ring of four and one of three", func(a, b int) bool { return a/4 == b/4 && b-a == 1 && b < 7 || a == 0 && b == 3 },
			"nvlink0,nvlink0,nvlink0,nvlink0,nvlink4,nvlink4,nvlink4,"},
		{"none", func(int, int) bool { return false }, none},
	} {
		asked = 0
		join(c.joined)
		if got := islands(3); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if asked != 8*7/2 {
			t.Errorf("%s: %d questions in three looks, want one for each pair", c.name, asked)
		}
	}
	divide(t, lib, 1, slice("MIG-a", "H100 MIG 1g.10gb", 9728))
	join(func(int, int) bool { return true })
	if got := islands(1); got != "nvlink0,,nvlink0,nvlink0,nvlink0,nvlink0,nvlink0,nvlink0" {
		t.Errorf("with a slice: %s", got)
	}
}

func TestUsesOfDevices(t *testing.T) {
	lib := dgxh100.New()
	list := func(infos ...nvml.ProcessInfo) func() ([]nvml.ProcessInfo, nvml.Return) {
		return func() ([]nvml.ProcessInfo, nvml.Return) { return infos, nvml.SUCCESS }
	}
	g := gpu(t, lib, 0)
	g.GetComputeRunningProcessesFunc = list(nvml.ProcessInfo{Pid: 10, UsedGpuMemory: 4 << 30}, nvml.ProcessInfo{Pid: 11, UsedGpuMemory: math.MaxUint64},
		nvml.ProcessInfo{Pid: 12, UsedGpuMemory: 1 << 30})
	g.GetGraphicsRunningProcessesFunc = list(nvml.ProcessInfo{Pid: 12, UsedGpuMemory: 2 << 30}, nvml.ProcessInfo{Pid: 13, UsedGpuMemory: 3 << 30})
	g.GetUtilizationRatesFunc = func() (nvml.Utilization, nvml.Return) { return nvml.Utilization{Gpu: 55}, nvml.SUCCESS }
	s := slice("MIG-a", "H100 MIG 1g.10gb", 9728)
	s.GetComputeRunningProcessesFunc = list(nvml.ProcessInfo{Pid: 10, UsedGpuMemory: 7 << 30})
	divide(t, lib, 1, s)
	gpu(t, lib, 2).GetComputeRunningProcessesFunc = func() ([]nvml.ProcessInfo, nvml.Return) { return nil, nvml.ERROR_GPU_IS_LOST }
	use := askNVMLFor(t, lib, t.TempDir(), 1, true)[0].use()
	id, _ := g.GetUUID()
	var got []string
	for _, p := range use.Processes {
		got = append(got, fmt.Sprintf("%s/%d/%d", strings.Replace(p.DeviceID, id, "gpu0", 1), p.PID, p.MemoryBytes>>30))
	}
	if s := strings.Join(got, " "); s != "gpu0/10/4 gpu0/12/2 gpu0/13/3 MIG-a/10/7" {
		t.Errorf("uses %s", s)
	}
	if use.Figures[id].Percent != 55 || use.Figures["MIG-a"].Percent != unknown {
		t.Errorf("busy %v", use.Figures)
	}
}

func TestProfileOfAName(t *testing.T) {
	for name, want := range map[string]string{"NVIDIA A100-SXM4-40GB MIG 1g.5gb": "1g.5gb", "NVIDIA H100 MIG 1g.10gb+me": "1g.10gb+me",
		"NVIDIA A100 MIG 1c.3g.20gb": "1c.3g.20gb", "NVIDIA A100-SXM4-40GB": "", "": ""} {
		if got := profileOf(name); got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}
