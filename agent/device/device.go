// Package device finds the devices of a host and watches them: the CPUs and the memory that
// this process may use, NVIDIA GPUs through NVML, and scripted devices for tests and for
// machines without a GPU. It says what is there, how it is and which processes use it; it
// grants nothing, starts no task and never changes a device. The agent calls Watch once and
// sends what changes to the leader, and calls Look while tasks have devices; cmd/llmos calls
// NVMLMain as the body of its hidden verb.
//
// What is listed can be granted. A GPU in MIG mode is therefore not listed: its slices are,
// each with its profile, its memory and the GPU it is a part of. Slices are made and deleted
// by operators, never here.
//
// NVML runs in a child process, because a broken driver ends the process that calls it. A
// prober that fails leaves the devices it found in the inventory: after a second failure in
// a row they are STALE, which stops new work and leaves running work alone, and the next
// success heals them.
package device

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// DevicesMax bounds the devices of one node, whatever finds them.
const DevicesMax = 256

// Prober finds devices of one kind.
type Prober interface {
	// Name is a word for logs and reasons, such as "nvml".
	Name() string
	// Probe lists the devices that are there now. No device is not an error. After an error
	// the devices of the last success are still believed to exist. Probe is called by one
	// goroutine at a time; what it returns is the caller's.
	Probe(ctx context.Context) ([]*pb.Device, error)
}

// Inventory is what a node has. Devices are in order of vendor, index and ID. It is
// immutable once it has been handed out.
type Inventory struct {
	Host    Host
	Devices []*pb.Device
}

// equal says whether nothing that a server would want to know has changed.
func (inv Inventory) equal(other Inventory) bool {
	return inv.Host.equal(other.Host) && slices.EqualFunc(inv.Devices, other.Devices, func(a, b *pb.Device) bool {
		return proto.Equal(a, b)
	})
}

// merge joins what the probers found into one ordered list. An ID that is listed twice keeps
// its first device, so that nothing can be granted twice; the others are returned as extra.
func merge(lists ...[]*pb.Device) (devices []*pb.Device, extra []string) {
	seen := map[string]bool{}
	for _, list := range lists {
		for _, d := range list {
			if seen[d.Id] || len(devices) == DevicesMax {
				extra = append(extra, d.Id)
				continue
			}
			seen[d.Id] = true
			devices = append(devices, d)
		}
	}
	slices.SortStableFunc(devices, func(a, b *pb.Device) int {
		return cmp.Or(cmp.Compare(a.Vendor, b.Vendor), cmp.Compare(a.Index, b.Index), cmp.Compare(a.Id, b.Id))
	})
	return devices, extra
}

// stale copies devices as they are seen when their prober is silent. A device that had
// failed stays failed: that is the graver news.
func stale(devices []*pb.Device, reason string) []*pb.Device {
	out := make([]*pb.Device, len(devices))
	for i, d := range devices {
		out[i] = proto.Clone(d).(*pb.Device)
		if d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK {
			out[i].Health, out[i].Reason = pb.DeviceHealth_DEVICE_HEALTH_STALE, reason
		}
	}
	return out
}
