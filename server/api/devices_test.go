package api

import (
	"context"
	"strings"
	"testing"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// DivideGPU and RepairNode of the fake agent note what they were asked.
func (a *fakeAgent) DivideGPU(_ context.Context, req *pb.DivideGPURequest) (*pb.DivideGPUResponse, error) {
	a.asked = "divide " + req.DeviceId + " " + strings.Join(req.Profiles, ",")
	if len(req.Profiles) == 0 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "a task holds it")
	}
	return &pb.DivideGPUResponse{Devices: []*pb.Device{{Id: "m-0"}}}, nil
}

func (a *fakeAgent) RepairNode(_ context.Context, req *pb.RepairNodeRequest) (*pb.RepairNodeResponse, error) {
	a.asked = "repair " + req.DeviceId
	return &pb.RepairNodeResponse{Cleared: []string{"XID 79"}}, nil
}

func TestOperatingDevices(t *testing.T) {
	r := newRig(t)
	srv := r.server("s-1")
	r.setLeader("s-1")
	agent := r.agent("n-a")
	r.node("n-a", "gpu-1", agent.addr, 2)
	n := state.CopyNode(r.f.State().Node("n-a"))
	for _, id := range []string{"m-1", "m-2"} {
		n.Devices = append(n.Devices, &pb.Device{Id: id, Parent: "g-whole", Index: 7, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, MemoryBytes: 1 << 30})
	}
	r.must(&pb.Command{Op: &pb.Command_RegisterNode{RegisterNode: &pb.RegisterNode{Node: n}}})
	cl := r.client("jane", srv)
	c, ctx := pb.NewClusterServiceClient(cl), context.Background()
	first := n.Devices[0].Id
	for _, x := range []struct {
		gpu, asked, fails string
		profiles          []string
	}{
		{first, "divide " + first + " 1g.10gb,1g.10gb", "", []string{"1g.10gb", "1g.10gb"}},
		{"1", "divide " + n.Devices[1].Id + " 1g.10gb", "", []string{"1g.10gb"}},
		{"7", "divide g-whole 1g.10gb", "", []string{"1g.10gb"}},
		{"m-2", "divide g-whole 1g.10gb", "", []string{"1g.10gb"}},
		{"0", "divide " + first + " ", "a task holds it", nil},
		{"9", "", `device_id: node gpu-1 has no device "9" (hint: llmos devices gpu-1 lists them)`, []string{"1g.10gb"}},
		{"0", "", `profiles: "" is not a MIG profile (hint: write them as in 1g.10gb)`, []string{""}},
	} {
		agent.asked = ""
		resp, err := c.DivideGPU(ctx, &pb.DivideGPURequest{NodeId: "gpu-1", DeviceId: x.gpu, Profiles: x.profiles})
		if agent.asked != x.asked || (err == nil) != (x.fails == "") || err == nil && len(resp.Devices) != 1 {
			t.Errorf("%s: asked %q, %v", x.gpu, agent.asked, err)
		}
		if err != nil && fault.From(err).Error() != x.fails {
			t.Errorf("%s: %v, want %s", x.gpu, fault.From(err), x.fails)
		}
	}
	for device, want := range map[string]string{"": "repair ", "1": "repair " + n.Devices[1].Id, "m-1": "repair m-1"} {
		if resp, err := c.RepairNode(ctx, &pb.RepairNodeRequest{NodeId: "n-a", DeviceId: device}); err != nil || agent.asked != want || len(resp.Cleared) != 1 {
			t.Errorf("%q: asked %q, %v", device, agent.asked, err)
		}
	}
	if _, err := c.RepairNode(ctx, &pb.RepairNodeRequest{NodeId: "n-a", DeviceId: "7"}); err == nil || !strings.Contains(fault.From(err).Error(), "several devices of node gpu-1 have the index 7") {
		t.Errorf("%v", err)
	}
	nodes, err := c.ListNodes(ctx, &pb.ListNodesRequest{Detail: true})
	if err != nil || nodes.Nodes[0].Sample.GetTimeMs() != 7 {
		t.Errorf("%v, %v", nodes, err)
	}
	agent.stop()
	if _, err := c.RepairNode(ctx, &pb.RepairNodeRequest{NodeId: "n-a"}); err == nil || !strings.Contains(fault.From(err).Error(), "node gpu-1 ("+agent.addr+") does not answer") {
		t.Errorf("%v", err)
	}
}
