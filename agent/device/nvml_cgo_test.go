//go:build cgo && linux

package device

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxa100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/dgxh100"
	"github.com/NVIDIA/go-nvml/pkg/nvml/mock/server"

	pb "llmos/proto/llmos/v1"
)

// askNVML plays the agent's half against serveNVML and gives its answers.
func askNVML(t *testing.T, lib nvml.Interface, sysfs string, questions int) []answer {
	t.Helper()
	return askNVMLFor(t, lib, sysfs, questions, false)
}

// askNVMLFor is askNVML, for the devices or for their use.
func askNVMLFor(t *testing.T, lib nvml.Interface, sysfs string, questions int, use bool) []answer {
	t.Helper()
	var in, out bytes.Buffer
	for i := range questions {
		if err := writeFrame(&in, question{ID: uint64(i + 1), Use: use}); err != nil {
			t.Fatal(err)
		}
	}
	if code := serveNVML(&in, &out, lib, sysfs); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	answers := make([]answer, questions)
	for i := range answers {
		if err := readFrame(&out, &answers[i]); err != nil {
			t.Fatal(err)
		}
		if err := answers[i].check(uint64(i + 1)); err != nil {
			t.Fatal(err)
		}
	}
	return answers
}

func TestMockedServersHaveEightGPUs(t *testing.T) {
	for model, lib := range map[string]nvml.Interface{"Mock-A100-40GB": dgxa100.New(), "H100-80GB": dgxh100.New()} {
		a := askNVML(t, lib, t.TempDir(), 1)[0]
		devices := a.devices()
		if len(devices) != 8 || a.Driver == "" {
			t.Fatalf("%s: %d devices, driver %q, want 8 and a version", model, len(devices), a.Driver)
		}
		for i, d := range devices {
			if d.Model != model || d.Id == "" || d.MemoryBytes < 40<<30 || d.Index != int32(i) || d.Vendor != "nvidia" ||
				d.Kind != "gpu" || d.NumaNode != -1 || d.Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
				t.Errorf("%s: device %d is %v", model, i, d)
			}
			if d.Path != fmt.Sprintf("/dev/nvidia%d", i) {
				t.Errorf("%s: path of device %d is %q", model, i, d.Path)
			}
		}
	}
}

func gpu(t *testing.T, lib *server.Server, i int) *mock.Device {
	t.Helper()
	d, ok := lib.Devices[i].(*server.Device)
	if !ok {
		t.Fatalf("device %d of the mock is a %T", i, lib.Devices[i])
	}
	return &d.Device
}

func TestLostDeviceIsFailedAndTheOthersStay(t *testing.T) {
	lib := dgxh100.New()
	calls := 0
	gpu(t, lib, 3).GetMemoryInfoFunc = func() (nvml.Memory, nvml.Return) {
		if calls++; calls > 1 {
			return nvml.Memory{}, nvml.ERROR_GPU_IS_LOST
		}
		return nvml.Memory{Total: 80 << 30}, nvml.SUCCESS
	}
	answers := askNVML(t, lib, t.TempDir(), 2)
	first, second := answers[0].devices(), answers[1].devices()
	if len(second) != 8 || second[3].Health != pb.DeviceHealth_DEVICE_HEALTH_FAILED || second[3].Id != first[3].Id {
		t.Fatalf("device 3 is %v, want the same one, failed", second[3])
	}
	if want := "memory of device 3: "; !strings.HasPrefix(second[3].Reason, want) {
		t.Errorf("reason %q, want one that begins with %q", second[3].Reason, want)
	}
	if second[4].Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
		t.Errorf("device 4 is %v", second[4])
	}
}

func TestWhatADriverLacksDoesNotEndTheChild(t *testing.T) {
	lib := dgxh100.New()
	gpu(t, lib, 0).GetMinorNumberFunc = nil // the mock panics on what is not set
	gpu(t, lib, 0).GetPciInfoFunc = nil
	gpu(t, lib, 1).GetMigModeFunc = func() (int, int, nvml.Return) {
		return nvml.DEVICE_MIG_ENABLE, nvml.DEVICE_MIG_ENABLE, nvml.SUCCESS
	}
	a := askNVML(t, lib, t.TempDir(), 1)[0]
	if len(a.Devices) != 8 || a.Devices[0].Minor != -1 || a.Devices[0].Failed != "" {
		t.Errorf("device 0 is %+v of %d", a.Devices[0], len(a.Devices))
	}
	if a.Devices[1].Failed == "" {
		t.Error("a GPU with MIG enabled whose slices cannot be counted is handed out as a whole one")
	}
	lib.DeviceGetCountFunc = nil
	if a := askNVML(t, lib, t.TempDir(), 1)[0]; a.Error == "" || a.Absent {
		t.Errorf("without a count the answer is %+v, want an error", a)
	}
}

func TestNoCallBeforeInit(t *testing.T) {
	for _, c := range []struct {
		ret    nvml.Return
		absent bool
	}{{nvml.ERROR_LIBRARY_NOT_FOUND, true}, {nvml.ERROR_DRIVER_NOT_LOADED, true}, {nvml.ERROR_UNKNOWN, false}} {
		lib := &mock.Interface{InitFunc: func() nvml.Return { return c.ret }} // every other call panics
		lib.DeviceGetCountFunc = func() (int, nvml.Return) { t.Error("called before Init"); return 0, nvml.SUCCESS }
		lib.ShutdownFunc = func() nvml.Return { t.Error("Shutdown without Init"); return nvml.SUCCESS }
		a := askNVML(t, lib, t.TempDir(), 1)[0]
		if a.Absent != c.absent || (a.Error == "") != c.absent {
			t.Errorf("Init gives %v: answer %+v", c.ret, a)
		}
	}
}

func TestNUMANodeOfABusID(t *testing.T) {
	sysfs := t.TempDir()
	dir := filepath.Join(sysfs, "bus/pci/devices/0000:17:00.0")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "numa_node"), []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	lib := dgxh100.New()
	gpu(t, lib, 0).GetPciInfoFunc = func() (nvml.PciInfo, nvml.Return) {
		var pci nvml.PciInfo
		for i, c := range "00000000:17:00.0" {
			pci.BusId[i] = int8(c)
		}
		return pci, nvml.SUCCESS
	}
	d := askNVML(t, lib, sysfs, 1)[0].devices()[0]
	if d.BusId != "0000:17:00.0" || d.NumaNode != 1 {
		t.Errorf("bus %q, NUMA node %d", d.BusId, d.NumaNode)
	}
}

// TestRealLibrary asks the NVML of this host, if any: it must answer or say that there is
// none, and never end the process.
func TestRealLibrary(t *testing.T) {
	a := askNVML(t, nvml.New(), "/sys", 1)[0]
	if a.Absent && (a.Error != "" || len(a.Devices) > 0) {
		t.Errorf("%+v is absent and more", a)
	}
	u := askNVMLFor(t, nvml.New(), "/sys", 1, true)[0]
	if u.Absent != a.Absent {
		t.Errorf("NVML is absent for the devices: %v, for their use: %v", a.Absent, u.Absent)
	}
	t.Logf("NVML of this host: absent=%v error=%q driver=%q devices=%d", a.Absent, a.Error, a.Driver, len(a.Devices))
}
