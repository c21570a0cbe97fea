//go:build cgo && linux

package device

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// NVMLMain is the body of the hidden verb nvml-probe: it answers questions on in about the
// GPUs of this host, on out, until in ends. It must run in a process of its own: a driver
// that lacks a symbol ends the process. It returns the process's exit code.
func NVMLMain(in io.Reader, out io.Writer) int {
	return serveNVML(in, out, nvml.New(), "/sys")
}

// serveNVML is NVMLMain with any NVML and any sysfs, for tests.
func serveNVML(in io.Reader, out io.Writer, lib nvml.Interface, sysfs string) int {
	l := &lister{lib: lib, sysfs: sysfs, known: map[int]childDevice{}}
	defer l.shutdown()
	return serveChild(in, out, l.list)
}

// lister lists the GPUs of an NVML library. No function of the library may be called before
// Init has succeeded: the real one ends the process then.
type lister struct {
	lib   nvml.Interface
	sysfs string
	ready bool
	known map[int]childDevice // by index: what a device was called before it was lost
}

func (l *lister) shutdown() {
	if l.ready {
		guarded(l.lib.Shutdown)
	}
}

func (l *lister) list() answer {
	if !l.ready {
		switch ret := guarded(l.lib.Init); ret {
		case nvml.SUCCESS, nvml.ERROR_ALREADY_INITIALIZED:
			l.ready = true
		case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
			return answer{Absent: true}
		default:
			return answer{Error: "initialise: " + nvml.ErrorString(ret)}
		}
	}
	count, ret := guarded2(l.lib.DeviceGetCount)
	if ret != nvml.SUCCESS {
		return answer{Error: "count the devices: " + nvml.ErrorString(ret)}
	}
	driver, _ := guarded2(l.lib.SystemGetDriverVersion)
	a := answer{Driver: driver}
	for i := range min(count, DevicesMax) {
		d, err := l.device(i)
		if err != nil {
			old, ok := l.known[i]
			if !ok {
				return answer{Error: err.Error()}
			}
			old.Failed = err.Error()
			d = old
		} else {
			l.known[i] = d
		}
		a.Devices = append(a.Devices, d)
	}
	return a
}

// device describes the device of an index. The error says which call failed and how.
func (l *lister) device(index int) (childDevice, error) {
	handle, ret := guarded2(func() (nvml.Device, nvml.Return) { return l.lib.DeviceGetHandleByIndex(index) })
	if ret != nvml.SUCCESS {
		return childDevice{}, fmt.Errorf("device %d: %s", index, nvml.ErrorString(ret))
	}
	uuid, ret := guarded2(handle.GetUUID)
	if ret != nvml.SUCCESS {
		return childDevice{}, fmt.Errorf("UUID of device %d: %s", index, nvml.ErrorString(ret))
	}
	name, ret := guarded2(handle.GetName)
	if ret != nvml.SUCCESS {
		return childDevice{}, fmt.Errorf("name of device %d: %s", index, nvml.ErrorString(ret))
	}
	memory, ret := guarded2(handle.GetMemoryInfo)
	if ret != nvml.SUCCESS {
		return childDevice{}, fmt.Errorf("memory of device %d: %s", index, nvml.ErrorString(ret))
	}
	d := childDevice{UUID: uuid, Name: name, MemoryBytes: int64(memory.Total), Index: int32(index), Minor: -1, NUMANode: -1}
	// What follows is good to know and not needed: a failure leaves it unknown.
	if minor, ret := guarded2(handle.GetMinorNumber); ret == nvml.SUCCESS {
		d.Minor = int32(minor)
	}
	if pci, ret := guarded2(handle.GetPciInfo); ret == nvml.SUCCESS {
		d.BusID = busID(pci)
		d.NUMANode = numaNode(l.sysfs, d.BusID)
	}
	mode, ret := guarded2(func() (int, nvml.Return) {
		now, _, ret := handle.GetMigMode()
		return now, ret
	})
	if ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE {
		d.Failed = "MIG is enabled: llmos hands out whole GPUs only; turn it off with nvidia-smi -mig 0"
	}
	return d, nil
}

// busID gives the PCI address as sysfs writes it, such as 0000:17:00.0; empty when NVML
// does not say.
func busID(pci nvml.PciInfo) string {
	var b strings.Builder
	for _, c := range pci.BusId {
		if c == 0 {
			break
		}
		b.WriteByte(byte(c))
	}
	id := strings.ToLower(b.String())
	if domain, rest, ok := strings.Cut(id, ":"); ok && len(domain) == 8 {
		return domain[4:] + ":" + rest // NVML writes a domain of 8 digits, sysfs one of 4
	}
	return id
}

func numaNode(sysfs, busID string) int32 {
	if busID == "" || strings.ContainsAny(busID, "/\\") {
		return -1
	}
	text, err := os.ReadFile(filepath.Join(sysfs, "bus/pci/devices", busID, "numa_node"))
	if err != nil {
		return -1
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 32)
	if err != nil {
		return -1
	}
	return int32(n)
}

// guarded makes a panic of the binding an answer: it panics on what a driver does not have.
func guarded(call func() nvml.Return) (ret nvml.Return) {
	defer func() {
		if recover() != nil {
			ret = nvml.ERROR_FUNCTION_NOT_FOUND
		}
	}()
	return call()
}

func guarded2[T any](call func() (T, nvml.Return)) (value T, ret nvml.Return) {
	defer func() {
		if recover() != nil {
			ret = nvml.ERROR_FUNCTION_NOT_FOUND
		}
	}()
	return call()
}
