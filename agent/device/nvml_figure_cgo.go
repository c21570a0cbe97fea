//go:build cgo && linux

package device

import (
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// nvlinksMax bounds the links of one GPU that are looked at.
const nvlinksMax = 32

// figureOf says how a device is. Of a slice NVML knows the memory alone; how hot it is and
// what it draws are its GPU's.
func figureOf(d, gpu nvml.Device, uuid string, slice bool) childFigure {
	f := childFigure{UUID: uuid, Percent: unknown, UsedBytes: usedBytes(d), Celsius: unknown, Milliwatt: unknown, ECCCorrected: unknown, ECCUncorrected: unknown}
	if load, ret := guarded2(gpu.GetUtilizationRates); ret == nvml.SUCCESS && load.Gpu <= 100 && !slice {
		f.Percent = int32(load.Gpu)
	}
	if t, ret := guarded2(func() (uint32, nvml.Return) { return gpu.GetTemperature(nvml.TEMPERATURE_GPU) }); ret == nvml.SUCCESS && t < 1000 {
		f.Celsius = int32(t)
	}
	if mw, ret := guarded2(gpu.GetPowerUsage); ret == nvml.SUCCESS {
		f.Milliwatt = int64(mw)
	}
	f.ECCCorrected, f.ECCUncorrected = eccErrors(gpu, nvml.MEMORY_ERROR_TYPE_CORRECTED), eccErrors(gpu, nvml.MEMORY_ERROR_TYPE_UNCORRECTED)
	return f
}

// usedBytes is the memory of a device that somebody holds, without what the driver keeps for
// itself. An older driver does not tell the two apart: then it is not known.
func usedBytes(d nvml.Device) int64 {
	m, ret := guarded2(d.GetMemoryInfo_v2)
	if ret != nvml.SUCCESS || m.Used > math.MaxInt64 {
		return unknown
	}
	return int64(m.Used)
}

func eccErrors(d nvml.Device, kind nvml.MemoryErrorType) int64 {
	n, ret := guarded2(func() (uint64, nvml.Return) { return d.GetTotalEccErrors(kind, nvml.VOLATILE_ECC) })
	if ret != nvml.SUCCESS || n > math.MaxInt64 {
		return unknown
	}
	return int64(n)
}

// nvlinksOf counts the NVLinks of a GPU that are up.
func nvlinksOf(d nvml.Device) (n int32) {
	for link := range nvlinksMax {
		state, ret := guarded2(func() (nvml.EnableState, nvml.Return) { return d.GetNvLinkState(link) })
		switch {
		case ret == nvml.SUCCESS && state == nvml.FEATURE_ENABLED:
			n++
		case ret != nvml.SUCCESS:
			return n
		}
	}
	return n
}

// pciePath gives the bridges from the root of the PCI tree to a device, such as
// pci0000:3a/0000:3a:01.0/0000:3c:00.0; empty when sysfs does not say.
func pciePath(sysfs, busID string) string {
	if busID == "" || strings.ContainsAny(busID, "/\\") {
		return ""
	}
	path, err := filepath.EvalSymlinks(filepath.Join(sysfs, "bus/pci/devices", busID))
	if err != nil {
		return ""
	}
	i := strings.Index(path, string(os.PathSeparator)+"pci")
	if i < 0 || len(path)-i-1 > pciePathMax {
		return ""
	}
	return filepath.Dir(path[i+1:])
}
