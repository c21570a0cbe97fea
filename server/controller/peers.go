package controller

import (
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// peers lists where the tasks of an attempt are, by rank, for a framework whose ranks must know
// all of them. The port of each is the one that its role names after the framework.
func (c *Controller) peers(t *pb.Task, framework pb.Framework) []*pb.Peer {
	if framework != pb.Framework_FRAMEWORK_TENSORFLOW && framework != pb.Framework_FRAMEWORK_MPI {
		return nil
	}
	name := strings.ToLower(strings.TrimPrefix(framework.String(), "FRAMEWORK_"))
	roles := map[string]*pb.RoleSpec{}
	for _, r := range c.st.Job(t.JobId).GetSpec().GetRoles() {
		roles[r.Name] = r
	}
	var tasks []*pb.Task
	for other := range c.st.JobTasks(t.JobId, t.Epoch) {
		tasks = append(tasks, other)
	}
	slices.SortFunc(tasks, func(a, b *pb.Task) int { return int(a.Rank) - int(b.Rank) })
	peers := make([]*pb.Peer, 0, len(tasks))
	for _, other := range tasks {
		p := &pb.Peer{Role: other.Role, Index: other.Index, Host: hostOf(c.st.Node(other.NodeId).GetAddr())}
		allocation := c.st.Allocation(other.Id)
		ports := allocation.GetPorts()
		if allocation.GetHoldsRendezvous() && len(ports) > 0 {
			ports = ports[1:]
		}
		if i := slices.Index(roles[other.Role].GetPorts(), name); i >= 0 && i < len(ports) {
			p.Port = ports[i]
		}
		peers = append(peers, p)
	}
	return peers
}

// hostOf gives the host of host:port.
func hostOf(addr string) string {
	if i := strings.LastIndexByte(addr, ':'); i >= 0 {
		addr = addr[:i]
	}
	return strings.TrimSuffix(strings.TrimPrefix(addr, "["), "]")
}
