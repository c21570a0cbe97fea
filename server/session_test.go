package server

import (
	"context"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
	"llmos/transport"
)

func TestHubReplacesAndCuts(t *testing.T) {
	h := newHub()
	first, err := h.open("n-1")
	if err != nil {
		t.Fatal(err)
	}
	second, err := h.open("n-1")
	if err != nil {
		t.Fatal(err)
	}
	select {
	case <-first.cut:
		if fault.Kind(first.why) != pb.ErrorKind_ERROR_KIND_CONFLICT {
			t.Errorf("the older session was cut because %v", first.why)
		}
	default:
		t.Fatal("the older session goes on")
	}
	h.close(first)
	h.send("n-1", first.number, &pb.ServerMessage{})
	if len(second.out) != 0 {
		t.Error("a message for the older session reached the newer")
	}
	for range sessionSendMax {
		h.send("n-1", second.number, &pb.ServerMessage{})
	}
	select {
	case <-second.cut:
		t.Fatal("a session was cut before its queue was full")
	default:
	}
	h.send("n-1", second.number, &pb.ServerMessage{})
	select {
	case <-second.cut:
	default:
		t.Fatal("an agent that does not read was not cut")
	}
	h.send("n-2", 1, &pb.ServerMessage{}) // nobody there
}

// TestReplacedSessionIsSilent has the older of two sessions with news still to hand on.
func TestReplacedSessionIsSilent(t *testing.T) {
	s := alone(t)
	old, err := s.tenure.Load().hub.open("n-1")
	if err != nil {
		t.Fatal(err)
	}
	stream := connect(t, s, agentOf(t, s, "n-1"))
	if err := stream.Send(hello(s.ClusterID(), "n-1")); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil { // the newer session's welcome
		t.Fatal(err)
	}
	late := controller.InventoryChanged{NodeID: "n-1", Node: &pb.Node{Id: "n-1"}}
	if old.post(context.Background(), s.tenure.Load(), late) {
		t.Error("a replaced session handed on an inventory")
	}
}

// agentOf makes an agent's credentials as joining does.
func agentOf(t *testing.T, s *Server, id string) *transport.Credentials {
	t.Helper()
	creds, err := issueNew(s.home.ca, transport.Identity{ClusterID: s.ClusterID(), Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: id},
		nil, transport.NodeCertificateLife, s.Now())
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

func connect(t *testing.T, s *Server, creds *transport.Credentials) grpc.BidiStreamingClient[pb.AgentMessage, pb.ServerMessage] {
	t.Helper()
	conn, err := transport.NewClient(s.Addr(), creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	stream, err := pb.NewSessionServiceClient(conn).Connect(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

func hello(cluster, node string) *pb.AgentMessage {
	return &pb.AgentMessage{Message: &pb.AgentMessage_Hello{Hello: &pb.Hello{ClusterId: cluster, Node: &pb.Node{
		Id: node, Name: node, Addr: "127.0.0.1:1", CpuMilli: 1000, MemoryBytes: 1 << 30, PortMin: 20000, PortMax: 20010}}}}
}

func TestSessions(t *testing.T) {
	s := alone(t)
	refused := func(name string, m *pb.AgentMessage, creds *transport.Credentials, kind pb.ErrorKind) {
		t.Helper()
		stream := connect(t, s, creds)
		_ = stream.Send(m)
		if _, err := stream.Recv(); fault.Kind(err) != kind {
			t.Errorf("%s: %v, want %v", name, err, kind)
		}
	}
	own := agentOf(t, s, "n-1")
	refused("another node", hello(s.ClusterID(), "n-2"), own, pb.ErrorKind_ERROR_KIND_DENIED)
	refused("another cluster", hello("c-other", "n-1"), own, pb.ErrorKind_ERROR_KIND_DENIED)
	refused("no hello", &pb.AgentMessage{Message: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{}}}, own, pb.ErrorKind_ERROR_KIND_INVALID)
	refused("a server as an agent", hello(s.ClusterID(), s.ServerID()), s.home.creds, pb.ErrorKind_ERROR_KIND_DENIED)

	stream := connect(t, s, own)
	if err := stream.Send(hello(s.ClusterID(), "n-1")); err != nil {
		t.Fatal(err)
	}
	m, err := stream.Recv()
	if err != nil || m.GetWelcome() == nil {
		t.Fatalf("the answer to a hello is %v, %v", m, err)
	}
	w := m.GetWelcome()
	if w.LeaderId != s.ServerID() || w.HeartbeatMs != Fast().AgentHeartbeat.Milliseconds() || len(w.ServerAddrs) != 1 || w.ServerAddrs[0] != s.Addr() {
		t.Errorf("welcome %v", w)
	}
	if m, err = stream.Recv(); err != nil || !m.GetDesired().GetFull() {
		t.Fatalf("after the welcome comes %v, %v, want the whole desired set", m, err)
	}
	if node := s.fsm.State().Node("n-1"); node == nil || node.State != pb.NodeState_NODE_STATE_READY {
		t.Errorf("the node is %v", node)
	}
	// A newer session of the node ends this one.
	newer := connect(t, s, own)
	if err := newer.Send(hello(s.ClusterID(), "n-1")); err != nil {
		t.Fatal(err)
	}
	if m, err = newer.Recv(); err != nil || m.GetWelcome() == nil {
		t.Fatalf("the newer session got %v, %v", m, err)
	}
	for err == nil {
		_, err = stream.Recv()
	}
	if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_CONFLICT || !strings.Contains(err.Error(), "newer session") {
		t.Errorf("the older session ended with %v", err)
	}
	// The end of the leadership ends every session.
	s.raft.notify <- false
	for err = nil; err == nil; {
		_, err = newer.Recv()
	}
	if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_NOT_LEADER {
		t.Errorf("the session of a lost leadership ended with %v", err)
	}
}

func TestProgressIsBounded(t *testing.T) {
	s := alone(t)
	state := s.fsm.State()
	s.progress.Note(state, "n-1", []*pb.Progress{{TaskId: "nobody's"}})
	if n := s.progress.Len(); n != 0 {
		t.Errorf("%d tasks that do not exist are remembered", n)
	}
}
