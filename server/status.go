package server

import (
	"context"
	"sync"
	"time"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// Limits of checking invariants, which reads the whole state.
const (
	checkEveryMin = time.Second
	checkShare    = 50 // the pause is at least so many times as long as a check takes
)

// checker runs state.Check where it is asked for, beside the applying of entries, and
// not more often than its cost allows.
type checker struct {
	mu    sync.Mutex
	state *state.State
	fault string
	next  time.Time
}

// Check gives what the newest check found in s, or in a state of a moment ago.
func (c *checker) Check(s *state.State) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	begun := time.Now()
	if s == c.state || begun.Before(c.next) {
		return c.fault
	}
	c.state, c.fault = s, ""
	if err := state.Check(s); err != nil {
		c.fault = err.Error()
	}
	took := time.Since(begun)
	c.next = time.Now().Add(max(checkEveryMin, checkShare*took))
	return c.fault
}

// ClusterStatus gives what this server knows of Raft, its state and its hash. What it
// knows of the other servers it knows as the leader alone. It asks nobody now, so local
// makes no difference here.
func (s *Server) ClusterStatus(_ context.Context, _ bool) *pb.ClusterStatus {
	st := s.fsm.State()
	hash := st.Hash()
	out := &pb.ClusterStatus{ClusterId: s.ClusterID(), ServerId: s.ServerID(), Version: s.cfg.Version,
		Term: s.raft.Term(), CommitIndex: s.raft.CommitIndex(), AppliedIndex: st.Index(),
		StateHash: hash[:], StateIndex: st.Index(), InvariantFault: s.checker.Check(st)}
	if meta := st.Cluster(); meta != nil {
		out.Name = meta.Name
	}
	out.LeaderId, out.LeaderAddr, _ = s.Leader()
	members, _, err := s.raft.Members()
	if err != nil {
		s.log.Debug("the servers could not be listed", "err", err)
	}
	for _, m := range members {
		v := &pb.ServerStatus{Id: m.ID, Addr: m.Addr, Voter: m.Voter, Leader: m.ID == out.LeaderId}
		if m.ID == s.ServerID() {
			v.Reachable, v.AppliedIndex = true, st.Index()
		} else if h, ok := s.members.Health(m.ID); ok {
			v.Reachable, v.AppliedIndex = h.OK, h.Applied
		}
		out.Servers = append(out.Servers, v)
	}
	return out
}
