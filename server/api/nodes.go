package api

import (
	"context"
	"time"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	tokenLifeDefault = time.Hour
	tokenLifeMost    = 30 * 24 * time.Hour
)

// ListNodes gives every registered node with its page of the ledger.
func (s *cluster) ListNodes(ctx context.Context, req *pb.ListNodesRequest) (*pb.ListNodesResponse, error) {
	st, err := s.state(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListNodesResponse{Index: st.Index()}
	for n := range st.Nodes() {
		v := &pb.NodeView{Node: n, Account: st.Account(n.Id)}
		for t := range st.NodeTasks(n.Id) {
			v.Tasks++
			if a := st.Allocation(t.Id); a != nil && req.GetDetail() {
				v.Allocations = append(v.Allocations, a)
			}
		}
		if req.GetDetail() {
			v.Sample = s.b.NodeSample(n.Id)
		}
		resp.Nodes = append(resp.Nodes, v)
	}
	return resp, nil
}

// RemoveNode forgets a node, named by ID or name, that holds no live task.
func (s *cluster) RemoveNode(ctx context.Context, req *pb.RemoveNodeRequest) (*pb.RemoveNodeResponse, error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return nil, err
	}
	node, err := findNode(st, req.GetNodeId())
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, &pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: node.Id}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("node removed", "node", node.Id, "name", node.Name, "user", userOf(ctx))
	return &pb.RemoveNodeResponse{}, nil
}

// GetStatus sums the cluster up: the server's own part, and the numbers from the state.
func (s *cluster) GetStatus(ctx context.Context, req *pb.GetStatusRequest) (*pb.ClusterStatus, error) {
	st, err := s.state(ctx, req.GetLocal())
	if err != nil {
		return nil, err
	}
	status := s.b.ClusterStatus(ctx, req.GetLocal())
	count(st, status)
	return status, nil
}

// count fills the numbers of nodes, devices and jobs.
func count(st *state.State, status *pb.ClusterStatus) {
	for n := range st.Nodes() {
		status.NodesTotal++
		if n.State == pb.NodeState_NODE_STATE_READY {
			status.NodesReady++
		}
	}
	for a := range st.Accounts() {
		for _, d := range a.Devices {
			status.DevicesTotal++
			if a.Available && d.Available && d.ShareAllocated == 0 {
				status.DevicesFree++
			}
		}
	}
	for job := range st.UnfinishedJobs() {
		if job.State == pb.JobState_JOB_STATE_PENDING {
			status.JobsPending++
		} else {
			status.JobsRunning++
		}
	}
}

// CreateJoinToken makes a token that admits one member once. The cluster keeps only the
// hash of its secret.
func (s *cluster) CreateJoinToken(ctx context.Context, req *pb.CreateJoinTokenRequest) (*pb.CreateJoinTokenResponse, error) {
	role, err := transport.ParseRole(transport.RoleName(req.GetRole()))
	if err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a token is for a server, an agent or a user").At("role", 0)
	}
	life := time.Duration(req.GetTtlMs()) * time.Millisecond
	if req.GetTtlMs() == 0 {
		life = tokenLifeDefault
	}
	if req.GetTtlMs() < 0 || req.GetTtlMs() > tokenLifeMost.Milliseconds() {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a token lives for at most %v", tokenLifeMost).At("ttl_ms", 0)
	}
	shown, record, err := s.b.NewJoinToken(role, life)
	if err != nil {
		return nil, err
	}
	_, err = s.propose(ctx, &pb.Command{Op: &pb.Command_CreateToken{CreateToken: &pb.CreateToken{Token: record}}})
	if err != nil {
		return nil, err
	}
	s.log.Info("join token made", "token", record.Id, "role", transport.RoleName(role), "user", userOf(ctx), "life", life)
	return &pb.CreateJoinTokenResponse{Token: shown, ExpiresMs: record.ExpiresMs}, nil
}
