package state

import (
	"iter"
	"slices"

	pb "llmos/proto/llmos/v1"
)

// The ledger is a double-entry book: an allocation and the allocated amounts of its node's
// account are always written together, here and nowhere else.

// Allocation gives what a task holds; nil when it holds nothing.
func (s *State) Allocation(taskID string) *pb.Allocation {
	key, ok := taskIDKey(taskID)
	if !ok {
		return nil
	}
	return lookup(s.allocations, key)
}

// Allocations walks all allocations by job, epoch and rank.
func (s *State) Allocations() iter.Seq[*pb.Allocation] { return records(s.allocations, nil) }

// Allocation gives what a task holds; nil when it holds nothing.
func (t *Txn) Allocation(taskID string) *pb.Allocation {
	key, ok := taskIDKey(taskID)
	if !ok {
		return nil
	}
	return t.allocations.rec(key)
}

// Grant moves resources from a node's account to a task that was written before. It is refused
// with NO_CAPACITY when the node or a device is not available or has not enough left, and with
// INVALID when the allocation contradicts itself; then nothing has changed.
func (t *Txn) Grant(task *pb.Task, a *pb.Allocation) *pb.Fault {
	account := t.Account(a.NodeId)
	if account == nil {
		return Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "plan again", "there is no node %q", a.NodeId)
	}
	key := taskKey(task.JobId, task.Epoch, task.Rank)
	if _, held := t.allocations.get(key); held {
		return defect("task %s holds an allocation already", task.Id)
	}
	next := copyAccount(account)
	if f := debit(next, a); f != nil {
		return f
	}
	t.accounts.putRec([]byte(a.NodeId), next)
	t.allocations.putRec(key, a)
	t.nodeTasks.put(nodeTaskKey(a.NodeId, key), task)
	return nil
}

// debit takes an allocation out of an account that the caller owns.
func debit(next *pb.NodeAccount, a *pb.Allocation) *pb.Fault {
	if !next.Available {
		return short("node %s is not ready", a.NodeId)
	}
	if free := next.CpuCapacity - next.CpuAllocated; a.CpuMilli < 0 || a.CpuMilli > free {
		return short("node %s has %d of %d millicores free, and the task asks for %d", a.NodeId, free, next.CpuCapacity, a.CpuMilli)
	}
	if free := next.MemoryCapacity - next.MemoryAllocated; a.MemoryBytes < 0 || a.MemoryBytes > free {
		return short("node %s has %d of %d bytes of memory free, and the task asks for %d", a.NodeId, free, next.MemoryCapacity, a.MemoryBytes)
	}
	next.CpuAllocated += a.CpuMilli
	next.MemoryAllocated += a.MemoryBytes
	for _, port := range a.Ports {
		if port <= 0 || port < next.PortMin || port > next.PortMax {
			return short("port %d is not one that node %s gives to tasks (%d to %d)", port, a.NodeId, next.PortMin, next.PortMax)
		}
		at, taken := slices.BinarySearch(next.PortsAllocated, port)
		if taken {
			return short("port %d of node %s is taken", port, a.NodeId)
		}
		next.PortsAllocated = slices.Insert(slices.Clip(next.PortsAllocated), at, port)
	}
	for i, g := range a.Devices {
		if slices.ContainsFunc(a.Devices[:i], func(o *pb.DeviceGrant) bool { return o.DeviceId == g.DeviceId }) {
			return Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "task %s is given device %s twice", a.TaskId, g.DeviceId)
		}
		if f := debitDevice(next, g); f != nil {
			return f
		}
	}
	return nil
}

func debitDevice(next *pb.NodeAccount, g *pb.DeviceGrant) *pb.Fault {
	p, at := page(next, g.DeviceId)
	switch {
	case p == nil:
		return short("node %s has no device %s", next.NodeId, g.DeviceId)
	case !p.Available:
		return short("device %s of node %s is not available", g.DeviceId, next.NodeId)
	case g.ShareMilli < 1 || g.ShareMilli > shareWhole || g.MemoryBytes < 0:
		return Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", "a grant of %d thousandths and %d bytes of device %s is not possible",
			g.ShareMilli, g.MemoryBytes, g.DeviceId)
	case g.ShareMilli > shareWhole-p.ShareAllocated:
		return short("device %s of node %s has %d thousandths free, and the task asks for %d", g.DeviceId, next.NodeId,
			shareWhole-p.ShareAllocated, g.ShareMilli)
	case g.MemoryBytes > p.MemoryCapacity-p.MemoryAllocated:
		return short("device %s of node %s has %d bytes free, and the task asks for %d", g.DeviceId, next.NodeId,
			p.MemoryCapacity-p.MemoryAllocated, g.MemoryBytes)
	}
	p = copyPage(p)
	p.ShareAllocated += g.ShareMilli
	p.MemoryAllocated += g.MemoryBytes
	next.Devices[at] = p
	return nil
}

func short(format string, args ...any) *pb.Fault {
	return Refuse(pb.ErrorKind_ERROR_KIND_NO_CAPACITY, "plan again with the newest state", format, args...)
}

// Release moves what a task holds back to its node's account and gives what that was. A task that
// holds nothing is left as it is, and nil given. Capacity that the node no longer has leaves the
// account now.
func (t *Txn) Release(task *pb.Task) *pb.Allocation {
	key := taskKey(task.JobId, task.Epoch, task.Rank)
	held, ok := t.allocations.get(key)
	if !ok {
		return nil
	}
	a := held.rec
	t.allocations.removeRec(key)
	t.nodeTasks.remove(nodeTaskKey(a.NodeId, key))
	t.touch(task.JobId)
	next := copyAccount(t.Account(a.NodeId))
	next.CpuAllocated -= a.CpuMilli
	next.MemoryAllocated -= a.MemoryBytes
	if len(a.Ports) > 0 {
		next.PortsAllocated = slices.DeleteFunc(slices.Clone(next.PortsAllocated), func(p int32) bool { return slices.Contains(a.Ports, p) })
	}
	trim := false
	for _, g := range a.Devices {
		p, at := page(next, g.DeviceId)
		p = copyPage(p)
		p.ShareAllocated -= g.ShareMilli
		p.MemoryAllocated -= g.MemoryBytes
		next.Devices[at] = p
		trim = trim || !p.Available
	}
	n := t.Node(a.NodeId)
	if trim || next.CpuCapacity != n.CpuMilli || next.MemoryCapacity != n.MemoryBytes || overstated(n, a, next) {
		t.trim(n, next)
		return a
	}
	t.accounts.putRec([]byte(a.NodeId), next)
	return a
}

// overstated reports whether a device that was released had more capacity in its page, because
// it was taken, than the node reports.
func overstated(n *pb.Node, a *pb.Allocation, next *pb.NodeAccount) bool {
	for _, g := range a.Devices {
		for _, d := range n.Devices {
			if d.Id == g.DeviceId && pageOf(next, d.Id).MemoryCapacity != d.MemoryBytes {
				return true
			}
		}
	}
	return false
}

// trim settles an account after a release, and drops the devices that are gone from both sides.
func (t *Txn) trim(n *pb.Node, next *pb.NodeAccount) {
	account := settled(n, next)
	t.accounts.putRec([]byte(n.Id), account)
	if len(account.Devices) == len(n.Devices) {
		return
	}
	n = CopyNode(n)
	n.ModifyIndex = t.index
	t.nodes.putRec([]byte(n.Id), withGone(n, nil, account))
}
