package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/api"
	"llmos/server/telemetry"
	"llmos/transport"
	"llmos/transport/gossip"
)

// Limits of starting and stopping.
const (
	drainWait = 2 * time.Second // for calls in progress when the server stops
	readyPoll = 20 * time.Millisecond
)

// Server is one running server. New starts it, Run waits for its end, Close ends it.
type Server struct {
	cfg  Config
	log  *slog.Logger
	addr string // advertised host:port

	home     *home
	port     *transport.Port
	conns    *conns
	fsm      *fsm.FSM
	raft     *consensus
	proposer *proposer
	reads    *reader
	members  *membership
	grpc     *grpc.Server
	progress *telemetry.Table
	metrics  net.Listener // nil: Prometheus is not served
	samples  nodeSamples
	checker  checker

	tenure atomic.Pointer[tenure] // nil unless this server leads and is ready to
	ready  chan struct{}

	cancel   context.CancelFunc // ends the background work
	work     sync.WaitGroup
	closing  sync.Once
	stopping chan struct{} // closed once leadership is handed over and calls are to end
	closed   error

	fatalOnce sync.Once
	fatalErr  error
	fatalCh   chan struct{}
}

var _ api.Backend = (*Server)(nil)

// New opens the data directory, which it makes or joins when asked, and starts the
// server. It returns once the port is open; Ready tells when a leader is known. Errors a
// person can act on are faults. ctx bounds starting alone.
func New(ctx context.Context, cfg Config) (*Server, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, log: cfg.Log, fsm: fsm.New(), progress: telemetry.NewTable(),
		ready: make(chan struct{}), stopping: make(chan struct{}), fatalCh: make(chan struct{}), cancel: func() {}}
	for _, step := range []func(context.Context) error{s.openHome, s.openPort, s.openRaft, s.openGossip, s.openMetrics, s.serve} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, s.Close())
		}
	}
	return s, nil
}

// openHome comes first: without the lock nothing in the directory may be touched, and
// the port needs the certificate in it.
func (s *Server) openHome(ctx context.Context) (err error) {
	if s.home, err = openHome(ctx, s.cfg); err != nil {
		return err
	}
	s.log = s.log.With("server", s.home.id.MemberID)
	if s.cfg.Network != nil {
		s.home.creds.Over(s.cfg.Network)
	}
	s.conns = newConns(s.home.creds)
	return nil
}

// openPort comes before Raft and gossip, which both speak through it and tell others its number.
func (s *Server) openPort(context.Context) (err error) {
	if s.port, err = transport.Listen(s.cfg.Listen, s.home.creds, s.log); err != nil {
		return err
	}
	if s.addr, err = s.cfg.advertised(s.port.Addr().Port); err != nil {
		return fmt.Errorf("find the address to advertise: %w", err)
	}
	if s.cfg.Bootstrap && s.cfg.ClientDir != "" {
		return s.home.writeClient(s.cfg.ClientDir, s.addr)
	}
	return nil
}

// openRaft restores the state. Gossip's addresses are looked up through s.members, which
// is empty until openGossip.
func (s *Server) openRaft(context.Context) (err error) {
	s.members = &membership{server: s, addrs: map[string]string{}, configured: map[string]string{}, health: map[string]*watched{}}
	first, err := s.home.first()
	if err != nil {
		return err
	}
	s.raft, err = openConsensus(consensusConfig{
		id: s.home.id.MemberID, dataDir: s.cfg.DataDir, timing: s.cfg.Timing, log: s.log,
		advertise: s.addr, listener: s.port.Listener(transport.ProtoRaft),
		dial: func(ctx context.Context, addr, id string) (net.Conn, error) {
			return transport.DialMember(ctx, addr, transport.ProtoRaft, s.home.creds, pb.MemberRole_MEMBER_ROLE_SERVER, id)
		},
		locate: s.members.Dial, fatal: s.fatal, first: first, begun: s.home.begun,
	}, s.fsm)
	if err != nil {
		return err
	}
	s.members.learn()
	s.proposer = newProposer(s.raft, s.ServerID(), time.Now, s.notLeader)
	s.reads = &reader{raft: s.raft, fsm: s.fsm, notLeader: s.notLeader}
	return nil
}

// openGossip comes after Raft, whose configuration says where the others were.
func (s *Server) openGossip(context.Context) (err error) {
	profile := gossip.LAN
	if s.cfg.Timing.FastGossip {
		profile = gossip.Fast
	}
	s.members.gossip, err = gossip.Start(gossip.Config{
		ID: s.ServerID(), ClusterID: s.ClusterID(), Key: s.home.gossipKey, Port: s.port, Advertise: s.addr,
		Meta:  gossip.Meta{Role: pb.MemberRole_MEMBER_ROLE_SERVER, Name: s.cfg.displayName(), Addr: s.addr},
		Creds: s.home.creds, Log: s.log.With("part", "gossip"), Profile: profile,
	})
	if err != nil {
		return fmt.Errorf("start gossip: %w", err)
	}
	return nil
}

// serve starts everything that runs in the background, the port last: nobody is answered
// before there is something to answer from.
func (s *Server) serve(context.Context) error {
	ctx, cancel := context.WithCancel(context.Background())
	s.cancel = cancel
	s.grpc = grpc.NewServer(append(transport.ServerOptions(), api.Interceptors(s, s.log)...)...)
	api.Register(s.grpc, s, s.log)
	pb.RegisterSessionServiceServer(s.grpc, &sessionService{server: s})
	listener := s.port.Listener(transport.ProtoGRPC)
	s.start(func() {
		if err := s.grpc.Serve(listener); err != nil && ctx.Err() == nil {
			s.fatal(fmt.Errorf("serve gRPC on %s: %w", s.addr, err))
		}
	})
	s.start(func() { s.follow(ctx) })
	s.start(func() { s.members.run(ctx) })
	s.start(func() { s.members.seek(ctx) })
	s.start(func() { s.awaitLeader(ctx) })
	s.start(func() {
		transport.KeepFresh(ctx, s.home.creds, func(_ context.Context, csr []byte) ([]byte, error) {
			return s.IssueCertificate(csr, s.home.creds.Identity(), s.cfg.hosts())
		}, s.home.saveCredentials, s.log)
	})
	s.start(func() {
		if err := s.port.Serve(); err != nil && ctx.Err() == nil {
			s.fatal(fmt.Errorf("serve %s: %w", s.addr, err))
		}
	})
	if s.metrics != nil {
		s.start(func() { s.serveMetrics(ctx) })
	}
	s.log.Info("server started", "cluster", s.ClusterID(), "addr", s.addr, "dir", s.cfg.DataDir)
	return nil
}

// start runs f in the background; Close waits for it.
func (s *Server) start(f func()) {
	s.work.Add(1)
	go func() {
		defer s.work.Done()
		f()
	}()
}

// awaitLeader closes ready once a leader is known that this server has heard.
func (s *Server) awaitLeader(ctx context.Context) {
	for {
		id, _ := s.raft.Leader()
		if id != "" && (id != s.ServerID() || s.tenure.Load() != nil) {
			close(s.ready)
			return
		}
		if !pause(ctx, readyPoll) {
			return
		}
	}
}

// Ready gives a channel that is closed once this server knows a leader, which may be itself.
func (s *Server) Ready() <-chan struct{} { return s.ready }

// Addr gives host:port that others reach this server at.
func (s *Server) Addr() string { return s.addr }

// fatal ends the server with a sentence; the first one counts.
func (s *Server) fatal(err error) {
	s.fatalOnce.Do(func() {
		s.log.Error("the server must stop", "err", err)
		s.fatalErr = err
		close(s.fatalCh)
	})
}

// Fatal gives a channel that is closed when the server cannot go on; Run returns why.
func (s *Server) Fatal() <-chan struct{} { return s.fatalCh }

// Run waits until ctx ends or the server cannot go on, closes it, and gives the reason in
// the second case.
func (s *Server) Run(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return s.Close()
	case <-s.fatalCh:
		if err := s.Close(); err != nil { // the cause says more than what it broke
			s.log.Warn("closing after the failure", "err", err)
		}
		return s.fatalErr
	}
}

// Close stops the server: it hands leadership to another server, tells gossip, lets calls
// in progress end for a moment, and frees the port and the directory. The server stays a
// member of its cluster. It is safe to call again.
func (s *Server) Close() error {
	s.closing.Do(func() { s.closed = s.close() })
	return s.closed
}

// close undoes New in reverse. Leadership goes first, while everything still works, so
// that the others need not notice a silence.
func (s *Server) close() error {
	failed := s.failed()
	if s.raft != nil && !failed {
		s.handOver()
	}
	close(s.stopping)
	s.cancel()
	var errs []error
	if s.members != nil && s.members.gossip != nil && !failed {
		if err := s.members.gossip.Leave(leaveWait); err != nil {
			s.log.Debug("gossip was not told", "err", err)
		}
	}
	if s.grpc != nil {
		stopped := make(chan struct{})
		go func() { s.grpc.GracefulStop(); close(stopped) }()
		select {
		case <-stopped:
		case <-time.After(drainWait):
			s.grpc.Stop()
		}
	}
	clean := true // Raft has ended; else some outcomes may never come
	if s.raft != nil {
		s.proposer.Stop()
		err := s.raft.Close()
		errs = append(errs, err)
		if clean = err == nil && s.raft.poison.check() == nil; clean {
			s.proposer.Wait()
		}
	}
	if s.members != nil && s.members.gossip != nil {
		errs = append(errs, s.members.gossip.Close())
	}
	if s.conns != nil {
		errs = append(errs, s.conns.Close())
	}
	if s.port != nil {
		errs = append(errs, s.port.Close())
	}
	if s.metrics != nil {
		_ = s.metrics.Close()
	}
	s.awaitWork(clean)
	if s.home != nil {
		errs = append(errs, s.home.Close())
	}
	return errors.Join(errs...)
}

// awaitWork waits for the background work: to its end when Raft has ended cleanly, and
// otherwise for a moment, because some of it may wait for Raft for good and the process
// must end all the same.
func (s *Server) awaitWork(clean bool) {
	ended := make(chan struct{})
	go func() { s.work.Wait(); close(ended) }()
	if clean {
		<-ended
		return
	}
	select {
	case <-ended:
	case <-time.After(drainWait):
		s.log.Warn("some background work did not end")
	}
}

func (s *Server) failed() bool {
	select {
	case <-s.fatalCh:
		return true
	default:
		return false
	}
}

// handOver gives leadership to another voter, if there is one, and waits a bounded time.
func (s *Server) handOver() {
	members, _, err := s.raft.Members()
	if err != nil || !s.raft.IsLeader() {
		return
	}
	voters := 0
	for _, m := range members {
		if m.Voter {
			voters++
		}
	}
	if voters < 2 {
		return
	}
	done := make(chan error, 1)
	go func() { done <- s.raft.Transfer() }()
	select {
	case err := <-done:
		if err != nil {
			s.log.Warn("leadership was not handed over; the others will elect", "err", err)
		}
	case <-time.After(transferWait):
		s.log.Warn("leadership was not handed over in time; the others will elect")
	}
}

// notLeader is the fault that says who leads.
func (s *Server) notLeader() error {
	_, addr := s.raft.Leader()
	f := fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "server %s does not lead the cluster", s.ServerID())
	if addr == "" || addr == s.addr {
		return f.Hint("no leader is known now; try again in a moment")
	}
	f.Fault.LeaderAddr = addr
	return f.Hint("ask the leader at %s", addr)
}
