package agent

import (
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Vendors as the probers write them.
const (
	vendorAMD    = "amd"
	vendorIntel  = "intel"
	vendorGoogle = "google"
)

// visibleDevices is what a task is shown of its devices.
type visibleDevices struct {
	ids       []string
	variables []variable
}

type variable struct{ name, value string }

// visible gives the variables by which each vendor's library shows a task its devices and no
// others. NVIDIA's and AMD's name devices by UUID, and none at all when the task has none;
// Intel's and Google's name them by index, and can hide all from nobody.
func (s site) visible(grants []*pb.DeviceGrant) (v visibleDevices) {
	var cuda, rocm, levelZero, tpu []string
	for _, g := range grants {
		id := g.GetDeviceId()
		v.ids = append(v.ids, id)
		var d *pb.Device
		if s.device != nil {
			d = s.device(id)
		}
		index := strconv.Itoa(int(d.GetIndex()))
		switch d.GetVendor() {
		case vendorAMD:
			if !strings.HasPrefix(id, "GPU-") {
				id = index // a GPU without a UUID
			}
			rocm = append(rocm, id)
		case vendorIntel:
			levelZero = append(levelZero, index)
		case vendorGoogle:
			tpu = append(tpu, index)
		default:
			cuda = append(cuda, id)
		}
	}
	v.variables = append(v.variables, variable{"CUDA_VISIBLE_DEVICES", strings.Join(cuda, ",")})
	if len(rocm) > 0 || s.hasVendor != nil && s.hasVendor(vendorAMD) {
		v.variables = append(v.variables, variable{"ROCR_VISIBLE_DEVICES", strings.Join(rocm, ",")})
	}
	if len(levelZero) > 0 {
		v.variables = append(v.variables, variable{"ZE_AFFINITY_MASK", strings.Join(levelZero, ",")})
	}
	if len(tpu) > 0 {
		v.variables = append(v.variables, variable{"TPU_VISIBLE_CHIPS", strings.Join(tpu, ",")})
	}
	return v
}
