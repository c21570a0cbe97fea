package api

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm"
	"llmos/fsm/state"
	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

const (
	testCluster = "c-0123456789ab"
	testTime    = 10 * time.Second // bounds every wait
	roleServer  = pb.MemberRole_MEMBER_ROLE_SERVER
	roleAgent   = pb.MemberRole_MEMBER_ROLE_AGENT
	roleUser    = pb.MemberRole_MEMBER_ROLE_USER
)

// rig is a cluster in one process: real certificates and ports on loopback, the real state
// machine, and a scripted stand-in for Raft that all servers share.
type rig struct {
	t   *testing.T
	ca  *ca.CA
	log *slog.Logger

	mu       sync.Mutex
	f        *fsm.FSM
	index    uint64
	leader   string
	servers  map[string]*backend
	propose  func(ctx context.Context, apply func() []*pb.Result) ([]*pb.Result, error) // nil: apply
	reason   string                                                                     // Explain's
	progress []*pb.Progress
	ahead    time.Duration                              // of the servers' clock
	plan     func(spec *pb.JobSpec) *pb.PlanJobResponse // nil: it waits
}

// backend is one server of the rig.
type backend struct {
	r     *rig
	id    string
	addr  string
	creds *transport.Credentials
	gate  *gate
	grpc  *grpc.Server
	// thinks, when set, is whom this server takes for the leader.
	thinks string
	panics bool
	hang   chan<- struct{} // when set, reads are told to it and never answered
	stop   chan struct{}   // closed when it begins to stop
}

func newRig(t *testing.T) *rig {
	authority, err := ca.New(testCluster, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, ca: authority, log: slog.New(slog.NewTextHandler(io.Discard, nil)), f: fsm.New(), servers: make(map[string]*backend)}
	r.must(&pb.Command{Op: &pb.Command_InitCluster{InitCluster: &pb.InitCluster{Meta: &pb.ClusterMeta{
		ClusterId: testCluster, Name: "test", StateVersion: fsm.StateVersion,
	}}}})
	return r
}

// credentials makes a member's certificate.
func (r *rig) credentials(role pb.MemberRole, id string) *transport.Credentials {
	r.t.Helper()
	key, err := transport.NewKey()
	if err != nil {
		r.t.Fatal(err)
	}
	csr, err := transport.NewCSR(key)
	if err != nil {
		r.t.Fatal(err)
	}
	cert, err := r.ca.Issue(csr, transport.Identity{ClusterID: testCluster, Role: role, MemberID: id}, nil, time.Hour, time.Now())
	if err != nil {
		r.t.Fatal(err)
	}
	creds, err := transport.NewCredentials(cert, key, r.ca.CertificateDER())
	if err != nil {
		r.t.Fatal(err)
	}
	return creds
}

// server starts one; the first to start leads.
func (r *rig) server(id string) *backend {
	r.t.Helper()
	b := &backend{r: r, id: id, stop: make(chan struct{}), creds: r.credentials(roleServer, id)}
	port, err := transport.Listen("127.0.0.1:0", b.creds, r.log)
	if err != nil {
		r.t.Fatal(err)
	}
	b.addr = port.Addr().String()
	b.gate = newGate(b, r.log)
	b.gate.wait = 500 * time.Millisecond
	opts := append(transport.ServerOptions(), grpc.ChainUnaryInterceptor(b.gate.unary), grpc.ChainStreamInterceptor(b.gate.stream))
	b.grpc = grpc.NewServer(opts...)
	pb.RegisterClusterServiceServer(b.grpc, &cluster{b: b, log: r.log, agentSilence: 300 * time.Millisecond, whatIfSpan: testTime})
	pb.RegisterJoinServiceServer(b.grpc, &join{b: b, log: r.log})
	pb.RegisterSessionServiceServer(b.grpc, pb.UnimplementedSessionServiceServer{})
	pb.RegisterAgentServiceServer(b.grpc, pb.UnimplementedAgentServiceServer{})
	go port.Serve()
	go b.grpc.Serve(port.Listener(transport.ProtoGRPC))
	r.t.Cleanup(func() { b.grpc.Stop(); port.Close() })
	r.mu.Lock()
	r.servers[id] = b
	if r.leader == "" {
		r.leader = id
	}
	r.mu.Unlock()
	return b
}

func (r *rig) setLeader(id string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leader = id
}

// conn connects to a server as a member; role UNSPECIFIED shows no certificate.
func (r *rig) conn(to *backend, role pb.MemberRole, id string) *grpc.ClientConn {
	r.t.Helper()
	var conn *grpc.ClientConn
	var err error
	if role == pb.MemberRole_MEMBER_ROLE_UNSPECIFIED {
		conn, err = dialAnonymous(to.addr)
	} else {
		conn, err = transport.NewClient(to.addr, r.credentials(role, id), roleServer)
	}
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { conn.Close() })
	return conn
}

// client makes a client of a person over the servers.
func (r *rig) client(user string, servers ...*backend) *client.Client {
	creds := r.credentials(roleUser, user)
	var addrs []string
	for _, s := range servers {
		addrs = append(addrs, s.addr)
	}
	c := client.New(addrs, func(addr string) (*grpc.ClientConn, error) {
		return transport.NewClient(addr, creds, roleServer)
	})
	r.t.Cleanup(func() { c.Close() })
	return c
}

// apply commits commands, past every script.
func (r *rig) apply(cmds ...*pb.Command) []*pb.Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.index++
	return r.f.Apply(r.index, &pb.Entry{TimeMs: time.Now().UnixMilli(), Proposer: r.leader, Commands: cmds})
}

func (r *rig) must(cmds ...*pb.Command) {
	r.t.Helper()
	for _, res := range r.apply(cmds...) {
		if res.Fault != nil {
			r.t.Fatalf("command refused: %v", res.Fault)
		}
		for _, g := range res.Gangs {
			if g.Fault != nil {
				r.t.Fatalf("gang refused: %v", g.Fault)
			}
		}
	}
}

// forward sets how far the servers' clock is ahead.
func (r *rig) forward(by time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ahead = by
}

func (r *rig) script(propose func(ctx context.Context, apply func() []*pb.Result) ([]*pb.Result, error)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.propose = propose
}

func (b *backend) Propose(ctx context.Context, cmds ...*pb.Command) ([]*pb.Result, error) {
	if _, addr, isMe := b.Leader(); !isMe {
		return nil, notLeader(b.id, addr)
	}
	b.r.mu.Lock()
	script := b.r.propose
	b.r.mu.Unlock()
	apply := func() []*pb.Result { return b.r.apply(cmds...) }
	if script != nil {
		return script(ctx, apply)
	}
	return apply(), nil
}

func (b *backend) Read(ctx context.Context) (*state.State, error) {
	if b.hang != nil {
		b.hang <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if b.panics {
		panic("scripted")
	}
	if _, addr, isMe := b.Leader(); !isMe {
		return nil, notLeader(b.id, addr)
	}
	return b.Stale(), nil
}

func (b *backend) Leader() (id, addr string, isMe bool) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	id = b.r.leader
	if b.thinks != "" {
		id = b.thinks
	}
	if s := b.r.servers[id]; s != nil {
		addr = s.addr
	}
	return id, addr, id == b.id
}

func (b *backend) LeaderConn(context.Context) (*grpc.ClientConn, error) {
	_, addr, _ := b.Leader()
	conn, err := transport.NewClient(addr, b.creds, roleServer)
	if err == nil {
		b.r.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func (b *backend) AgentConn(addr string) (*grpc.ClientConn, error) {
	conn, err := transport.NewClient(addr, b.creds, roleAgent)
	if err == nil {
		b.r.t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func (b *backend) Explain(string) *pb.Explanation {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	if b.r.reason == "" {
		return nil
	}
	return &pb.Explanation{Reason: b.r.reason, Remedy: "wait", ExpectedStartMs: 1234}
}

func (b *backend) ExpectedEnd(string) int64 { return 5678 }

func (b *backend) Plan(_ context.Context, spec *pb.JobSpec, user string) (*pb.PlanJobResponse, error) {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	if b.r.plan != nil {
		return b.r.plan(spec), nil
	}
	return &pb.PlanJobResponse{Explanation: &pb.Explanation{Reason: "planned " + spec.GetName() + " for " + user}}, nil
}

func (b *backend) QueueViews(context.Context) ([]*pb.QueueView, error) {
	var out []*pb.QueueView
	for q := range b.Stale().Queues() {
		out = append(out, &pb.QueueView{Queue: q, Share: 0.5})
	}
	return out, nil
}

func (b *backend) Forecast(_ context.Context, jobID string, horizonMS int64) (*pb.Forecast, error) {
	return &pb.Forecast{JobId: fmt.Sprint(jobID, " for ", horizonMS)}, nil
}

func (b *backend) Stalls(string) []*pb.Stall { return nil }

func (b *backend) Progress(string) []*pb.Progress {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	return b.r.progress
}

func (b *backend) NodeSample(id string) *pb.NodeSample {
	return &pb.NodeSample{TimeMs: 7, DiskFreeBytes: int64(len(id))}
}

func (b *backend) ClusterStatus(context.Context, bool) *pb.ClusterStatus {
	id, addr, _ := b.Leader()
	hash := b.Stale().Hash()
	status := &pb.ClusterStatus{LeaderId: id, LeaderAddr: addr, ServerId: b.id, Name: "test", StateHash: hash[:], StateIndex: b.Stale().Index()}
	for _, s := range b.r.servers {
		status.Servers = append(status.Servers, &pb.ServerStatus{Id: s.id, Addr: s.addr, Voter: true})
	}
	return status
}

func (b *backend) NewJoinToken(role pb.MemberRole, ttl time.Duration) (string, *pb.JoinToken, error) {
	token, record, err := b.r.ca.NewToken(role, ttl, time.Now())
	return token.String(), record, err
}

func (b *backend) JoinMaterial(role pb.MemberRole) *pb.JoinResponse {
	m := &pb.JoinResponse{CaCertificateDer: b.r.ca.CertificateDER(), GossipKey: make([]byte, 32), ServerAddrs: []string{b.addr}}
	if role == roleServer {
		m.CaKeyDer, m.TaskSecret = []byte("ca key"), []byte("task secret")
	}
	return m
}

func (b *backend) IssueCertificate(csr []byte, id transport.Identity, hosts []string) ([]byte, error) {
	return b.r.ca.Issue(csr, id, hosts, time.Hour, time.Now())
}

func (b *backend) Stale() *state.State       { return b.r.f.State() }
func (b *backend) Changed() <-chan struct{}  { return b.r.f.Changed() }
func (b *backend) Stopping() <-chan struct{} { return b.stop }

func (b *backend) ServerID() string  { return b.id }
func (b *backend) ClusterID() string { return testCluster }
func (b *backend) Now() time.Time {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	return time.Now().Add(b.r.ahead)
}
func (b *backend) NewID() string {
	b.r.mu.Lock()
	defer b.r.mu.Unlock()
	return fmt.Sprintf("made-%d", b.r.index)
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testTime)
	t.Cleanup(cancel)
	return ctx
}

func kinded(kind pb.ErrorKind) *fault.Error {
	return fault.New(kind, "scripted %v", kind).Hint("a hint").At("a.field", 3)
}

// wantKind fails the test unless err is a fault of the kind.
func wantKind(t *testing.T, what string, err error, kind pb.ErrorKind) {
	t.Helper()
	if fault.Kind(err) != kind {
		t.Errorf("%s: got %v, want a fault of kind %v", what, err, kind)
	}
}
