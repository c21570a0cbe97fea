package agent

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// scripted is a server whose sessions the test plays itself.
type scripted struct {
	pb.UnimplementedSessionServiceServer
	refuse func() error // not nil: the answer to every session
	mute   bool         // repeats no acknowledgement, and takes one session alone
	count  atomic.Int32 // of sessions
	opened chan *played
}

// played is one session in the hands of the test.
type played struct {
	hello *pb.Hello
	in    chan *pb.AgentMessage
	out   chan *pb.ServerMessage
	end   chan error
	gone  <-chan struct{}
}

func (s *scripted) Connect(stream pb.SessionService_ConnectServer) error {
	if s.refuse != nil {
		return s.refuse()
	}
	if s.count.Add(1) > 1 && s.mute {
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "not again")
	}
	m, err := stream.Recv()
	if err != nil {
		return err
	}
	p := &played{hello: m.GetHello(), in: make(chan *pb.AgentMessage, 100), out: make(chan *pb.ServerMessage, 10),
		end: make(chan error, 1), gone: stream.Context().Done()}
	s.opened <- p
	go func() {
		for {
			m, err := stream.Recv()
			if err != nil {
				return
			}
			if r := m.GetReports(); r != nil && len(r.GetReports()) == 0 && !s.mute {
				p.acknowledge(r.GetSeq()) // as a server answers what it has acknowledged before
				continue
			}
			select {
			case p.in <- m:
			case <-p.gone:
				return
			}
		}
	}()
	for {
		select {
		case m := <-p.out:
			if err := stream.Send(m); err != nil {
				return err
			}
		case err := <-p.end:
			return err
		case <-p.gone:
			return nil
		}
	}
}

func serveScripted(t *testing.T) (*scripted, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{opened: make(chan *played, 10)}
	server := grpc.NewServer()
	pb.RegisterSessionServiceServer(server, s)
	var wait sync.WaitGroup
	wait.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { server.Stop(); wait.Wait() })
	return s, l.Addr().String()
}

func (p *played) welcome(addrs ...string) {
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{ClusterId: "c-1", LeaderId: "s-1", HeartbeatMs: 30, ServerAddrs: addrs}}}
}

func (p *played) desire(index uint64, full bool, assignments ...*pb.Assignment) {
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Desired{Desired: &pb.Desired{Index: index, Full: full, Assignments: assignments}}}
}

func (p *played) acknowledge(seq uint64) {
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Acknowledge{Acknowledge: &pb.Acknowledge{Seq: seq}}}
}

// receive waits for a message that satisfies ok.
func (p *played) receive(t *testing.T, what string, ok func(*pb.AgentMessage) bool) *pb.AgentMessage {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		select {
		case m := <-p.in:
			if ok(m) {
				return m
			}
		case <-ctx.Done():
			t.Fatalf("%s: never came", what)
		}
	}
}

func (p *played) report(t *testing.T, id string, state pb.TaskState) *pb.Reports {
	t.Helper()
	return p.receive(t, "report "+state.String(), func(m *pb.AgentMessage) bool {
		for _, r := range m.GetReports().GetReports() {
			if r.GetTaskId() == id && r.GetState() == state {
				return true
			}
		}
		return false
	}).GetReports()
}

// connected runs a rig's session against the addresses.
func connected(t *testing.T, r *rig, book *addressBook, silence ...time.Duration) *sessions {
	t.Helper()
	book.log = quiet
	if book.save == nil {
		book.save = func([]string) error { return nil }
	}
	s := &sessions{clusterID: "c-1", silence: append(silence, silenceMin)[0], book: book, supervisor: r.supervisor, outbox: r.outbox, log: quiet,
		node: newNodeBox(&pb.Node{Id: "n-agenttest", Name: "n1"}),
		dial: func(addr string) (*grpc.ClientConn, error) {
			return grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); s.run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

func opened(t *testing.T, s *scripted) *played {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	select {
	case p := <-s.opened:
		return p
	case <-ctx.Done():
		t.Fatal("no session was opened")
		return nil
	}
}

func TestSessionRunsATaskAndRepeatsUntilAcknowledged(t *testing.T) {
	server, addr := serveScripted(t)
	r := newRig(t, t.TempDir())
	s := connected(t, r, &addressBook{join: []string{addr}})
	p := opened(t, server)
	if p.hello.GetClusterId() != "c-1" || p.hello.GetNode().GetId() != "n-agenttest" || len(p.hello.GetTasks()) != 0 {
		t.Fatalf("hello %v", p.hello)
	}
	p.welcome()
	p.desire(101, true)
	p.receive(t, "heartbeat", func(m *pb.AgentMessage) bool { return m.GetHeartbeat() != nil })
	p.desire(102, false, shellTask(first, "echo '@llmos step=3 steps=9 loss=0.5'; read x < /dev/null; exit 5"))
	// What the task said last comes before the word that it has ended.
	p.receive(t, "progress", func(m *pb.AgentMessage) bool {
		for _, x := range m.GetTelemetry().GetProgress() {
			if x.GetTaskId() == first && x.GetStep() == 3 && x.GetSteps() == 9 && x.GetValues()["loss"] == 0.5 {
				return true
			}
		}
		return false
	})
	p.report(t, first, failed) // not acknowledged
	p.end <- fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "going down")
	p = opened(t, server)
	if len(p.hello.GetTasks()) != 1 || p.hello.GetTasks()[0].GetState() != failed || p.hello.GetSeenIndex() != 102 {
		t.Fatalf("second hello %v", p.hello)
	}
	p.welcome()
	p.desire(103, true, shellTask(first, ""))
	again := p.report(t, first, failed)
	p.acknowledge(again.GetSeq())
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Desired{Desired: &pb.Desired{Index: 104, Forget: []string{first}}}}
	eventually(t, "forgotten", func() bool { return len(r.supervisor.list()) == 0 })
	s.node.update(func(n *pb.Node) { n.CpuMilli = 7000 })
	p.receive(t, "inventory", func(m *pb.AgentMessage) bool { return m.GetInventory().GetCpuMilli() == 7000 })
}

func TestSessionFollowsTheLeader(t *testing.T) {
	leader, leaderAddr := serveScripted(t)
	follower, followerAddr := serveScripted(t)
	follower.refuse = func() error {
		f := fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "ask the leader")
		f.Fault.LeaderAddr = leaderAddr
		return f
	}
	var saved []string
	var mu sync.Mutex
	r := newRig(t, t.TempDir())
	connected(t, r, &addressBook{join: []string{followerAddr}, save: func(addrs []string) error {
		mu.Lock()
		defer mu.Unlock()
		saved = addrs
		return nil
	}})
	p := opened(t, leader)
	p.welcome(leaderAddr, followerAddr)
	p.receive(t, "heartbeat", func(m *pb.AgentMessage) bool { return m.GetHeartbeat() != nil })
	mu.Lock()
	defer mu.Unlock()
	if len(saved) != 2 {
		t.Fatalf("saved %v", saved)
	}
}

// A leader that has been deposed and does not know it must not stop what it never heard of.
func TestStaleDesiredSetStopsNothing(t *testing.T) {
	server, addr := serveScripted(t)
	r := newRig(t, t.TempDir())
	connected(t, r, &addressBook{join: []string{addr}})
	p := opened(t, server)
	p.welcome()
	p.desire(500, true, shellTask(first, "sleep 60"))
	p.report(t, first, running)
	p.end <- nil
	p = opened(t, server)
	p.welcome()
	p.desire(400, true) // knows nothing of the task
	p = opened(t, server)
	if len(p.hello.GetTasks()) != 1 || p.hello.GetTasks()[0].GetState() != running {
		t.Fatalf("hello %v", p.hello)
	}
	p.welcome()
	p.desire(501, true, shellTask(first, "sleep 60"))
	p.report(t, first, running)
	p.desire(502, true)
	p.report(t, first, stopped)
}

func TestSessionRefusesAnotherCluster(t *testing.T) {
	server, addr := serveScripted(t)
	r := newRig(t, t.TempDir())
	connected(t, r, &addressBook{join: []string{addr}})
	p := opened(t, server)
	p.out <- &pb.ServerMessage{Message: &pb.ServerMessage_Welcome{Welcome: &pb.Welcome{ClusterId: "c-other", HeartbeatMs: 1000}}}
	p.desire(1, true, shellTask(first, "echo ran"))
	opened(t, server)
	if known, _ := r.journal.known(); len(known) != 0 {
		t.Fatal("an assignment of another cluster was taken")
	}
}

// A server that hangs with its connections open is left for another.
func TestSilentServerIsLeft(t *testing.T) {
	mute, muteAddr := serveScripted(t)
	mute.mute = true
	other, otherAddr := serveScripted(t)
	r := newRig(t, t.TempDir())
	book := &addressBook{join: []string{muteAddr, otherAddr}, leader: muteAddr}
	connected(t, r, book, 300*time.Millisecond)
	p := opened(t, mute)
	p.welcome()
	p.desire(101, true)
	p = opened(t, other)
	p.welcome()
	p.receive(t, "heartbeat", func(m *pb.AgentMessage) bool { return m.GetHeartbeat() != nil })
}
