// Package cluster runs clusters of servers, and of other members that are plugged in,
// inside one test process, over loopback and with the fast timing. It is for tests of
// several rooms together; package rig runs real processes and breaks them harder.
package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm/state"
	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server"
	"llmos/test/rig"
	"llmos/transport"
)

const (
	// Patience bounds every wait of this package: generous, since machines are shared.
	Patience  = 30 * time.Second
	pollEvery = 10 * time.Millisecond
)

// Cluster is a running cluster. It is closed with its test.
type Cluster struct {
	Servers   []*Server
	ClientDir string // the administrator's credentials
	Network   *Switchboard

	t      testing.TB
	dir    string
	timing server.Timing
	log    *slog.Logger
	client *client.Client
}

// Server is one server, which can be stopped and started again on its directory.
type Server struct {
	*server.Server // nil while it is stopped
	Config         server.Config

	t      testing.TB
	cancel context.CancelFunc
	ended  chan error
}

// Option changes how a cluster is started.
type Option func(*Cluster)

// WithTiming replaces server.Fast.
func WithTiming(t server.Timing) Option { return func(c *Cluster) { c.timing = t } }

// Start runs a cluster of n servers and waits until all of them vote. LLMOS_TEST_LOG=1
// shows the servers' logs.
func Start(t testing.TB, n int, opts ...Option) *Cluster {
	t.Helper()
	c := &Cluster{t: t, dir: t.TempDir(), timing: server.Fast(), Network: newSwitchboard(), log: slog.New(slog.DiscardHandler)}
	if os.Getenv("LLMOS_TEST_LOG") != "" {
		c.log = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	}
	c.ClientDir = filepath.Join(c.dir, "client")
	for _, opt := range opts {
		opt(c)
	}
	t.Cleanup(c.close)
	for range n {
		c.AddServer()
	}
	c.WaitVoters(n)
	return c
}

func (c *Cluster) close() {
	if c.client != nil {
		_ = c.client.Close()
	}
	for _, s := range c.Servers {
		s.Stop()
	}
}

// AddServer starts a further server: the first bootstraps, the others join by a token.
func (c *Cluster) AddServer() *Server {
	c.t.Helper()
	cfg := server.DefaultConfig()
	cfg.DataDir = filepath.Join(c.dir, fmt.Sprintf("server-%d", len(c.Servers)))
	cfg.Listen, cfg.Timing, cfg.ClientDir = freeAddr(c.t), c.timing, c.ClientDir
	cfg.Name = filepath.Base(cfg.DataDir)
	cfg.Log = c.log.With("on", cfg.Name)
	cfg.Network = socket{board: c.Network, addr: cfg.Listen}
	if len(c.Servers) == 0 {
		cfg.Bootstrap = true
	} else {
		cfg.Join, cfg.Token = c.Addrs(), c.Token(pb.MemberRole_MEMBER_ROLE_SERVER)
	}
	s := &Server{Config: cfg, t: c.t}
	c.Servers = append(c.Servers, s)
	if c.client != nil { // it does not know the newcomer
		_ = c.client.Close()
		c.client = nil
	}
	s.Start()
	Wait(c.t, "the server to know a leader", func() bool { return closed(s.Ready()) })
	return s
}

// freeAddr picks a loopback port that stays the same when the server starts again.
func freeAddr(t testing.TB) string {
	t.Helper()
	port, err := rig.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("127.0.0.1:%d", port)
}

// Start starts a stopped server.
func (s *Server) Start() {
	s.t.Helper()
	if err := s.Try(); err != nil {
		s.t.Fatalf("start %s: %v", s.Config.Name, err)
	}
}

// Try starts a stopped server and gives the error of starting.
func (s *Server) Try() error {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	defer cancel()
	started, err := server.New(ctx, s.Config)
	if err != nil {
		return err
	}
	run, stop := context.WithCancel(context.Background())
	s.Server, s.cancel, s.ended = started, stop, make(chan error, 1)
	go func() { s.ended <- started.Run(run) }()
	return nil
}

// Stop closes a running server as SIGTERM does, and gives what its Run returned.
func (s *Server) Stop() error {
	if s.Server == nil {
		return nil
	}
	s.cancel()
	err := <-s.ended
	s.Server = nil
	return err
}

// Kill ends a running server as the others see kill -9: it falls silent at once and hands
// nothing over. Its directory is left as a stop leaves it.
func (c *Cluster) Kill(s *Server) {
	c.Network.Cut(s.Config.Listen)
	_ = s.Stop()
	c.Network.Mend(s.Config.Listen)
}

// Ended gives the channel that receives what Run returns when the server ends by itself.
func (s *Server) Ended() <-chan error { return s.ended }

// Addrs gives the addresses of the running servers.
func (c *Cluster) Addrs() []string {
	var out []string
	for _, s := range c.Servers {
		if s.Server != nil {
			out = append(out, s.Addr())
		}
	}
	return out
}

// Client gives the administrator's client of the whole cluster.
func (c *Cluster) Client() *client.Client {
	c.t.Helper()
	if c.client == nil {
		c.client = c.NewClient()
	}
	return c.client
}

// Context gives a context that ends after Patience.
func (c *Cluster) Context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), Patience)
	c.t.Cleanup(cancel)
	return ctx
}

// Token makes a join token. One that was made without our knowing it does no harm.
func (c *Cluster) Token(role pb.MemberRole) string {
	c.t.Helper()
	token := ""
	Wait(c.t, "a join token", func() bool {
		resp, err := c.Client().CreateJoinToken(c.Context(), &pb.CreateJoinTokenRequest{Role: role})
		if err != nil && fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNKNOWN {
			c.t.Fatalf("make a join token: %v", err)
		}
		token = resp.GetToken()
		return err == nil
	})
	return token
}

// Leader waits until a running server that is not cut off leads, and gives it.
func (c *Cluster) Leader() *Server {
	c.t.Helper()
	var leader *Server
	Wait(c.t, "a leader", func() bool {
		for _, s := range c.Servers {
			if s.Server == nil || c.Network.IsCut(s.Config.Listen) {
				continue
			}
			if _, _, me := s.Leader(); me {
				leader = s
				return true
			}
		}
		return false
	})
	return leader
}

// WaitVoters waits until the leader counts n voters.
func (c *Cluster) WaitVoters(n int) {
	c.t.Helper()
	Wait(c.t, fmt.Sprintf("%d voters", n), func() bool {
		voters := 0
		for _, v := range c.Leader().ClusterStatus(context.Background(), true).Servers {
			if v.Voter {
				voters++
			}
		}
		return voters == n
	})
}

// WaitSame waits until every running server has the same state at the same index, gives
// that state, and fails the test when it breaks an invariant.
func (c *Cluster) WaitSame() *state.State {
	c.t.Helper()
	var same *state.State
	Wait(c.t, "equal states on all servers", func() bool {
		same = nil
		for _, s := range c.Servers {
			if s.Server == nil {
				continue
			}
			st := s.Stale()
			if same != nil && (st.Index() != same.Index() || st.Hash() != same.Hash()) {
				return false
			}
			same = st
		}
		return same != nil
	})
	if err := state.Check(same); err != nil {
		c.t.Errorf("the state at index %d: %v", same.Index(), err)
	}
	return same
}

// ClientOf gives a client that knows one server alone.
func (c *Cluster) ClientOf(s *Server) *client.Client { return c.newClient(s.Config.Listen) }

// NewClient gives a client of the whole cluster with connections of its own.
func (c *Cluster) NewClient() *client.Client {
	var addrs []string
	for _, s := range c.Servers {
		addrs = append(addrs, s.Config.Listen)
	}
	return c.newClient(addrs...)
}

// API gives one server's API without a client's retries.
func (c *Cluster) API(s *Server) pb.ClusterServiceClient {
	c.t.Helper()
	conn, err := transport.NewClient(s.Config.Listen, c.credentials(), pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	return pb.NewClusterServiceClient(conn)
}

// credentials reads the administrator's.
func (c *Cluster) credentials() *transport.Credentials {
	c.t.Helper()
	creds, err := transport.LoadCredentials(filepath.Join(c.ClientDir, "tls"))
	if err != nil {
		c.t.Fatal(err)
	}
	return creds
}

func (c *Cluster) newClient(addrs ...string) *client.Client {
	c.t.Helper()
	creds := c.credentials()
	out := client.New(addrs, func(addr string) (*grpc.ClientConn, error) {
		return transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	})
	c.t.Cleanup(func() { _ = out.Close() })
	return out
}

// Wait waits until the condition holds, at most Patience, and fails the test otherwise.
func Wait(t testing.TB, what string, condition func() bool) {
	t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	look := time.NewTicker(pollEvery)
	defer look.Stop()
	for !condition() {
		select {
		case <-look.C:
		case <-deadline.C:
			t.Fatalf("waited %s for %s", Patience, what)
		}
	}
}

func closed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
