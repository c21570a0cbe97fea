//go:build cgo && linux

package device

import (
	"fmt"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// use writes the processes and the load of all devices into the answer. A GPU that does
// not answer is left out: of what it holds, nothing is known.
func (l *lister) use(a *answer, count int) {
	for i := range count {
		handle, ret := guarded2(func() (nvml.Device, nvml.Return) { return l.lib.DeviceGetHandleByIndex(i) })
		if ret != nvml.SUCCESS {
			continue
		}
		devices, sliced := []nvml.Device{handle}, inMIGMode(handle)
		if sliced {
			devices, _ = migHandles(handle)
		}
		for _, d := range devices {
			uuid, ret := guarded2(d.GetUUID)
			if ret != nvml.SUCCESS {
				continue
			}
			a.Uses = append(a.Uses, usesOf(d, uuid)...)
			if len(a.Figures) < DevicesMax {
				a.Figures = append(a.Figures, figureOf(d, handle, uuid, sliced))
			}
		}
	}
	a.Uses = a.Uses[:min(len(a.Uses), UsesMax)]
}

// usesOf lists the processes of one device. One that both computes and draws, or computes
// through MPS, is in several of NVML's lists with the same memory: the largest counts once.
func usesOf(d nvml.Device, uuid string) []childUse {
	var out []childUse
	at := map[uint32]int{}
	for _, list := range []func() ([]nvml.ProcessInfo, nvml.Return){
		d.GetComputeRunningProcesses, d.GetGraphicsRunningProcesses, d.GetMPSComputeRunningProcesses} {
		found, ret := guarded2(list)
		if ret != nvml.SUCCESS {
			continue
		}
		for _, p := range found {
			bytes := int64(p.UsedGpuMemory)
			if p.Pid == 0 || bytes < 0 { // NVML_VALUE_NOT_AVAILABLE has every bit set
				continue
			}
			if i, seen := at[p.Pid]; seen {
				out[i].Bytes = max(out[i].Bytes, bytes)
				continue
			}
			at[p.Pid] = len(out)
			out = append(out, childUse{UUID: uuid, PID: p.Pid, Bytes: bytes})
		}
	}
	return out
}

// islandGPUsMax bounds the GPUs of which every pair is asked about. Hosts have up to 16.
const islandGPUsMax = 32

// wholeGPU is a GPU that is not divided.
type wholeGPU struct {
	uuid   string
	handle nvml.Device
}

// islandsOf says which GPUs are joined by NVLink, directly or through switches: by UUID, a
// name that joined ones share, made of the position of the first. A GPU that is joined to
// no other, or of which NVML does not say, or beyond islandGPUsMax, has none. The links are fixed, so they are
// asked for once for each set of GPUs.
func (l *lister) islandsOf(gpus []wholeGPU) map[string]string {
	gpus = gpus[:min(len(gpus), islandGPUsMax)]
	ids := make([]string, len(gpus))
	for i, g := range gpus {
		ids[i] = g.uuid
	}
	key := strings.Join(ids, " ")
	if l.islands != nil && l.islandsFor == key {
		return l.islands
	}
	first := make([]int, len(gpus)) // the least position in its island
	for i := range first {
		first[i] = i
	}
	size, sure := make([]int, len(gpus)), true
	for i := range gpus {
		for j := i + 1; j < len(gpus); j++ {
			status, ret := guarded2(func() (nvml.GpuP2PStatus, nvml.Return) {
				return gpus[i].handle.GetP2PStatus(gpus[j].handle, nvml.P2P_CAPS_INDEX_NVLINK)
			})
			sure = sure && ret == nvml.SUCCESS
			if ret == nvml.SUCCESS && status == nvml.P2P_STATUS_OK && first[i] != first[j] {
				from, to := max(first[i], first[j]), min(first[i], first[j])
				for k := range first {
					if first[k] == from {
						first[k] = to
					}
				}
			}
		}
	}
	for _, f := range first {
		size[f]++
	}
	islands := map[string]string{}
	for i, f := range first {
		if size[f] > 1 {
			islands[ids[i]] = fmt.Sprintf("nvlink%d", f)
		}
	}
	if sure {
		l.islands, l.islandsFor = islands, key
	}
	return islands
}
