package server

import (
	"context"
	"time"
	_ "time/tzdata" // cron jobs name time zones, and a host may have none

	"google.golang.org/grpc"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
	"llmos/transport"
)

// tenureWait bounds the wait for a new leader's barrier before a call is refused.
const tenureWait = 2 * time.Second

// Propose replicates the commands as part of one entry; see proposer.Propose.
func (s *Server) Propose(ctx context.Context, cmds ...*pb.Command) ([]*pb.Result, error) {
	if err := s.awaitTenure(ctx); err != nil {
		return nil, err
	}
	return s.proposer.Propose(ctx, cmds...)
}

// Read gives a linearizable state; see reader.
func (s *Server) Read(ctx context.Context) (*state.State, error) {
	if err := s.awaitTenure(ctx); err != nil {
		return nil, err
	}
	return s.reads.Read(ctx)
}

// awaitTenure waits out the short time between winning an election and being ready.
func (s *Server) awaitTenure(ctx context.Context) error {
	if s.tenure.Load() != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, tenureWait)
	defer cancel()
	for s.raft.IsLeader() {
		if s.tenure.Load() != nil {
			return nil
		}
		select {
		case <-s.stopping:
			return stoppingFault()
		default:
		}
		if !pause(ctx, readyPoll) {
			return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "server %s has just become the leader and is not ready", s.ServerID()).
				Hint("nothing was done; try again in a moment")
		}
	}
	return s.notLeader()
}

// Stale gives this server's own state, which may lag.
func (s *Server) Stale() *state.State { return s.fsm.State() }

// Changed gives a channel that is closed at the next state.
func (s *Server) Changed() <-chan struct{} { return s.fsm.Changed() }

// Leader names the leader as this server knows it; isMe once this server is ready to serve as it.
func (s *Server) Leader() (id, addr string, isMe bool) {
	id, addr = s.raft.Leader()
	if id == s.ServerID() {
		return id, addr, s.tenure.Load() != nil && s.raft.IsLeader()
	}
	if now, ok := s.members.Locate(id); ok {
		addr = now
	}
	return id, addr, false
}

// LeaderConn gives a connection to the leader.
func (s *Server) LeaderConn(context.Context) (*grpc.ClientConn, error) {
	id, addr, _ := s.Leader()
	if id == "" || id == s.ServerID() {
		return nil, s.notLeader()
	}
	return s.conns.server(addr, id)
}

// AgentConn gives a connection to the agent at host:port.
func (s *Server) AgentConn(addr string) (*grpc.ClientConn, error) { return s.conns.agent(addr) }

// Explain asks the leader's controller why a pending job waits; nil when it does not know.
func (s *Server) Explain(jobID string) (x *pb.Explanation) {
	s.ask(func(c *controller.Controller) { x = c.Explain(jobID) })
	return x
}

// ExpectedEnd gives the predicted end of a running job; 0: unknown.
func (s *Server) ExpectedEnd(jobID string) (ms int64) {
	s.ask(func(c *controller.Controller) { ms = c.ExpectedEnd(jobID) })
	return ms
}

// Plan says what would happen to a job of this spec.
func (s *Server) Plan(ctx context.Context, spec *pb.JobSpec, user string) (*pb.PlanJobResponse, error) {
	t := s.tenure.Load()
	if t == nil {
		return nil, s.notLeader()
	}
	select {
	case t.drying <- struct{}{}:
		defer func() { <-t.drying }()
	case <-t.ctx.Done():
		return nil, s.notLeader()
	case <-ctx.Done():
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_TIMEOUT, "other dry runs took too long").Hint("try again in a moment")
	}
	// Only what is needed of the controller is taken on its goroutine; the pass holds up nobody.
	var run func() *pb.PlanJobResponse
	if !t.ask(func(c *controller.Controller) { run = c.DryRun(spec, user) }) {
		return nil, s.notLeader()
	}
	return run(), nil
}

// QueueViews gives every queue with what it holds.
func (s *Server) QueueViews(context.Context) (views []*pb.QueueView, err error) {
	if !s.ask(func(c *controller.Controller) { views = c.QueueViews() }) {
		return nil, s.notLeader()
	}
	return views, nil
}

// Forecast gives the fit of a job's demand.
func (s *Server) Forecast(_ context.Context, jobID string, horizonMS int64) (f *pb.Forecast, err error) {
	if !s.ask(func(c *controller.Controller) { f = c.Forecast(jobID, horizonMS) }) {
		return nil, s.notLeader()
	}
	return f, nil
}

// ask puts a question to the leader's controller; false when this server does not lead.
func (s *Server) ask(question func(*controller.Controller)) bool {
	t := s.tenure.Load()
	return t != nil && t.ask(question)
}

// Stalls names the ranks of a running job that make no progress, as this server saw as the leader.
func (s *Server) Stalls(jobID string) []*pb.Stall {
	return s.progress.Stalls(s.fsm.State(), jobID, s.Now().UnixMilli())
}

// Progress gives what the job's tasks last said to this server as the leader.
func (s *Server) Progress(jobID string) []*pb.Progress { return s.progress.Of(s.fsm.State(), jobID) }

// NodeSample gives what a node last told this server, as the leader, of what it has left.
func (s *Server) NodeSample(nodeID string) *pb.NodeSample { return s.samples.of(nodeID) }

// Stopping gives a channel that is closed when Close begins to end calls.
func (s *Server) Stopping() <-chan struct{} { return s.stopping }

// ServerID names this server.
func (s *Server) ServerID() string { return s.home.id.MemberID }

// ClusterID names the cluster.
func (s *Server) ClusterID() string { return s.home.id.ClusterID }

// NewID draws a request ID: 32 hex digits.
func (s *Server) NewID() string { return randomID("", requestBytes) }

// Now is the wall clock.
func (s *Server) Now() time.Time { return time.Now() }

// IssueCertificate signs a certificate with the life of its role; DER in and out.
func (s *Server) IssueCertificate(csr []byte, id transport.Identity, hosts []string) ([]byte, error) {
	life := transport.NodeCertificateLife
	if id.Role == pb.MemberRole_MEMBER_ROLE_USER {
		life = transport.UserCertificateLife
	}
	return s.home.ca.Issue(csr, id, hosts, life, time.Now())
}

// NewJoinToken makes a join token: the text that is shown once, and its record.
func (s *Server) NewJoinToken(role pb.MemberRole, ttl time.Duration) (string, *pb.JoinToken, error) {
	// The cluster's time never goes back. After a clock that ran ahead it is later than
	// this one's, and a token by this one's would have expired before it was made.
	now := time.Now()
	if cluster := time.UnixMilli(s.fsm.State().TimeMS()); cluster.After(now) {
		s.log.Warn("the cluster's time is ahead of this server's clock", "ahead", cluster.Sub(now))
		now = cluster
	}
	token, record, err := s.home.ca.NewToken(role, ttl, now)
	if err != nil {
		return "", nil, err
	}
	return token.String(), record, nil
}

// JoinMaterial gives what a new member of the role is handed besides its certificate.
func (s *Server) JoinMaterial(role pb.MemberRole) *pb.JoinResponse {
	r := &pb.JoinResponse{ClusterId: s.ClusterID(), CaCertificateDer: s.home.ca.CertificateDER(), ServerAddrs: s.serverAddrs()}
	if role == pb.MemberRole_MEMBER_ROLE_SERVER || role == pb.MemberRole_MEMBER_ROLE_AGENT {
		r.GossipKey = s.home.gossipKey
	}
	if role == pb.MemberRole_MEMBER_ROLE_SERVER {
		key, err := s.home.ca.KeyDER()
		if err != nil {
			s.log.Error("the authority's key could not be encoded", "err", err)
			return r // the joiner refuses an answer without the key
		}
		r.CaKeyDer, r.TaskSecret = key, s.home.taskSecret
	}
	return r
}

// serverAddrs lists where the servers are, this one first.
func (s *Server) serverAddrs() []string {
	out := []string{s.addr}
	members, _, err := s.raft.Members()
	if err != nil {
		return out
	}
	for _, m := range members {
		if m.ID == s.ServerID() {
			continue
		}
		if now, ok := s.members.Locate(m.ID); ok {
			m.Addr = now
		}
		out = append(out, m.Addr)
	}
	return out
}

func (s *Server) controllerConfig() controller.Config {
	t := s.cfg.Timing
	return controller.Config{HeartbeatEvery: t.AgentHeartbeat, SilentAfter: t.SilentAfter, AttemptKey: s.attemptKey,
		LeaderID: s.ServerID(), ServerAddrs: s.serverAddrs, Location: time.LoadLocation}
}
