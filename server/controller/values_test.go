package controller

import (
	"slices"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// TestAvoidedLapses has a job avoid a node only as long as its record says, though the
// record stays as it is.
func TestAvoidedLapses(t *testing.T) {
	j := &pb.Job{Avoid: []*pb.AvoidedNode{{NodeId: "n-a", UntilMs: 10}, {NodeId: "n-b", UntilMs: 20}}}
	for now, want := range map[int64][]string{9: {"n-a", "n-b"}, 10: {"n-b"}, 20: nil} {
		if got := avoided(j, now); !slices.Equal(got, want) {
			t.Errorf("at %d: %v, want %v", now, got, want)
		}
	}
}

// TestTPUsAreNoGPUs: a job gets a TPU when it asks for one by its model, and only then.
func TestTPUsAreNoGPUs(t *testing.T) {
	for _, c := range []struct {
		model  string
		models []string
		want   string
	}{{"", nil, ""}, {"H100-80GB", nil, ""}, {"TPU-v5e-16GB", nil, kindTPU}, {"", []string{"TPU-v4-32GB", "TPU-v5e-16GB"}, kindTPU}, {"", []string{"TPU-v4-32GB", "L4-24GB"}, ""}} {
		role := &pb.RoleSpec{Resources: &pb.Resources{Gpus: 1, GpuModel: c.model, GpuModels: c.models}}
		if got := requestValue(role).Profile; got != c.want {
			t.Errorf("%+v asks for the profile %q", c, got)
		}
	}
	n := &pb.Node{Id: "n", Devices: []*pb.Device{{Id: "a", Kind: "gpu"}, {Id: "b", Kind: kindTPU}}}
	st := state.New()
	v := nodeValue(st, n, &pb.NodeAccount{NodeId: "n", Devices: []*pb.DeviceAccount{{DeviceId: "a"}, {DeviceId: "b"}}})
	if v.Devices[0].Profile != "" || v.Devices[1].Profile != kindTPU {
		t.Errorf("%+v", v.Devices)
	}
}
