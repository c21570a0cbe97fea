package agent

import (
	"maps"
	"slices"
	"sync"

	"google.golang.org/protobuf/proto"

	"llmos/agent/device"
	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

// nodeBox holds what this node says of itself. Safe for concurrent use.
type nodeBox struct {
	mu      sync.Mutex
	node    *pb.Node
	changed chan struct{} // closed at the next change
}

func newNodeBox(n *pb.Node) *nodeBox { return &nodeBox{node: n, changed: make(chan struct{})} }

// get gives the node, which is not changed any more, and what closes when there is a newer one.
func (b *nodeBox) get() (*pb.Node, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.node, b.changed
}

// deviceMemory gives the memory of a device in bytes; 0: there is none of this ID.
func (b *nodeBox) deviceMemory(id string) int64 {
	return b.device(id).GetMemoryBytes()
}

// update replaces the node by a changed copy.
func (b *nodeBox) update(change func(*pb.Node)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := proto.CloneOf(b.node)
	change(n)
	b.node = n
	close(b.changed)
	b.changed = make(chan struct{})
}

// device gives the device of an ID; nil: there is none.
func (b *nodeBox) device(id string) *pb.Device {
	n, _ := b.get()
	for _, d := range n.GetDevices() {
		if d.GetId() == id {
			return d
		}
	}
	return nil
}

// hasVendor says whether the node has devices of a vendor.
func (b *nodeBox) hasVendor(vendor string) bool {
	n, _ := b.get()
	return slices.ContainsFunc(n.GetDevices(), func(d *pb.Device) bool { return d.GetVendor() == vendor })
}

// describe gives the record of this node from its configuration and first inventory.
func describe(cfg Config, id, addr string, first device.Inventory) *pb.Node {
	n := &pb.Node{Id: id, Name: cfg.name(), Addr: addr, BootId: exec.BootID(), Version: cfg.Version,
		PortMin: int32(cfg.PortMin), PortMax: int32(cfg.PortMax), Labels: maps.Clone(cfg.Labels)}
	cfg.inventory(n, first)
	return n
}

// inventory writes what was found into the node, but for what the configuration fixes.
func (c Config) inventory(n *pb.Node, inv device.Inventory) {
	n.CpuMilli, n.MemoryBytes = inv.Host.CPUMilli, inv.Host.MemoryBytes
	if c.CPUMilli > 0 {
		n.CpuMilli = c.CPUMilli
	}
	if c.MemoryBytes > 0 {
		n.MemoryBytes = c.MemoryBytes
	}
	n.DiskBytes = device.DiskOf(c.DataDir).Bytes
	hostOf(n, inv.Host)
	n.Devices = inv.Devices
}
