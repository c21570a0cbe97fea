//go:build cgo && linux

package device

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/NVIDIA/go-nvml/pkg/nvml"
)

// sliceProfile is a kind of slice that a GPU can have.
type sliceProfile struct {
	name   string
	slices uint32
	most   uint32 // of this kind on one GPU
	info   nvml.GpuInstanceProfileInfo
}

// computeProfiles gives the compute instance that fills a GPU instance of so many slices.
var computeProfiles = map[uint32]int{1: nvml.COMPUTE_INSTANCE_PROFILE_1_SLICE, 2: nvml.COMPUTE_INSTANCE_PROFILE_2_SLICE,
	3: nvml.COMPUTE_INSTANCE_PROFILE_3_SLICE, 4: nvml.COMPUTE_INSTANCE_PROFILE_4_SLICE, 6: nvml.COMPUTE_INSTANCE_PROFILE_6_SLICE,
	7: nvml.COMPUTE_INSTANCE_PROFILE_7_SLICE, 8: nvml.COMPUTE_INSTANCE_PROFILE_8_SLICE}

// divideGPU makes slices of a GPU in place of those it has. What cannot be is refused before
// anything is destroyed.
func divideGPU(lib nvml.Interface, order childDivide) error {
	gpu, ret := guarded2(func() (nvml.Device, nvml.Return) { return lib.DeviceGetHandleByUUID(order.UUID) })
	if ret != nvml.SUCCESS {
		return fmt.Errorf("find GPU %s: %s", order.UUID, nvml.ErrorString(ret))
	}
	profiles := profilesOf(gpu)
	if len(profiles) == 0 && len(order.Profiles) > 0 {
		return fmt.Errorf("GPU %s cannot be divided", order.UUID)
	}
	wanted, err := choose(profiles, order.Profiles)
	if err != nil {
		return err
	}
	if err := destroySlices(gpu, profiles); err != nil {
		return err
	}
	mode := nvml.DEVICE_MIG_DISABLE
	if len(wanted) > 0 {
		mode = nvml.DEVICE_MIG_ENABLE
	}
	if err := setMIGMode(gpu, mode); err != nil {
		return err
	}
	for i, p := range wanted {
		if err := makeSlice(gpu, p); err != nil {
			return fmt.Errorf("slice %d of %d: %w", i+1, len(wanted), err)
		}
	}
	return nil
}

// setMIGMode turns MIG on or off. Some GPUs need a reset for it, which is an operator's to do.
func setMIGMode(gpu nvml.Device, mode int) error {
	now, pending, ret := nvml.DEVICE_MIG_DISABLE, nvml.DEVICE_MIG_DISABLE, nvml.SUCCESS
	guarded(func() nvml.Return { now, pending, ret = gpu.GetMigMode(); return ret })
	if ret == nvml.ERROR_NOT_SUPPORTED && mode == nvml.DEVICE_MIG_DISABLE {
		return nil
	}
	if now == mode && pending == mode {
		return nil
	}
	var activation nvml.Return
	ret = guarded(func() (ret nvml.Return) { activation, ret = gpu.SetMigMode(mode); return ret })
	switch {
	case ret != nvml.SUCCESS:
		return fmt.Errorf("set the MIG mode: %s", nvml.ErrorString(ret))
	case activation == nvml.ERROR_RESET_REQUIRED || activation == nvml.ERROR_IN_USE:
		return errors.New("the new MIG mode takes effect at the next reset of the GPU: nvidia-smi --gpu-reset, then ask again")
	case activation != nvml.SUCCESS:
		return fmt.Errorf("activate the MIG mode: %s", nvml.ErrorString(activation))
	}
	return nil
}

// profilesOf lists the kinds of slices that a GPU can have.
func profilesOf(gpu nvml.Device) []sliceProfile {
	var out []sliceProfile
	for i := range nvml.GPU_INSTANCE_PROFILE_COUNT {
		info, ret := guarded2(func() (nvml.GpuInstanceProfileInfo, nvml.Return) { return gpu.GetGpuInstanceProfileInfo(i) })
		if ret != nvml.SUCCESS {
			continue
		}
		out = append(out, sliceProfile{name: profileName(gpu, i, info), slices: info.SliceCount, most: info.InstanceCount, info: info})
	}
	return out
}

// profileName is what NVML calls a profile or, of an older driver, what NVIDIA's rule for
// names gives: slices of the GPU and memory in GiB, rounded up.
func profileName(gpu nvml.Device, index int, info nvml.GpuInstanceProfileInfo) string {
	v2, ret := guarded2(func() (nvml.GpuInstanceProfileInfo_v2, nvml.Return) {
		return gpu.GetGpuInstanceProfileInfoV(index).V2()
	})
	if ret == nvml.SUCCESS {
		if name := cString(v2.Name[:]); name != "" {
			return strings.TrimPrefix(strings.ToLower(name), "mig ")
		}
	}
	name := fmt.Sprintf("%dg.%dgb", info.SliceCount, (info.MemorySizeMB+1023)/1024)
	switch index {
	case nvml.GPU_INSTANCE_PROFILE_1_SLICE_REV1, nvml.GPU_INSTANCE_PROFILE_2_SLICE_REV1:
		name += "+me"
	}
	return name
}

func cString(b []int8) string {
	var out []byte
	for _, c := range b {
		if c == 0 {
			break
		}
		out = append(out, byte(c))
	}
	return string(out)
}

// choose finds the profiles by name, the largest first, which is how most fit on a GPU.
func choose(profiles []sliceProfile, names []string) ([]sliceProfile, error) {
	var out []sliceProfile
	counts, total := map[string]uint32{}, uint32(0)
	for _, name := range names {
		i := slices.IndexFunc(profiles, func(p sliceProfile) bool { return p.name == name })
		if i < 0 {
			var known []string
			for _, p := range profiles {
				known = append(known, p.name)
			}
			return nil, fmt.Errorf("the GPU has no profile %.40q; it has %s", name, strings.Join(known, ", "))
		}
		if counts[name]++; counts[name] > profiles[i].most {
			return nil, fmt.Errorf("%d slices of %s do not fit on the GPU, at most %d do", counts[name], name, profiles[i].most)
		}
		total += profiles[i].slices
		out = append(out, profiles[i])
	}
	whole := uint32(0)
	for _, p := range profiles {
		whole = max(whole, p.slices)
	}
	if total > whole {
		return nil, fmt.Errorf("the profiles take %d slices, and the GPU has %d", total, whole)
	}
	slices.SortStableFunc(out, func(a, b sliceProfile) int { return int(b.slices) - int(a.slices) })
	return out, nil
}

// destroySlices destroys every slice of a GPU. One that is in use stays, and so do those behind it.
func destroySlices(gpu nvml.Device, profiles []sliceProfile) error {
	if !inMIGMode(gpu) {
		return nil
	}
	for _, p := range profiles {
		instances, ret := guarded2(func() ([]nvml.GpuInstance, nvml.Return) { return gpu.GetGpuInstances(&p.info) })
		if ret != nvml.SUCCESS {
			return fmt.Errorf("list the slices of profile %s: %s", p.name, nvml.ErrorString(ret))
		}
		for _, gi := range instances {
			if err := destroySlice(gi, p); err != nil {
				return err
			}
		}
	}
	return nil
}

func destroySlice(gi nvml.GpuInstance, p sliceProfile) error {
	for i := range nvml.COMPUTE_INSTANCE_PROFILE_COUNT {
		info, ret := guarded2(func() (nvml.ComputeInstanceProfileInfo, nvml.Return) {
			return gi.GetComputeInstanceProfileInfo(i, nvml.COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
		})
		if ret != nvml.SUCCESS {
			continue
		}
		found, ret := guarded2(func() ([]nvml.ComputeInstance, nvml.Return) { return gi.GetComputeInstances(&info) })
		if ret != nvml.SUCCESS {
			return fmt.Errorf("list what computes in a slice of profile %s: %s", p.name, nvml.ErrorString(ret))
		}
		for _, ci := range found {
			if ret := guarded(ci.Destroy); ret != nvml.SUCCESS {
				return fmt.Errorf("destroy a slice of profile %s: %s", p.name, nvml.ErrorString(ret))
			}
		}
	}
	if ret := guarded(gi.Destroy); ret != nvml.SUCCESS {
		return fmt.Errorf("destroy a slice of profile %s: %s", p.name, nvml.ErrorString(ret))
	}
	return nil
}

// makeSlice makes one slice whose compute instance takes all of it.
func makeSlice(gpu nvml.Device, p sliceProfile) error {
	gi, ret := guarded2(func() (nvml.GpuInstance, nvml.Return) { return gpu.CreateGpuInstance(&p.info) })
	if ret != nvml.SUCCESS {
		return fmt.Errorf("make a slice of profile %s: %s", p.name, nvml.ErrorString(ret))
	}
	info, ret := guarded2(func() (nvml.ComputeInstanceProfileInfo, nvml.Return) {
		return gi.GetComputeInstanceProfileInfo(computeProfiles[p.slices], nvml.COMPUTE_INSTANCE_ENGINE_PROFILE_SHARED)
	})
	if ret == nvml.SUCCESS {
		_, ret = guarded2(func() (nvml.ComputeInstance, nvml.Return) { return gi.CreateComputeInstance(&info) })
	}
	if ret != nvml.SUCCESS {
		guarded(gi.Destroy)
		return fmt.Errorf("make a slice of profile %s compute: %s", p.name, nvml.ErrorString(ret))
	}
	return nil
}
