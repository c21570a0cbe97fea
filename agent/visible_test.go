package agent

import (
	"fmt"
	"testing"

	pb "llmos/proto/llmos/v1"
)

func TestVisibleDevices(t *testing.T) {
	devices := map[string]*pb.Device{
		"GPU-n": {Vendor: "nvidia", Index: 3}, "GPU-a": {Vendor: "amd", Index: 1}, "amd-0000:05:00.0": {Vendor: "amd", Index: 2},
		"intel-0000:1a:00.0": {Vendor: "intel", Index: 4}, "tpu-0000:00:04.0": {Vendor: "google", Index: 5},
	}
	s := site{device: func(id string) *pb.Device { return devices[id] }}
	of := func(ids ...string) string {
		var grants []*pb.DeviceGrant
		for _, id := range ids {
			grants = append(grants, &pb.DeviceGrant{DeviceId: id})
		}
		return fmt.Sprint(s.visible(grants).variables)
	}
	for _, c := range []struct{ got, want string }{
		{of(), "[{CUDA_VISIBLE_DEVICES }]"},
		{of("GPU-n", "unheard-of"), "[{CUDA_VISIBLE_DEVICES GPU-n,unheard-of}]"},
		{of("GPU-a", "amd-0000:05:00.0"), "[{CUDA_VISIBLE_DEVICES } {ROCR_VISIBLE_DEVICES GPU-a,2}]"},
		{of("intel-0000:1a:00.0"), "[{CUDA_VISIBLE_DEVICES } {ZE_AFFINITY_MASK 4}]"},
		{of("tpu-0000:00:04.0"), "[{CUDA_VISIBLE_DEVICES } {TPU_VISIBLE_CHIPS 5}]"},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
	s.hasVendor = func(vendor string) bool { return vendor == vendorAMD }
	if got := of(); got != "[{CUDA_VISIBLE_DEVICES } {ROCR_VISIBLE_DEVICES }]" {
		t.Errorf("a task without devices on a host of AMD's sees %s", got)
	}
}
