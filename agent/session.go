package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	reconnectMin   = 50 * time.Millisecond
	reconnectMax   = 2 * time.Second
	welcomeTimeout = 5 * time.Second        // from dialling a server to its welcome
	telemetryEvery = 500 * time.Millisecond // between two messages of progress
	heldMin        = reconnectMax           // a shorter session does not make the next try sooner
	heartbeatMin   = 20 * time.Millisecond
	silenceMin     = 5 * time.Second  // see sessions.silence
	silenceBeats   = 3                // heartbeats after which a silent server counts as gone
	ackTimeout     = 15 * time.Second // for a report; the next session repeats it
	inboundMax     = 16               // messages of the server that wait for the session's loop
)

// sessions keeps one session with the leader, whatever it takes to find it. Losing it
// stops nothing: tasks run on, and reports wait.
type sessions struct {
	clusterID  string
	dial       func(addr string) (*grpc.ClientConn, error)
	book       *addressBook
	supervisor *supervisor
	vault      *vault // nil: none
	outbox     *outbox
	node       *nodeBox
	silence    time.Duration // shorter ones of a server are borne
	log        *slog.Logger
}

// errStale ends a session with a server that knows less than this node does.
var errStale = errors.New("the server is behind what this node has seen")

// errSilent ends a session with a server that does not answer.
var errSilent = errors.New("the server is silent")

// errClosed says that the server ended the session without a reason.
var errClosed = errors.New("the server closed it")

// run keeps a session until ctx ends.
func (s *sessions) run(ctx context.Context) {
	s.supervisor.ready(ctx)
	pause := reconnectMin
	for ctx.Err() == nil {
		if s.round(ctx) {
			pause = reconnectMin
		}
		jittered := pause/2 + rand.N(pause)
		select {
		case <-ctx.Done():
		case <-time.After(jittered):
		}
		pause = min(2*pause, reconnectMax)
	}
}

// round asks every known server once, following their hints, until one has held a
// session. It reports whether one did for a while.
func (s *sessions) round(ctx context.Context) (held bool) {
	queue := s.book.candidates()
	if len(queue) == 0 {
		s.log.Warn("no server is known; name one with --join")
	}
	for hops := 0; len(queue) > 0 && ctx.Err() == nil; {
		addr := queue[0]
		queue = queue[1:]
		began := time.Now()
		welcomed, err := s.connect(ctx, addr)
		if ctx.Err() != nil {
			return welcomed
		}
		if welcomed {
			s.log.Info("session ended; the tasks run on", "server", addr, "error", err)
			if next := leaderOf(err); next != "" && next != addr || errors.Is(err, errStale) || errors.Is(err, errSilent) {
				s.book.setLeader(next)
			}
			return time.Since(began) >= heldMin
		}
		s.log.Debug("no session", "server", addr, "error", err)
		if next := leaderOf(err); next != "" && next != addr && hops < hopsMax {
			hops++
			s.book.setLeader(next)
			queue = append([]string{next}, queue...)
		}
	}
	s.book.setLeader("")
	return false
}

// leaderOf gives the leader's address that a NOT_LEADER fault names.
func leaderOf(err error) string {
	if err == nil {
		return ""
	}
	f := fault.From(err).Fault
	if f.GetKind() != pb.ErrorKind_ERROR_KIND_NOT_LEADER {
		return ""
	}
	return f.GetLeaderAddr()
}

// link is one open session.
type link struct {
	*sessions
	stream    grpc.BidiStreamingClient[pb.AgentMessage, pb.ServerMessage]
	addr      string
	welcomed  bool
	full      bool // the whole desired set has come
	heartbeat *time.Ticker
	every     time.Duration // between two heartbeats
	heard     time.Time     // when the server last said something
	acked     uint64        // sequence it acknowledged last
	ackedAt   time.Time     // when it did, or when nothing waited for it
}

// connect opens a session with one server and serves it to its end.
func (s *sessions) connect(parent context.Context, addr string) (welcomed bool, err error) {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	conn, err := s.dial(addr)
	if err != nil {
		return false, fmt.Errorf("dial %s: %w", addr, err)
	}
	defer conn.Close()
	patience := time.AfterFunc(welcomeTimeout, cancel)
	defer patience.Stop()
	stream, err := pb.NewSessionServiceClient(conn).Connect(ctx)
	if err != nil {
		return false, fmt.Errorf("open a session with %s: %w", addr, err)
	}
	l := &link{sessions: s, stream: stream, addr: addr, heartbeat: time.NewTicker(time.Hour)}
	defer l.heartbeat.Stop()
	s.outbox.reconnected()
	node, changed := s.node.get()
	hello := &pb.Hello{Node: node, Tasks: s.supervisor.list(), SeenIndex: s.supervisor.seen.Load(), ClusterId: s.clusterID}
	inbound := make(chan *pb.ServerMessage, inboundMax)
	failed := make(chan error, 1)
	var receiving sync.WaitGroup
	receiving.Go(func() { l.receive(ctx, inbound, failed) })
	defer receiving.Wait()
	defer cancel()
	err = l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Hello{Hello: hello}})
	if err == nil {
		err = l.serve(ctx, changed, inbound, failed, func() { patience.Stop() })
	}
	if err = reason(err, inbound, failed); err != nil {
		err = fmt.Errorf("session with %s: %w", addr, err)
	}
	return l.welcomed, err
}

// send sends one message; io.EOF says that the reason comes from receive.
func (l *link) send(m *pb.AgentMessage) error { return l.stream.Send(m) }

func (l *link) receive(ctx context.Context, inbound chan<- *pb.ServerMessage, failed chan<- error) {
	for {
		m, err := l.stream.Recv()
		if errors.Is(err, io.EOF) {
			err = errClosed // io.EOF means to a sender that the reason comes from here
		}
		if err != nil {
			failed <- err
			return
		}
		select {
		case inbound <- m:
		case <-ctx.Done():
			failed <- ctx.Err()
			return
		}
	}
}

// reason gives why the stream has ended, when a send has only seen that it has.
func reason(err error, inbound <-chan *pb.ServerMessage, failed <-chan error) error {
	for errors.Is(err, io.EOF) {
		select {
		case <-inbound:
		case err = <-failed:
			return err
		}
	}
	return err
}

// serve is the session's loop: the one sender, and the order of what comes in.
func (l *link) serve(ctx context.Context, inventory <-chan struct{}, inbound <-chan *pb.ServerMessage, failed <-chan error, welcome func()) error {
	telemetry := time.NewTicker(telemetryEvery)
	defer telemetry.Stop()
	var reports <-chan struct{} // only after the welcome
	for {
		var err error
		select {
		case <-ctx.Done():
			_ = l.stream.CloseSend()
			return ctx.Err()
		case err = <-failed:
			return err
		case m := <-inbound:
			if err = l.take(m); err == nil && l.welcomed && reports == nil {
				welcome()
				reports = l.outbox.reports
			}
		case <-reports:
			if r := l.outbox.take(); r != nil {
				// What a task said last goes out before the word that it has ended.
				if err = l.tell(); err == nil {
					err = l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Reports{Reports: r}})
				}
			}
		case <-telemetry.C:
			err = l.tell()
		case <-l.heartbeat.C:
			err = l.beat(time.Now())
		case <-inventory:
			var node *pb.Node
			node, inventory = l.node.get()
			err = l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Inventory{Inventory: node}})
		}
		if err != nil {
			return err
		}
	}
}

// beat sends a heartbeat. A server that has been quiet for a while is asked to repeat its
// last acknowledgement, so that one that hangs, or that no longer reaches us, is left in
// seconds and not when TCP gives up.
func (l *link) beat(now time.Time) error {
	if l.outbox.unacknowledged() == 0 {
		l.ackedAt = now
	}
	switch quiet := now.Sub(l.heard); {
	case quiet > max(silenceBeats*l.every, l.silence):
		return fmt.Errorf("%w for %s", errSilent, quiet.Round(time.Millisecond))
	case now.Sub(l.ackedAt) > ackTimeout:
		return fmt.Errorf("%w with reports that are not acknowledged", errSilent)
	case quiet > l.every:
		return l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Reports{Reports: &pb.Reports{Seq: l.acked}}})
	}
	return l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{TimeMs: now.UnixMilli()}}})
}

// tell sends the progress that has changed, once the server has welcomed this node.
func (l *link) tell() error {
	if !l.welcomed {
		return nil
	}
	p, node := l.outbox.takeProgress(), l.outbox.takeNode()
	if len(p) == 0 && node == nil {
		return nil
	}
	return l.send(&pb.AgentMessage{Message: &pb.AgentMessage_Telemetry{Telemetry: &pb.Telemetry{Progress: p, Node: node}}})
}

// take acts on one message of the server.
func (l *link) take(m *pb.ServerMessage) error {
	l.heard = time.Now()
	switch m := m.GetMessage().(type) {
	case *pb.ServerMessage_Welcome:
		w := m.Welcome
		if w.GetClusterId() != l.clusterID {
			return fmt.Errorf("server %s is of cluster %s, and this node of %s", l.addr, w.GetClusterId(), l.clusterID)
		}
		l.welcomed = true
		l.book.setLeader(l.addr)
		l.book.learn(w.GetServerAddrs())
		// A little more often than asked: a late heartbeat must not look like silence.
		l.every = max(time.Duration(w.GetHeartbeatMs())*time.Millisecond*2/3, heartbeatMin)
		l.heartbeat.Reset(l.every)
		l.ackedAt = l.heard
		l.log.Info("session open", "leader", w.GetLeaderId(), "addr", l.addr)
	case *pb.ServerMessage_Desired:
		return l.desired(m.Desired)
	case *pb.ServerMessage_Acknowledge:
		if seq := m.Acknowledge.GetSeq(); seq > l.acked {
			l.acked, l.ackedAt = seq, l.heard
		}
		if done := l.outbox.acknowledge(l.acked); len(done) > 0 {
			l.supervisor.post(ackNews{done})
		}
	}
	return nil
}

// desired passes a desired set on, unless it comes from a server that has been left
// behind: what that one does not know would be stopped.
func (l *link) desired(d *pb.Desired) error {
	if !l.welcomed || !l.full && !d.GetFull() {
		return fmt.Errorf("it did not begin with a welcome and a full desired set")
	}
	if seen := l.supervisor.seen.Load(); d.GetFull() && d.GetIndex() < seen {
		return fmt.Errorf("its desired set is of index %d, seen is %d: %w", d.GetIndex(), seen, errStale)
	}
	l.full = true
	l.supervisor.post(desiredNews{d})
	if h := d.GetHoldings(); h != nil && l.vault != nil {
		l.vault.hold(h)
	}
	return nil
}
