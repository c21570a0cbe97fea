//go:build cgo && linux

package device

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	l := &lister{lib: lib, sysfs: sysfs, known: map[int][]childDevice{}, hears: newListener(lib)}
	defer l.shutdown()
	return serveChild(in, out, l.answer)
}

// lister answers about the GPUs of an NVML library. No function of the library may be called before
// Init has succeeded: the real one ends the process then.
type lister struct {
	lib   nvml.Interface
	sysfs string
	ready bool
	known map[int][]childDevice // by index of the GPU: what was there before it was lost
	hears *listener
	heard string // UUIDs of the GPUs it listens to

	islands    map[string]string // by UUID, of the GPUs in islandsFor
	islandsFor string
}

func (l *lister) shutdown() {
	l.hears.close()
	if l.ready {
		guarded(l.lib.Shutdown)
	}
}

// answer answers one question.
func (l *lister) answer(q question) answer {
	a, count := l.begin()
	switch {
	case a.Absent || a.Error != "":
	case q.Use:
		l.use(&a, count)
	case q.Events:
		a.Events = l.hears.take()
	case q.Divide != nil:
		if err := divideGPU(l.lib, *q.Divide); err != nil {
			a.Error = err.Error()
		}
	default:
		l.list(&a, count)
	}
	return a
}

// begin gives the head of an answer and the number of GPUs.
func (l *lister) begin() (answer, int) {
	if !l.ready {
		switch ret := guarded(l.lib.Init); ret {
		case nvml.SUCCESS, nvml.ERROR_ALREADY_INITIALIZED:
			l.ready = true
		case nvml.ERROR_LIBRARY_NOT_FOUND, nvml.ERROR_DRIVER_NOT_LOADED:
			return answer{Absent: true}, 0
		default:
			return answer{Error: "initialise: " + nvml.ErrorString(ret)}, 0
		}
	}
	count, ret := guarded2(l.lib.DeviceGetCount)
	if ret != nvml.SUCCESS {
		return answer{Error: "count the devices: " + nvml.ErrorString(ret)}, 0
	}
	return answer{}, min(count, DevicesMax)
}

// list writes the devices of all GPUs into the answer. A GPU that does not answer is listed
// as it was, failed; when nothing of it is known, by its index.
func (l *lister) list(a *answer, count int) {
	a.Driver, _ = guarded2(l.lib.SystemGetDriverVersion)
	l.hears.begin()
	if fault := l.hears.failing(); fault != "" {
		a.Error = "XID errors are not heard of: " + fault
		return
	}
	var whole []wholeGPU
	failed := map[int]error{}
	before, listed := maps.Clone(l.known), map[string]bool{}
	for i := range count {
		found, handle, err := l.gpu(i)
		if err != nil {
			failed[i] = err
			continue
		}
		l.known[i] = found
		if len(found) == 1 && found[0].Parent == "" && found[0].Failed == "" {
			whole = append(whole, wholeGPU{found[0].UUID, handle})
		}
		for _, d := range found {
			listed[d.UUID] = true
		}
		a.Devices = append(a.Devices, found...)
	}
	l.listen(a.Devices)
	for i := range count {
		if err := failed[i]; err != nil {
			a.Devices = append(a.Devices, asBefore(before[i], listed, i, err)...)
			if len(failed) == count && before[i] == nil {
				a.Error, a.Devices = err.Error(), nil // the driver is ill, not its GPUs
				return
			}
		}
	}
	slices.SortStableFunc(a.Devices, func(x, y childDevice) int { return cmp.Compare(x.Index, y.Index) })
	a.Devices = a.Devices[:min(len(a.Devices), DevicesMax)]
	islands := l.islandsOf(whole)
	for i, d := range a.Devices {
		a.Devices[i].Island = islands[d.UUID]
	}
}

// asBefore gives what was at the index of a GPU that does not answer, but for what answers at
// another index now: indexes are given anew when a GPU goes.
func asBefore(old []childDevice, listed map[string]bool, index int, err error) []childDevice {
	var out []childDevice
	for _, d := range old {
		if !listed[d.UUID] {
			listed[d.UUID] = true
			d.Failed = err.Error()
			out = append(out, d)
		}
	}
	if out == nil {
		out = []childDevice{{UUID: fmt.Sprintf("%s%d", namelessPrefix, index), Name: "GPU", Index: int32(index), Minor: -1, NUMANode: -1, Failed: err.Error()}}
	}
	return out
}

// listen has the listener hear of the GPUs that answer now.
func (l *lister) listen(devices []childDevice) {
	var ids []string
	for _, d := range devices {
		ids = append(ids, cmp.Or(d.Parent, d.UUID))
	}
	slices.Sort(ids)
	if key := strings.Join(slices.Compact(ids), " "); key != l.heard {
		if l.heard != "" {
			l.hears.renew()
		}
		l.heard = key
	}
}

// gpu describes what can be granted of the GPU of an index: itself or, in MIG mode, its
// slices. The error says which call failed and how.
func (l *lister) gpu(index int) ([]childDevice, nvml.Device, error) {
	handle, ret := guarded2(func() (nvml.Device, nvml.Return) { return l.lib.DeviceGetHandleByIndex(index) })
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("device %d: %s", index, nvml.ErrorString(ret))
	}
	uuid, ret := guarded2(handle.GetUUID)
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("UUID of device %d: %s", index, nvml.ErrorString(ret))
	}
	name, ret := guarded2(handle.GetName)
	if ret != nvml.SUCCESS {
		return nil, nil, fmt.Errorf("name of device %d: %s", index, nvml.ErrorString(ret))
	}
	sliced := inMIGMode(handle)
	memory, ret := guarded2(handle.GetMemoryInfo)
	if ret != nvml.SUCCESS && !sliced { // the memory of all slices together is shown to root alone
		return nil, nil, fmt.Errorf("memory of device %d: %s", index, nvml.ErrorString(ret))
	}
	d := childDevice{UUID: uuid, Name: name, MemoryBytes: int64(memory.Total), Index: int32(index), Minor: -1, NUMANode: -1}
	// What follows is good to know and not needed: a failure leaves it unknown.
	if minor, ret := guarded2(handle.GetMinorNumber); ret == nvml.SUCCESS {
		d.Minor = int32(minor)
	}
	if pci, ret := guarded2(handle.GetPciInfo); ret == nvml.SUCCESS {
		d.BusID = busID(pci)
		d.NUMANode = numaNode(l.sysfs, d.BusID)
		d.PCIePath = pciePath(l.sysfs, d.BusID)
	}
	if !sliced {
		d.NVLinks = nvlinksOf(handle)
		return []childDevice{d}, handle, nil
	}
	found, err := slicesOf(handle, d)
	if err != nil && l.known[index] == nil {
		d.Failed = err.Error()
		return []childDevice{d}, handle, nil
	}
	return found, handle, err
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
