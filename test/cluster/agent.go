package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// Agent is a scripted agent: a joined member with a node of any shape, which does and says
// what its test tells it and runs nothing.
type Agent struct {
	Node *pb.Node

	c     *Cluster
	creds *transport.Credentials
}

// Session is one open session of a scripted agent. It sends heartbeats until Mute and
// collects what the server sends.
type Session struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[pb.AgentMessage, pb.ServerMessage]
	conn   *grpc.ClientConn
	cancel context.CancelFunc
	muted  chan struct{}
	mute   sync.Once
	send   sync.Mutex // a stream has one sender at a time
	seq    uint64

	mu      sync.Mutex
	news    chan struct{} // closed at the next change of what follows
	welcome *pb.Welcome
	full    bool                      // the whole desired set has come
	orders  map[string]*pb.Assignment // newest by task ID
	forgot  map[string]bool
	acked   uint64
	ended   error
}

// Agent joins an agent whose node has so many CPUs and whole GPUs, and 64 GiB of memory.
func (c *Cluster) Agent(name string, cpus int64, gpus int) *Agent {
	c.t.Helper()
	token, err := transport.ParseToken(c.Token(pb.MemberRole_MEMBER_ROLE_AGENT))
	if err != nil {
		c.t.Fatal(err)
	}
	var random [6]byte
	_, _ = rand.Read(random[:])
	id := "n-" + hex.EncodeToString(random[:])
	joined, err := transport.Join(c.Context(), transport.JoinRequest{Addrs: c.Addrs(), Token: token,
		Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: id, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		c.t.Fatalf("join agent %s: %v", name, err)
	}
	node := &pb.Node{Id: id, Name: name, Addr: "127.0.0.1:1", BootId: "boot-" + name, CpuMilli: cpus * 1000,
		MemoryBytes: 64 << 30, PortMin: 20000, PortMax: 29999, NumaNodes: 1}
	for i := range gpus {
		node.Devices = append(node.Devices, &pb.Device{Id: fmt.Sprintf("GPU-%s-%d", name, i), Kind: "gpu", Vendor: "scripted",
			Model: "H100-80GB", MemoryBytes: 80 << 30, Health: pb.DeviceHealth_DEVICE_HEALTH_OK, Index: int32(i), NumaNode: -1})
	}
	return &Agent{Node: node, c: c, creds: joined.Credentials}
}

// Connect opens a session with the leader, whose hello reports the given tasks, and waits
// until the whole desired set has come.
func (a *Agent) Connect(tasks ...*pb.TaskReport) *Session {
	a.c.t.Helper()
	var s *Session
	Wait(a.c.t, "a session of "+a.Node.Name, func() bool {
		s = a.dial(a.c.Leader().Addr(), tasks)
		return s.settle()
	})
	return s
}

// Dial opens a session with the server at the address and waits for nothing; see Err.
func (a *Agent) Dial(addr string, tasks ...*pb.TaskReport) *Session {
	a.c.t.Helper()
	return a.dial(addr, tasks)
}

func (a *Agent) dial(addr string, tasks []*pb.TaskReport) *Session {
	conn, err := transport.NewClient(addr, a.creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		a.c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	s := &Session{t: a.c.t, conn: conn, cancel: cancel, muted: make(chan struct{}), news: make(chan struct{}),
		orders: map[string]*pb.Assignment{}, forgot: map[string]bool{}}
	a.c.t.Cleanup(s.Drop)
	if s.stream, err = pb.NewSessionServiceClient(conn).Connect(ctx); err != nil {
		s.ended = err
		return s
	}
	hello := &pb.Hello{Node: a.Node, Tasks: tasks, ClusterId: a.creds.Identity().ClusterID}
	_ = s.stream.Send(&pb.AgentMessage{Message: &pb.AgentMessage_Hello{Hello: hello}}) // Recv gives the reason
	go s.receive()
	return s
}

// settle waits for the full desired set; false when the session ended first.
func (s *Session) settle() bool {
	s.await("the full desired set", func() bool { return s.full || s.ended != nil })
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended == nil
}

func (s *Session) receive() {
	for {
		m, err := s.stream.Recv()
		s.mu.Lock()
		if err != nil {
			s.ended = fault.From(err)
		} else if w := m.GetWelcome(); w != nil {
			s.welcome = w
			go s.beat(time.Duration(w.HeartbeatMs) * time.Millisecond)
		} else if d := m.GetDesired(); d != nil {
			s.take(d)
		} else if ack := m.GetAcknowledge(); ack != nil {
			s.acked = max(s.acked, ack.Seq)
		}
		close(s.news)
		s.news = make(chan struct{})
		s.mu.Unlock()
		if err != nil {
			return
		}
	}
}

func (s *Session) take(d *pb.Desired) {
	if d.Full {
		s.full = true
		clear(s.orders)
	}
	for _, a := range d.Assignments {
		s.orders[a.Task.Id] = a
	}
	for _, id := range d.Forget {
		s.forgot[id] = true
		delete(s.orders, id)
	}
}

func (s *Session) beat(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if s.say(&pb.AgentMessage{Message: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{}}}) != nil {
				return
			}
		case <-s.muted:
			return
		case <-s.stream.Context().Done():
			return
		}
	}
}

func (s *Session) say(m *pb.AgentMessage) error {
	s.send.Lock()
	defer s.send.Unlock()
	return s.stream.Send(m)
}

// await waits until the condition, which is called with the lock held, holds.
func (s *Session) await(what string, condition func() bool) {
	s.t.Helper()
	deadline := time.NewTimer(Patience)
	defer deadline.Stop()
	s.mu.Lock()
	defer s.mu.Unlock()
	for !condition() {
		news := s.news
		s.mu.Unlock()
		select {
		case <-news:
			s.mu.Lock()
		case <-deadline.C:
			s.mu.Lock()
			s.t.Fatalf("waited %s for %s; the session's end: %v", Patience, what, s.ended)
		}
	}
}

// Order waits for an assignment of the job whose task should run, or stop, as desired says.
func (s *Session) Order(jobID string, desired pb.TaskDesired) *pb.Assignment {
	s.t.Helper()
	var found *pb.Assignment
	s.await(fmt.Sprintf("an order %s of job %s", desired, jobID), func() bool {
		for _, id := range s.ids() {
			if a := s.orders[id]; a.Task.JobId == jobID && a.Task.Desired == desired {
				found = a
				return true
			}
		}
		return s.ended != nil
	})
	if found == nil {
		s.t.Fatalf("the session ended before an order for job %s: %v", jobID, s.Err())
	}
	return found
}

// ids gives the tasks of the orders, ascending; the caller holds the lock.
func (s *Session) ids() []string {
	var ids []string
	for id := range s.orders {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// Orders gives the IDs of the tasks that the server wants something of, ascending.
func (s *Session) Orders() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ids()
}

// Report sends the reports as one batch and waits for its acknowledgement.
func (s *Session) Report(reports ...*pb.TaskReport) {
	s.t.Helper()
	seq := s.Send(reports...)
	s.await("the acknowledgement", func() bool { return s.acked >= seq || s.ended != nil })
	if err := s.Err(); err != nil {
		s.t.Fatalf("the session ended before the acknowledgement: %v", err)
	}
}

// Send sends the reports as one batch and gives its number.
func (s *Session) Send(reports ...*pb.TaskReport) uint64 {
	s.seq++
	_ = s.say(&pb.AgentMessage{Message: &pb.AgentMessage_Reports{Reports: &pb.Reports{Seq: s.seq, Reports: reports}}})
	return s.seq
}

// Acked gives the number of the newest batch that is acknowledged.
func (s *Session) Acked() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acked
}

// AwaitForget waits until the server says that the task's record may go.
func (s *Session) AwaitForget(taskID string) {
	s.t.Helper()
	s.await("leave to forget "+taskID, func() bool { return s.forgot[taskID] || s.ended != nil })
}

// Mute ends the heartbeats; the stream stays open.
func (s *Session) Mute() { s.mute.Do(func() { close(s.muted) }) }

// Drop ends the session as a broken connection does.
func (s *Session) Drop() {
	s.cancel()
	_ = s.conn.Close()
}

// AwaitEnd waits until the server ends the session and gives its reason.
func (s *Session) AwaitEnd() error {
	s.t.Helper()
	s.await("the session's end", func() bool { return s.ended != nil })
	return s.Err()
}

// Err gives why the session has ended; nil while it is open.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ended
}

// Seen makes the report of a task in a state.
func Seen(t *pb.Task, state pb.TaskState) *pb.TaskReport {
	return &pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: state, StartedMs: 1}
}
