package state

import (
	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

func checkAccounts(c *checker) {
	for n := range c.s.Nodes() {
		if c.s.Account(n.Id) == nil {
			c.fail("node %s has no account", n.Id)
		}
	}
	for a := range c.s.Accounts() {
		n := c.s.Node(a.NodeId)
		if n == nil {
			c.fail("account %s has no node", a.NodeId)
			continue
		}
		if a.CpuAllocated < 0 || a.CpuAllocated > a.CpuCapacity {
			c.fail("node %s has %d of %d millicores allocated", a.NodeId, a.CpuAllocated, a.CpuCapacity)
		}
		if a.MemoryAllocated < 0 || a.MemoryAllocated > a.MemoryCapacity {
			c.fail("node %s has %d of %d bytes allocated", a.NodeId, a.MemoryAllocated, a.MemoryCapacity)
		}
		if want := settled(n, a); !proto.Equal(want, a) {
			c.fail("the account of node %s does not agree with the node: it is {%v}, and should be {%v}", n.Id, a, want)
		}
	}
}

func checkDevices(c *checker) {
	for a := range c.s.Accounts() {
		n := c.s.Node(a.NodeId)
		if len(a.Devices) != len(n.GetDevices()) {
			c.fail("node %s has %d devices and %d pages", a.NodeId, len(n.GetDevices()), len(a.Devices))
		}
		for _, d := range n.GetDevices() {
			p := pageOf(a, d.Id)
			if p == nil {
				c.fail("device %s of node %s has no page", d.Id, n.Id)
			} else if p.Available != (d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK) {
				c.fail("device %s of node %s is %s, and its page says available=%t", d.Id, n.Id, Word(d.Health), p.Available)
			}
		}
		for i, p := range a.Devices {
			if i > 0 && a.Devices[i-1].DeviceId >= p.DeviceId {
				c.fail("page %s of node %s is out of order", p.DeviceId, a.NodeId)
			}
			if p.ShareAllocated < 0 || p.ShareAllocated > shareWhole {
				c.fail("device %s of node %s has %d of 1000 shares allocated", p.DeviceId, a.NodeId, p.ShareAllocated)
			}
			if p.MemoryAllocated < 0 || p.MemoryAllocated > p.MemoryCapacity {
				c.fail("device %s of node %s has %d of %d bytes allocated", p.DeviceId, a.NodeId, p.MemoryAllocated, p.MemoryCapacity)
			}
		}
	}
}

type deviceKey struct{ node, device string }

type holding struct {
	cpu, memory int64
	ports       int
}

type deviceHolding struct {
	share   int64
	memory  int64
	holders []string
	whole   bool
}

// holdings sums the allocations by node and by device.
func holdings(s *State) (map[string]holding, map[deviceKey]deviceHolding) {
	nodes, devices := map[string]holding{}, map[deviceKey]deviceHolding{}
	for a := range s.Allocations() {
		h := nodes[a.NodeId]
		h.cpu += a.CpuMilli
		h.memory += a.MemoryBytes
		h.ports += len(a.Ports)
		nodes[a.NodeId] = h
		for _, g := range a.Devices {
			key := deviceKey{a.NodeId, g.DeviceId}
			d := devices[key]
			d.share += int64(g.ShareMilli)
			d.memory += g.MemoryBytes
			d.holders = append(d.holders, a.TaskId)
			d.whole = d.whole || g.ShareMilli == shareWhole
			devices[key] = d
		}
	}
	return nodes, devices
}

func checkSums(c *checker) {
	nodes, devices := holdings(c.s)
	for a := range c.s.Accounts() {
		h := nodes[a.NodeId]
		delete(nodes, a.NodeId)
		if h.cpu != a.CpuAllocated || h.memory != a.MemoryAllocated || h.ports != len(a.PortsAllocated) {
			c.fail("node %s: allocations hold %d millicores, %d bytes, %d ports; its account says %d, %d, %d", a.NodeId,
				h.cpu, h.memory, h.ports, a.CpuAllocated, a.MemoryAllocated, len(a.PortsAllocated))
		}
		for _, p := range a.Devices {
			key := deviceKey{a.NodeId, p.DeviceId}
			d := devices[key]
			delete(devices, key)
			if d.share != int64(p.ShareAllocated) || d.memory != p.MemoryAllocated {
				c.fail("device %s of node %s: allocations hold %d thousandths, %d bytes; its page says %d, %d", p.DeviceId, a.NodeId,
					d.share, d.memory, p.ShareAllocated, p.MemoryAllocated)
			}
		}
	}
	if len(nodes) > 0 || len(devices) > 0 {
		c.fail("allocations hold something of %d nodes and %d devices that have no account", len(nodes), len(devices))
	}
}

func checkPorts(c *checker) {
	held := map[string]map[int32]string{}
	for a := range c.s.Allocations() {
		ports := held[a.NodeId]
		if ports == nil {
			ports = map[int32]string{}
			held[a.NodeId] = ports
		}
		for _, p := range a.Ports {
			if other, taken := ports[p]; taken {
				c.fail("port %d of node %s is held by %s and %s", p, a.NodeId, other, a.TaskId)
			}
			ports[p] = a.TaskId
		}
	}
	for a := range c.s.Accounts() {
		for i, p := range a.PortsAllocated {
			if p < 1 || p > 65535 || i > 0 && a.PortsAllocated[i-1] >= p {
				c.fail("port %d of node %s is out of order", p, a.NodeId)
			}
			if held[a.NodeId][p] == "" {
				c.fail("port %d of node %s is allocated to nobody", p, a.NodeId)
			}
		}
	}
}

func checkHolders(c *checker) {
	for r := range values(c.s.tasks.Root(), nil) {
		k := r.rec
		a := c.s.Allocation(k.Id)
		switch {
		case a == nil && TaskLive(k.State):
			c.fail("live task %s holds no allocation", k.Id)
		case a != nil && !TaskLive(k.State) && k.State != pb.TaskState_TASK_STATE_LOST:
			c.fail("task %s is %s and holds an allocation", k.Id, Word(k.State))
		case a != nil && (a.JobId != k.JobId || a.Epoch != k.Epoch || a.NodeId != k.NodeId):
			c.fail("the allocation of task %s is of job %s, epoch %d, node %s", k.Id, a.JobId, a.Epoch, a.NodeId)
		}
	}
	for a := range c.s.Allocations() {
		if c.s.Task(a.TaskId) == nil {
			c.fail("the allocation of %s is of no task", a.TaskId)
		}
	}
}

func checkWholeDevices(c *checker) {
	_, devices := holdings(c.s)
	for a := range c.s.Accounts() {
		for _, p := range a.Devices {
			d := devices[deviceKey{a.NodeId, p.DeviceId}]
			if d.whole && len(d.holders) > 1 {
				c.fail("device %s of node %s is held by %v", p.DeviceId, a.NodeId, d.holders)
			}
		}
	}
}
