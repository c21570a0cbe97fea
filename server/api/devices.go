package api

import (
	"context"
	"strconv"
	"strings"
	"time"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Limits of what is asked of an agent on behalf of an operator.
const (
	divideTimeout  = 2 * time.Minute // the driver makes and destroys slices, which takes seconds each
	repairTimeout  = 20 * time.Second
	profilesMost   = 16 // slices of one GPU
	profileNameMax = 32
)

// DivideGPU has the agent of a node make MIG slices of a GPU, once the ledger says that nothing
// of it is held. The agent checks again: it alone knows what runs now.
func (s *cluster) DivideGPU(ctx context.Context, req *pb.DivideGPURequest) (*pb.DivideGPUResponse, error) {
	if err := checkName("device_id", req.GetDeviceId(), nameMax); err != nil {
		return nil, err
	}
	if len(req.GetProfiles()) > profilesMost {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%d slices of one GPU, at most %d", len(req.Profiles), profilesMost).At("profiles", 0)
	}
	for _, p := range req.GetProfiles() {
		if p == "" || len(p) > profileNameMax {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%.40q is not a MIG profile", p).At("profiles", 0).Hint("write them as in 1g.10gb")
		}
	}
	st, node, err := s.connected(ctx, req.GetNodeId())
	if err != nil {
		return nil, err
	}
	gpu, err := gpuOf(node, req.GetDeviceId())
	if err != nil {
		return nil, err
	}
	if err := unheld(st, node, gpu); err != nil {
		return nil, err
	}
	agent, err := s.agentOf(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, divideTimeout)
	defer cancel()
	resp, err := agent.DivideGPU(ctx, &pb.DivideGPURequest{NodeId: node.Id, DeviceId: gpu, Profiles: req.Profiles})
	if err != nil {
		return nil, unanswered(node, err)
	}
	s.log.Info("GPU divided", "node", node.Id, "name", node.Name, "gpu", gpu, "profiles", strings.Join(req.Profiles, ","), "user", userOf(ctx))
	return resp, nil
}

// RepairNode tells the agent of a node that what XID errors were held against has been repaired.
func (s *cluster) RepairNode(ctx context.Context, req *pb.RepairNodeRequest) (*pb.RepairNodeResponse, error) {
	_, node, err := s.connected(ctx, req.GetNodeId())
	if err != nil {
		return nil, err
	}
	id := ""
	if req.GetDeviceId() != "" {
		if id, err = deviceOf(node, req.GetDeviceId()); err != nil {
			return nil, err
		}
	}
	agent, err := s.agentOf(node)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, repairTimeout)
	defer cancel()
	resp, err := agent.RepairNode(ctx, &pb.RepairNodeRequest{NodeId: node.Id, DeviceId: id})
	if err != nil {
		return nil, unanswered(node, err)
	}
	s.log.Info("node repaired", "node", node.Id, "name", node.Name, "device", id, "cleared", len(resp.Cleared), "user", userOf(ctx))
	return resp, nil
}

// connected finds a node whose agent can be asked.
func (s *cluster) connected(ctx context.Context, name string) (*state.State, *pb.Node, error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, nil, err
	}
	node, err := findNode(st, name)
	if err != nil {
		return nil, nil, err
	}
	if node.State != pb.NodeState_NODE_STATE_READY {
		return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "node %s is %s", node.Name, state.Word(node.State)).
			Hint("start its agent first").At("node_id", 0)
	}
	return st, node, nil
}

// unanswered tells an agent that does not answer from one that refused. It is a CONFLICT and not
// UNAVAILABLE: the cluster did answer, and asking at once again would give no more.
func unanswered(node *pb.Node, err error) error {
	err = fault.Crossed(err, true)
	switch fault.Kind(err) {
	case pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_UNKNOWN, pb.ErrorKind_ERROR_KIND_TIMEOUT:
		return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "node %s (%s) does not answer, and may have done it or not", node.Name, node.Addr).
			Hint("look at its agent's log; llmos devices %s says how it is", node.Name)
	}
	return err
}

func (s *cluster) agentOf(node *pb.Node) (pb.AgentServiceClient, error) {
	conn, err := s.b.AgentConn(node.Addr)
	if err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "reach node %s: %w", node.Name, err)
	}
	return pb.NewAgentServiceClient(conn), nil
}

// deviceOf gives the ID of a device that is named by its ID or its index. An index that several
// devices share, slices of one GPU, names none.
func deviceOf(node *pb.Node, name string) (string, error) {
	index, err := strconv.Atoi(name)
	found := ""
	for _, d := range node.Devices {
		if d.Id == name {
			return d.Id, nil
		}
		if err == nil && int(d.Index) == index {
			if found != "" {
				return "", fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "several devices of node %s have the index %d", node.Name, index).
					Hint("name one by its ID: llmos devices %s", node.Name).At("device_id", 0)
			}
			found = d.Id
		}
	}
	if found == "" {
		return "", noDevice(node, name)
	}
	return found, nil
}

// gpuOf gives the UUID of a GPU that is named by its UUID, the UUID of one of its slices, or its index.
func gpuOf(node *pb.Node, name string) (string, error) {
	index, err := strconv.Atoi(name)
	for _, d := range node.Devices {
		whole := d.Parent
		if whole == "" {
			whole = d.Id
		}
		if d.Id == name || whole == name || err == nil && int(d.Index) == index {
			return whole, nil
		}
	}
	return "", noDevice(node, name)
}

func noDevice(node *pb.Node, name string) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "node %s has no device %q", node.Name, name).
		Hint("llmos devices %s lists them", node.Name).At("device_id", 0)
}

// unheld refuses a GPU of which the ledger says that a task holds it or a slice of it.
func unheld(st *state.State, node *pb.Node, gpu string) error {
	parts := map[string]bool{gpu: true}
	for _, d := range node.Devices {
		if d.Parent == gpu {
			parts[d.Id] = true
		}
	}
	for t := range st.NodeTasks(node.Id) {
		for _, g := range st.Allocation(t.Id).GetDevices() {
			if parts[g.DeviceId] {
				return fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "task %s holds device %s", t.Id, g.DeviceId).
					Hint("llmos drain %s and wait, or llmos stop %s", node.Name, t.JobId).At("device_id", 0)
			}
		}
	}
	return nil
}
