package fsm

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// registerNode inserts a node or takes what it reports about itself now; the node is ready
// afterwards. A report that changes nothing changes nothing.
func (a *applier) registerNode(c *pb.RegisterNode) *pb.Fault {
	n := c.GetNode()
	worst := pb.DeviceHealth_DEVICE_HEALTH_GONE
	if a.keepsDevices() {
		worst = pb.DeviceHealth_DEVICE_HEALTH_BLOCKED
	}
	if f := checkNode(n, worst); f != nil {
		return f
	}
	if holder := a.txn.NameHolder(n.Name, n.Id); holder != nil {
		f := state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT,
			fmt.Sprintf("start the agent with another --name, or forget the other node with llmos nodes rm %s", holder.Id),
			"the name %s is taken by node %s", n.Name, holder.Id)
		f.Field = "name"
		return f
	}
	old := a.txn.Node(n.Id)
	if count := a.txn.NodeCount(); old == nil && count >= nodesMax {
		return limit("remove nodes that are gone", "the cluster has %d nodes already", count)
	}
	next := state.CopyNode(n)
	next.State, next.RegisteredMs, next.StateSinceMs = pb.NodeState_NODE_STATE_READY, a.txn.TimeMS(), a.txn.TimeMS()
	next.Drain = old.GetDrain() // an operator's, not the node's
	if !a.keepsDevices() {
		next.Unfit, next.Interfaces, next.HugePages, next.DiskBytes = "", nil, nil, 0
	}
	next.Unfit = cut(next.Unfit)
	if old != nil {
		next.RegisteredMs = old.RegisteredMs
		if old.State == pb.NodeState_NODE_STATE_READY {
			next.StateSinceMs, next.ModifyIndex = old.StateSinceMs, old.ModifyIndex
			if sameReport(next, old) {
				return nil
			}
		}
	}
	if f := a.txn.PutNode(next); f != nil {
		return f
	}
	a.nodeEvents(old, a.txn.Node(n.Id))
	return nil
}

// sameReport compares a report with the node as it is, but for devices that are gone.
func sameReport(next, old *pb.Node) bool {
	was := state.CopyNode(old)
	was.Devices = slices.DeleteFunc(slices.Clone(old.Devices), func(d *pb.Device) bool {
		return d.Health == pb.DeviceHealth_DEVICE_HEALTH_GONE
	})
	return proto.Equal(next, was)
}

func (a *applier) nodeEvents(old, n *pb.Node) {
	switch {
	case old == nil:
		a.event("node.registered", "", "", n.Id, "node %s joined with %d devices", n.Name, len(n.Devices))
		return
	case old.BootId != n.BootId:
		a.event("node.rebooted", "", "", n.Id, "node %s has started again", n.Name)
	case old.State != n.State:
		a.event("node.ready", "", "", n.Id, "node %s answers again", n.Name)
	default:
		a.event("node.changed", "", "", n.Id, "node %s reports other capacity, devices or details", n.Name)
	}
	switch {
	case old.Unfit != n.Unfit && n.Unfit != "":
		a.event("node.unfit", "", "", n.Id, "node %s takes no new work: %s", n.Name, n.Unfit)
	case old.Unfit != n.Unfit:
		a.event("node.fit", "", "", n.Id, "node %s takes new work again", n.Name)
	}
	for _, d := range n.Devices {
		i := slices.IndexFunc(old.Devices, func(o *pb.Device) bool { return o.Id == d.Id })
		if i >= 0 && old.Devices[i].Health != d.Health {
			why := ""
			if d.Reason != "" && a.keepsDevices() {
				why = ": " + cut(d.Reason)
			}
			a.event("device.health", "", "", n.Id, "device %s went from %s to %s%s", d.Id, state.Word(old.Devices[i].Health), state.Word(d.Health), why)
		}
	}
}

// checkNode refuses a report that cannot be; worst is the last health that is known.
func checkNode(n *pb.Node, worst pb.DeviceHealth) *pb.Fault {
	switch {
	case !state.ValidID(n.GetId()):
		return invalid("node.id", "%q cannot be a node's ID", cut(n.GetId()))
	case !state.ValidID(n.Name):
		return invalid("node.name", "%q cannot be a node's name", cut(n.Name))
	case len(n.Addr) > textBytesMax:
		return invalid("node.addr", "the address is %d bytes long, at most %d", len(n.Addr), textBytesMax)
	case !quantity(n.CpuMilli):
		return invalid("node.cpu_milli", "%d millicores are not possible", n.CpuMilli)
	case !quantity(n.MemoryBytes):
		return invalid("node.memory_bytes", "%d bytes are not possible", n.MemoryBytes)
	case n.PortMin < 0 || n.PortMax > 65535 || n.PortMin > n.PortMax:
		return invalid("node.port_min", "ports %d to %d are not possible", n.PortMin, n.PortMax)
	case len(n.Devices) > devicesMax:
		return invalid("node.devices", "the node has %d devices, at most %d", len(n.Devices), devicesMax)
	case len(n.Labels) > labelsMax:
		return invalid("node.labels", "the node has %d labels, at most %d", len(n.Labels), labelsMax)
	case proto.Size(n) > nodeBytesMax:
		return invalid("node", "the node's record is %d bytes long, at most %d", proto.Size(n), nodeBytesMax)
	}
	seen := make(map[string]bool, len(n.Devices))
	for i, d := range n.Devices {
		field := fmt.Sprintf("node.devices[%d]", i)
		switch {
		case !state.ValidID(d.GetId()):
			return invalid(field+".id", "%q cannot be a device's ID", cut(d.GetId()))
		case seen[d.Id]:
			return invalid(field+".id", "device %s is there twice", d.Id)
		case !quantity(d.MemoryBytes):
			return invalid(field+".memory_bytes", "%d bytes are not possible", d.MemoryBytes)
		case d.Health < pb.DeviceHealth_DEVICE_HEALTH_OK || d.Health > worst:
			return invalid(field+".health", "device %s has no health", d.Id)
		}
		seen[d.Id] = true
	}
	return nil
}

// setNodeState takes what the leader knows of a node's sessions.
func (a *applier) setNodeState(c *pb.SetNodeState) *pb.Fault {
	old := a.txn.Node(c.NodeId)
	if old == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "", "there is no node %q", cut(c.NodeId))
	}
	kind, known := nodeStateEvents[c.State]
	if !known {
		return invalid("state", "%d is no state of a node", c.State)
	}
	if old.State == c.State {
		return nil
	}
	next := state.CopyNode(old)
	next.State, next.StateSinceMs = c.State, a.txn.TimeMS()
	if f := a.txn.PutNode(next); f != nil {
		return f
	}
	why := ""
	if c.Reason != "" {
		why = ": " + cut(c.Reason)
	}
	a.event(kind, "", "", old.Id, "node %s is %s%s", old.Name, kind[len("node."):], why)
	return nil
}

var nodeStateEvents = map[pb.NodeState]string{
	pb.NodeState_NODE_STATE_READY:  "node.ready",
	pb.NodeState_NODE_STATE_SILENT: "node.silent",
	pb.NodeState_NODE_STATE_LOST:   "node.lost",
}

// removeNode forgets a node. What lost tasks still hold there is released: the operator vouches
// that the host is gone.
func (a *applier) removeNode(c *pb.RemoveNode) *pb.Fault {
	n := a.txn.Node(c.NodeId)
	if n == nil {
		return state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos nodes lists them", "there is no node %q", cut(c.NodeId))
	}
	tasks := a.txn.NodeTasks(n.Id)
	for _, task := range tasks {
		if state.TaskLive(task.State) { // said first: it holds for silent nodes too
			return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT,
				fmt.Sprintf("stop the job with llmos stop %s, or wait until its tasks are lost", task.JobId),
				"node %s runs task %s", n.Name, task.Id)
		}
	}
	if n.State == pb.NodeState_NODE_STATE_READY { // its agent would go on, and be nobody
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "stop its agent first, and wait until the node is silent",
			"node %s is connected", n.Name)
	}
	for _, task := range tasks {
		a.release(task)
		a.event("task.released", task.JobId, task.Id, n.Id, "node %s was removed; what rank %d held is gone with it", n.Name, task.Rank)
	}
	if f := a.dropSlots(n.Id); f != nil {
		return f
	}
	a.unreserve(n.Id)
	if f := a.dropHoldings(n.Id); f != nil {
		return f
	}
	a.txn.RemoveNode(n.Id)
	a.event("node.removed", "", "", "", "node %s (%s) was removed", n.Name, n.Id)
	return nil
}
