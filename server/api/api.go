// Package api holds the handlers of the public API (ClusterService) and of joining
// (JoinService), and what stands before every call: who may make it, on which server it
// is answered, and how a failure is told. Any server takes any request; what needs the
// leader is forwarded to it.
//
// It does not replicate, elect, schedule or keep sessions: the server that calls Register
// and Interceptors does that and is reached through Backend. Agents' sessions
// (SessionService) are served elsewhere but pass through the same interceptors.
package api

import (
	"context"
	"log/slog"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// Backend is what the handlers need of the server around them. All methods may be called
// from any goroutine. Errors are *fault.Error.
type Backend interface {
	// Propose replicates commands as one entry and returns one result for each, in order.
	// It works on the leader alone. NOT_LEADER and UNAVAILABLE say that nothing was
	// applied, UNKNOWN that it may have been. Faults inside results are the caller's to read.
	Propose(ctx context.Context, cmds ...*pb.Command) ([]*pb.Result, error)
	// Read gives a state that holds every write acknowledged before the call; on the leader alone.
	Read(ctx context.Context) (*state.State, error)
	// Stale gives this server's own state, which may lag.
	Stale() *state.State
	// Changed gives a channel that is closed when a later state than Stale's is there.
	Changed() <-chan struct{}
	// Leader names the leader as this server knows it: empty strings when there is none.
	// isMe is true only once this server is ready to serve as the leader.
	Leader() (id, addr string, isMe bool)
	// LeaderConn gives a connection to the leader that shows this server's certificate.
	// The backend owns it.
	LeaderConn(ctx context.Context) (*grpc.ClientConn, error)
	// AgentConn gives a connection to the agent at host:port. The backend owns it.
	AgentConn(addr string) (*grpc.ClientConn, error)
	// Insight is what the leader's controller knows.
	Insight
	// Progress gives what the job's tasks last said, by rank; from the leader alone.
	Progress(jobID string) []*pb.Progress
	// Stalls names the ranks of a running job that make no progress; from the leader alone.
	Stalls(jobID string) []*pb.Stall
	// NodeSample gives what a node was last seen to have left; nil when nothing has come; from the leader alone.
	NodeSample(nodeID string) *pb.NodeSample
	// ClusterStatus gives all of the status but the numbers of nodes, devices and jobs:
	// who answers, Raft's view, the state's hash and what the check of its invariants
	// found. Never nil; the caller may change it. With local it asks nobody else.
	ClusterStatus(ctx context.Context, local bool) *pb.ClusterStatus
	// Stopping gives a channel that is closed when this server begins to stop: calls that
	// wait end then, and calls that are being carried out go on for a moment.
	Stopping() <-chan struct{}
	// ServerID names this server.
	ServerID() string
	// ClusterID names the cluster.
	ClusterID() string
	// NewID makes a random identifier for a request.
	NewID() string
	// Now is the wall clock.
	Now() time.Time
	// IssueCertificate signs a request for the identity with the cluster's CA; DER in and out.
	IssueCertificate(csr []byte, id transport.Identity, hosts []string) ([]byte, error)
	// NewJoinToken makes a token: the string shown once, and the record to replicate.
	NewJoinToken(role pb.MemberRole, ttl time.Duration) (shown string, record *pb.JoinToken, err error)
	// JoinMaterial gives what a new member of the role is handed besides its certificate.
	JoinMaterial(role pb.MemberRole) *pb.JoinResponse
}

// Register adds ClusterService and JoinService to the server, which must have been made
// with the options of Interceptors.
func Register(s *grpc.Server, b Backend, log *slog.Logger) {
	pb.RegisterClusterServiceServer(s, &cluster{b: b, log: log})
	pb.RegisterJoinServiceServer(s, &join{b: b, log: log})
}

// Interceptors gives the server options that stand before every call of every service on
// the port: panics become INTERNAL, the caller is authorised by the table of methods, and
// calls that need the leader are forwarded to it.
func Interceptors(b Backend, log *slog.Logger) []grpc.ServerOption {
	g := newGate(b, log)
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(g.unary),
		grpc.ChainStreamInterceptor(g.stream),
	}
}
