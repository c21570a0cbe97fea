package state

import (
	"iter"
	"slices"

	pb "llmos/proto/llmos/v1"
)

// Node gives the node of an ID; nil when there is none.
func (s *State) Node(id string) *pb.Node { return lookup(s.nodes, []byte(id)) }

// Nodes walks the nodes by ID.
func (s *State) Nodes() iter.Seq[*pb.Node] { return records(s.nodes, nil) }

// NodeByName gives the node of a name; nil when there is none. When a forgotten host's name was
// taken again, the node that is ready, else the one registered last, is meant.
func (s *State) NodeByName(name string) *pb.Node {
	var best *pb.Node
	for id := range values(s.nodeNames.Root(), terminated(name)) {
		n := s.Node(id)
		ready := n.State == pb.NodeState_NODE_STATE_READY
		if best == nil || ready || best.State != pb.NodeState_NODE_STATE_READY && n.RegisteredMs > best.RegisteredMs {
			best = n
		}
	}
	return best
}

// Node gives the node of an ID; nil when there is none.
func (t *Txn) Node(id string) *pb.Node { return t.nodes.rec([]byte(id)) }

// NodeCount is the number of nodes.
func (t *Txn) NodeCount() int { return t.nodes.len() }

// NameHolder gives another node that holds a name: it is ready, or resources are taken on it.
func (t *Txn) NameHolder(name, exceptID string) *pb.Node {
	for _, id := range t.nodeNames.collect(terminated(name), -1) {
		n := t.Node(id)
		if id == exceptID {
			continue
		}
		if n.State == pb.NodeState_NODE_STATE_READY || len(t.nodeTasks.collect(terminated(id), 1)) > 0 {
			return n
		}
	}
	return nil
}

// CopyNode copies a node so that its fields can be set. Devices and labels are shared: replace
// them, do not change them.
func CopyNode(n *pb.Node) *pb.Node {
	return &pb.Node{Id: n.Id, Name: n.Name, Addr: n.Addr, State: n.State, BootId: n.BootId, Version: n.Version,
		CpuMilli: n.CpuMilli, MemoryBytes: n.MemoryBytes, PortMin: n.PortMin, PortMax: n.PortMax,
		Devices: slices.Clip(n.Devices), Labels: n.Labels, RegisteredMs: n.RegisteredMs, StateSinceMs: n.StateSinceMs,
		ModifyIndex: n.ModifyIndex, NumaNodes: n.NumaNodes, Os: n.Os, CpuModel: n.CpuModel, Drain: n.Drain,
		Unfit: n.Unfit, Interfaces: n.Interfaces, HugePages: n.HugePages, DiskBytes: n.DiskBytes}
}

// PutNode writes a node, new or changed, and brings its account in line: capacity, devices and
// whether they are available. An illegal transition is refused.
func (t *Txn) PutNode(n *pb.Node) *pb.Fault {
	key := []byte(n.Id)
	old := t.nodes.rec(key)
	if f := checkTransition(nodeTransitions, "node", n.Id, old.GetState(), n.State); f != nil {
		return f
	}
	n.ModifyIndex = t.index
	if old != nil && old.Name != n.Name {
		t.nodeNames.remove(terminated(old.Name, n.Id))
	}
	t.nodeNames.put(terminated(n.Name, n.Id), n.Id)
	account := settled(n, t.Account(n.Id))
	t.accounts.putRec(key, account)
	t.nodes.putRec(key, withGone(n, old, account))
	return nil
}

// RemoveNode forgets a node, its account and its events. It must hold nothing.
func (t *Txn) RemoveNode(id string) {
	n := t.Node(id)
	if n == nil {
		return
	}
	t.nodes.removeRec([]byte(id))
	t.nodeNames.remove(terminated(n.Name, id))
	t.accounts.removeRec([]byte(id))
	t.forgetEvents(nodeScope(id))
}
