package server

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
	"llmos/transport"
)

// Limits of agents' sessions.
const (
	sessionsMax    = 16384
	sessionSendMax = 256              // messages that wait for an agent; a slower one is cut
	helloWait      = 10 * time.Second // for the first message
	reportsMax     = 65536            // task reports in one message
)

// hub holds the sessions of one leadership, at most one for each node.
type hub struct {
	mu       sync.Mutex
	next     uint64
	sessions map[string]*session
}

// session is one agent's open stream.
type session struct {
	node   string
	number uint64 // grows with every session of this leadership
	out    chan *pb.ServerMessage

	once sync.Once
	cut  chan struct{} // closed to end the session
	why  error         // set before cut is closed

	before  *session   // the one it replaced; nil: none
	posting sync.Mutex // held while an event is handed on
	retired bool
}

// retire ends the handing on of a replaced session's events: what its agent said before
// must not come to the controller behind the hello of the newer one.
func (s *session) retire() {
	s.posting.Lock()
	defer s.posting.Unlock()
	s.retired = true
}

// post hands an event on; false when the session or the leadership has ended.
func (s *session) post(ctx context.Context, t *tenure, ev controller.Event) bool {
	s.posting.Lock()
	defer s.posting.Unlock()
	return !s.retired && t.post(ctx, ev)
}

func newHub() *hub { return &hub{sessions: map[string]*session{}} }

// open begins a session; an older one of the same node is cut.
func (h *hub) open(node string) (*session, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	old := h.sessions[node]
	if old == nil && len(h.sessions) >= sessionsMax {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the leader has %d agents connected, as many as it takes", sessionsMax)
	}
	if old != nil {
		old.end(fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "a newer session of node %s has taken over", node))
	}
	h.next++
	s := &session{node: node, number: h.next, before: old, out: make(chan *pb.ServerMessage, sessionSendMax), cut: make(chan struct{})}
	h.sessions[node] = s
	return s, nil
}

// close forgets a session unless a newer one has its place.
func (h *hub) close(s *session) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.sessions[s.node] == s {
		delete(h.sessions, s.node)
	}
}

// send queues a message for a session. It never blocks: a session that is gone is passed
// over, and one whose queue is full is cut; the agent reconnects and gets the whole set.
func (h *hub) send(node string, number uint64, m *pb.ServerMessage) {
	h.mu.Lock()
	s := h.sessions[node]
	h.mu.Unlock()
	if s == nil || s.number != number {
		return
	}
	select {
	case s.out <- m:
	default:
		s.end(fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "node %s reads too slowly: %d messages wait for it", node, sessionSendMax))
	}
}

// end cuts a session that the controller refuses.
func (h *hub) end(node string, number uint64, why error) {
	h.mu.Lock()
	s := h.sessions[node]
	h.mu.Unlock()
	if s != nil && s.number == number {
		s.end(why)
	}
}

// end cuts the session with the reason that its agent is told.
func (s *session) end(why error) {
	s.once.Do(func() {
		s.why = why
		close(s.cut)
	})
}

// sessionService serves SessionService.
type sessionService struct {
	pb.UnimplementedSessionServiceServer
	server *Server
}

type agentStream = grpc.BidiStreamingServer[pb.AgentMessage, pb.ServerMessage]

// Connect holds one agent's session until the agent, a newer session of its node, a full
// queue or the end of the leadership ends it.
func (ss *sessionService) Connect(stream agentStream) error {
	t := ss.server.tenure.Load()
	if t == nil {
		return ss.server.notLeader()
	}
	hello, err := firstHello(stream)
	if err != nil {
		return err
	}
	if err := ss.admit(stream.Context(), hello); err != nil {
		return err
	}
	s, err := t.hub.open(hello.Node.Id)
	if err != nil {
		return err
	}
	defer t.hub.close(s)
	if s.before != nil {
		s.before.retire()
		s.before = nil
	}
	if !t.post(stream.Context(), controller.SessionOpened{NodeID: s.node, Session: s.number, Hello: hello}) {
		return ss.server.notLeader()
	}
	ss.server.log.Info("agent connected", "node", s.node, "name", hello.Node.Name, "session", s.number)
	err = ss.serve(stream, t, s)
	t.post(context.WithoutCancel(stream.Context()), controller.SessionClosed{NodeID: s.node, Session: s.number})
	ss.server.log.Info("agent disconnected", "node", s.node, "session", s.number, "reason", err)
	return err
}

// firstHello waits for the first message, which must be a Hello.
func firstHello(stream agentStream) (*pb.Hello, error) {
	type received struct {
		m   *pb.AgentMessage
		err error
	}
	ch := make(chan received, 1)
	go func() {
		m, err := stream.Recv()
		ch <- received{m, err}
	}()
	timer := time.NewTimer(helloWait)
	defer timer.Stop()
	select {
	case r := <-ch:
		if r.err != nil {
			return nil, r.err
		}
		hello := r.m.GetHello()
		if hello.GetNode() == nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the first message of a session is not a hello with a node")
		}
		return hello, nil
	case <-timer.C:
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_TIMEOUT, "no hello came within %s", helloWait)
	}
}

// admit checks that the certificate speaks for the node that says hello.
func (ss *sessionService) admit(ctx context.Context, hello *pb.Hello) error {
	id, ok := transport.PeerIdentity(ctx)
	if !ok || id.Role != pb.MemberRole_MEMBER_ROLE_AGENT {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "only agents open sessions").Hint("join with an agent token")
	}
	if id.MemberID != hello.Node.Id {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "the certificate is of %s, and the hello of node %s", id, hello.Node.Id)
	}
	if hello.ClusterId != ss.server.ClusterID() {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "node %s belongs to cluster %q, and this is cluster %s", hello.Node.Id, hello.ClusterId, ss.server.ClusterID()).
			Hint("give the agent a data directory of this cluster, or join it with a token")
	}
	if len(hello.Tasks) > reportsMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "a hello lists %d tasks, at most %d", len(hello.Tasks), reportsMax)
	}
	return nil
}

// serve moves messages both ways. Sending has a goroutine of its own: a Send that is
// blocked on a dead agent ends when this method returns.
func (ss *sessionService) serve(stream agentStream, t *tenure, s *session) error {
	ended := make(chan error, 2)
	go func() { ended <- ss.receive(stream, t, s) }()
	go func() {
		for {
			select {
			case m := <-s.out:
				if err := stream.Send(m); err != nil {
					ended <- err
					return
				}
			case <-stream.Context().Done():
				return
			}
		}
	}()
	select {
	case err := <-ended:
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	case <-s.cut:
		return s.why
	case <-t.ctx.Done():
		return ss.server.notLeader()
	}
}

// receive turns an agent's messages into the controller's events.
func (ss *sessionService) receive(stream agentStream, t *tenure, s *session) error {
	ctx := stream.Context()
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		var ev controller.Event = controller.Heard{NodeID: s.node}
		switch {
		case m.GetReports() != nil:
			r := m.GetReports()
			if n := len(r.Reports) + len(r.Checkpoints); n > reportsMax {
				return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "a message holds %d reports, at most %d", n, reportsMax)
			}
			ev = controller.ReportsArrived{NodeID: s.node, Session: s.number, Seq: r.Seq, Reports: r.Reports, Checkpoints: r.Checkpoints}
		case m.GetInventory() != nil:
			if m.GetInventory().Id != s.node {
				return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "node %s sent the inventory of node %s", s.node, m.GetInventory().Id)
			}
			ev = controller.InventoryChanged{NodeID: s.node, Node: m.GetInventory()}
		case m.GetTelemetry() != nil:
			ss.server.progress.Note(ss.server.fsm.State(), s.node, m.GetTelemetry().Progress)
			ss.server.samples.note(s.node, m.GetTelemetry().Node)
			ev = controller.ProgressArrived{NodeID: s.node, Progress: m.GetTelemetry().Progress}
		case m.GetHello() != nil:
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a second hello came in one session")
		}
		if !s.post(ctx, t, ev) {
			return ss.server.notLeader()
		}
	}
}
