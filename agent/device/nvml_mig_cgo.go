//go:build cgo && linux

package device

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// slicesMax bounds the MIG slices of one GPU that are looked for. Today's have at most 7.
const slicesMax = 32

const noSlices = "MIG is enabled and the GPU has no slices: make some with nvidia-smi mig -cgi PROFILE -C, or turn MIG off with nvidia-smi -mig 0"

// inMIGMode says whether MIG is on now. A GPU that does not say is a whole one.
func inMIGMode(handle nvml.Device) bool {
	mode, ret := guarded2(func() (int, nvml.Return) {
		now, _, ret := handle.GetMigMode()
		return now, ret
	})
	return ret == nvml.SUCCESS && mode == nvml.DEVICE_MIG_ENABLE
}

// migHandles gives the handles of a GPU's slices. An index without a slice is no error:
// slices are made and deleted in any order.
func migHandles(handle nvml.Device) ([]nvml.Device, error) {
	count, ret := guarded2(handle.GetMaxMigDeviceCount)
	if ret != nvml.SUCCESS {
		return nil, fmt.Errorf("count the MIG slices: %s", nvml.ErrorString(ret))
	}
	var out []nvml.Device
	for i := range min(count, slicesMax) {
		slice, ret := guarded2(func() (nvml.Device, nvml.Return) { return handle.GetMigDeviceHandleByIndex(i) })
		switch ret {
		case nvml.SUCCESS:
			out = append(out, slice)
		case nvml.ERROR_NOT_FOUND, nvml.ERROR_INVALID_ARGUMENT:
		default:
			return nil, fmt.Errorf("MIG slice %d: %s", i, nvml.ErrorString(ret))
		}
	}
	return out, nil
}

// slicesOf describes the slices of a GPU in MIG mode, or the GPU itself as failed when it
// has none, so that it can be seen that work is left to an operator.
func slicesOf(handle nvml.Device, gpu childDevice) ([]childDevice, error) {
	handles, err := migHandles(handle)
	if err != nil {
		return nil, fmt.Errorf("device %d: %w", gpu.Index, err)
	}
	if len(handles) == 0 {
		gpu.Failed = noSlices
		return []childDevice{gpu}, nil
	}
	out := make([]childDevice, 0, len(handles))
	for i, h := range handles {
		uuid, ret := guarded2(h.GetUUID)
		if ret != nvml.SUCCESS {
			return nil, fmt.Errorf("UUID of MIG slice %d of device %d: %s", i, gpu.Index, nvml.ErrorString(ret))
		}
		memory, ret := guarded2(h.GetMemoryInfo)
		if ret != nvml.SUCCESS {
			return nil, fmt.Errorf("memory of MIG slice %d of device %d: %s", i, gpu.Index, nvml.ErrorString(ret))
		}
		name, ret := guarded2(h.GetName)
		if ret != nvml.SUCCESS {
			return nil, fmt.Errorf("name of MIG slice %d of device %d: %s", i, gpu.Index, nvml.ErrorString(ret))
		}
		slice := gpu
		slice.UUID, slice.Parent, slice.WholeBytes, slice.MemoryBytes = uuid, gpu.UUID, gpu.MemoryBytes, int64(memory.Total)
		if slice.Profile = profileOf(name); slice.Profile == "" {
			slice.Failed = fmt.Sprintf("NVML does not say which MIG profile it has: its name is %.60q", name)
		}
		out = append(out, slice)
	}
	return out, nil
}

// profileOf finds the profile in a slice's name, such as "NVIDIA A100-SXM4-40GB MIG
// 1g.5gb"; empty when there is none.
func profileOf(name string) string {
	_, profile, found := strings.Cut(name, " MIG ")
	if !found {
		return ""
	}
	return strings.ToLower(strings.TrimSpace(profile))
}
