package state

import (
	"cmp"
	"iter"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// shareWhole is a whole device, in thousandths.
const shareWhole = 1000

// Account gives a node's page of the ledger; nil when there is no such node.
func (s *State) Account(nodeID string) *pb.NodeAccount { return lookup(s.accounts, []byte(nodeID)) }

// Accounts walks the pages of the ledger by node ID.
func (s *State) Accounts() iter.Seq[*pb.NodeAccount] { return records(s.accounts, nil) }

// Account gives a node's page of the ledger; nil when there is no such node.
func (t *Txn) Account(nodeID string) *pb.NodeAccount { return t.accounts.rec([]byte(nodeID)) }

// settled makes a node's account agree with what the node reports. What is allocated stays: a
// quantity of which more is allocated than the node now has keeps the allocated amount as its
// capacity until it is released, and a device that is gone keeps its page until it is free.
func settled(n *pb.Node, old *pb.NodeAccount) *pb.NodeAccount {
	a := &pb.NodeAccount{NodeId: n.Id, Available: n.State == pb.NodeState_NODE_STATE_READY,
		CpuCapacity: max(n.CpuMilli, old.GetCpuAllocated()), CpuAllocated: old.GetCpuAllocated(),
		MemoryCapacity: max(n.MemoryBytes, old.GetMemoryAllocated()), MemoryAllocated: old.GetMemoryAllocated(),
		PortMin: n.PortMin, PortMax: n.PortMax, PortsAllocated: old.GetPortsAllocated()}
	for _, d := range n.Devices {
		page := &pb.DeviceAccount{DeviceId: d.Id, Model: d.Model, MemoryCapacity: d.MemoryBytes, Available: healthy(d)}
		if before := pageOf(old, d.Id); before != nil {
			page.ShareAllocated, page.MemoryAllocated = before.ShareAllocated, before.MemoryAllocated
			page.MemoryCapacity = max(page.MemoryCapacity, before.MemoryAllocated)
		}
		if d.Health != pb.DeviceHealth_DEVICE_HEALTH_GONE || page.ShareAllocated > 0 {
			a.Devices = append(a.Devices, page)
		}
	}
	for _, before := range old.GetDevices() {
		if before.ShareAllocated > 0 && !slices.ContainsFunc(n.Devices, func(d *pb.Device) bool { return d.Id == before.DeviceId }) {
			gone := copyPage(before)
			gone.Available = false
			a.Devices = append(a.Devices, gone)
		}
	}
	slices.SortFunc(a.Devices, func(x, y *pb.DeviceAccount) int { return cmp.Compare(x.DeviceId, y.DeviceId) })
	return a
}

// withGone gives the node with exactly the devices that its account has: those it reports, and
// behind them those that are gone but still held.
func withGone(n, old *pb.Node, a *pb.NodeAccount) *pb.Node {
	devices := make([]*pb.Device, 0, len(a.Devices))
	for _, d := range n.Devices {
		if pageOf(a, d.Id) != nil {
			devices = append(devices, d)
		}
	}
	for _, d := range old.GetDevices() {
		held := pageOf(a, d.Id) != nil
		known := slices.ContainsFunc(n.Devices, func(x *pb.Device) bool { return x.Id == d.Id })
		if held && !known {
			devices = append(devices, goneDevice(d))
		}
	}
	n.Devices = devices
	return n
}

func goneDevice(d *pb.Device) *pb.Device {
	return &pb.Device{Id: d.Id, Kind: d.Kind, Vendor: d.Vendor, Model: d.Model, MemoryBytes: d.MemoryBytes,
		Health: pb.DeviceHealth_DEVICE_HEALTH_GONE, Reason: "the node no longer reports it", Index: d.Index,
		NumaNode: d.NumaNode, BusId: d.BusId, Path: d.Path, Island: d.Island, MigProfile: d.MigProfile, Parent: d.Parent,
		PciePath: d.PciePath, Nvlinks: d.Nvlinks}
}

func healthy(d *pb.Device) bool { return d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK }

// page gives a device's page and its place; -1 when the account has none.
func page(a *pb.NodeAccount, deviceID string) (*pb.DeviceAccount, int) {
	i, ok := slices.BinarySearchFunc(a.GetDevices(), deviceID, func(p *pb.DeviceAccount, id string) int {
		return strings.Compare(p.DeviceId, id)
	})
	if !ok {
		return nil, -1
	}
	return a.Devices[i], i
}

func pageOf(a *pb.NodeAccount, deviceID string) *pb.DeviceAccount {
	p, _ := page(a, deviceID)
	return p
}

func copyPage(p *pb.DeviceAccount) *pb.DeviceAccount {
	return &pb.DeviceAccount{DeviceId: p.DeviceId, Model: p.Model, MemoryCapacity: p.MemoryCapacity, Available: p.Available,
		ShareAllocated: p.ShareAllocated, MemoryAllocated: p.MemoryAllocated}
}

// copyAccount copies an account. The pages of its devices and its ports are shared: replace
// them, do not change them.
func copyAccount(a *pb.NodeAccount) *pb.NodeAccount {
	return &pb.NodeAccount{NodeId: a.NodeId, Available: a.Available, CpuCapacity: a.CpuCapacity, CpuAllocated: a.CpuAllocated,
		MemoryCapacity: a.MemoryCapacity, MemoryAllocated: a.MemoryAllocated, PortMin: a.PortMin, PortMax: a.PortMax,
		PortsAllocated: a.PortsAllocated, Devices: slices.Clone(a.Devices)}
}

// DevicePage gives a device's page of an account; nil when the account has none.
func DevicePage(a *pb.NodeAccount, deviceID string) *pb.DeviceAccount { return pageOf(a, deviceID) }
