package controller

import (
	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// stateVersionDevices is the state version from which a device can be BLOCKED; see fsm/version.go.
const stateVersionDevices = 3

// told gives what a node says of itself in words that the state's version knows: while a cluster
// is being upgraded, a device that is BLOCKED counts as FAILED, which keeps new work off it too.
func (c *Controller) told(n *pb.Node) *pb.Node {
	if n == nil || c.st.Cluster().GetStateVersion() >= stateVersionDevices {
		return n
	}
	n = proto.CloneOf(n)
	for _, d := range n.Devices {
		d.PciePath, d.Nvlinks = "", 0
		if d.Health == pb.DeviceHealth_DEVICE_HEALTH_BLOCKED {
			d.Health = pb.DeviceHealth_DEVICE_HEALTH_FAILED
		}
	}
	return n
}
