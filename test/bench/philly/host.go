package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"

	pb "llmos/proto/llmos/v1"
	"llmos/test/rig"
	"llmos/transport"
)

// host is a scripted agent: it joins as a real one, says that tasks run as soon as they are
// assigned, and that they have ended after the time that their command names.
type host struct {
	stream grpc.BidiStreamingClient[pb.AgentMessage, pb.ServerMessage]
	conn   *grpc.ClientConn
	cancel context.CancelFunc

	mu      sync.Mutex
	reports []*pb.TaskReport
	news    chan struct{} // holds one: there are reports to send
	changed chan struct{} // holds one: a job ended, or the stream did
	seen    map[string]bool
	started map[string]time.Time // by job name
	ends    map[uint64]int       // jobs that ended, by the number of the batch that says so
	done    int                  // of which the server has committed the end
	err     error
}

func joinHost(ctx context.Context, cluster *rig.Cluster, cpus int64) (*host, error) {
	shown, err := cluster.Token(ctx, "agent")
	if err != nil {
		return nil, fmt.Errorf("make a token: %w", err)
	}
	token, err := transport.ParseToken(shown)
	if err != nil {
		return nil, err
	}
	const id = "n-0000000bench"
	addr := cluster.Servers[0].Addr
	joined, err := transport.Join(ctx, transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: pb.MemberRole_MEMBER_ROLE_AGENT,
		MemberID: id, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		return nil, fmt.Errorf("join a host: %w", err)
	}
	conn, err := transport.NewClient(addr, joined.Credentials, pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	h := &host{conn: conn, cancel: cancel, news: make(chan struct{}, 1), changed: make(chan struct{}, 1),
		seen: map[string]bool{}, started: map[string]time.Time{}, ends: map[uint64]int{}}
	if h.stream, err = pb.NewSessionServiceClient(conn).Connect(ctx); err != nil {
		h.close()
		return nil, fmt.Errorf("open a session: %w", err)
	}
	node := &pb.Node{Id: id, Name: "bench", Addr: "127.0.0.1:1", BootId: "boot", CpuMilli: cpus * 1000, MemoryBytes: 4 << 40,
		PortMin: 20000, PortMax: 29999, NumaNodes: 1}
	hello := &pb.Hello{Node: node, ClusterId: joined.Credentials.Identity().ClusterID}
	if err := h.stream.Send(&pb.AgentMessage{Message: &pb.AgentMessage_Hello{Hello: hello}}); err != nil {
		h.close()
		return nil, fmt.Errorf("say hello: %w", err)
	}
	go h.send(ctx)
	go h.receive(ctx)
	return h, nil
}

func (h *host) close() {
	h.cancel()
	_ = h.conn.Close()
}

const beatEvery = 500 * time.Millisecond

// send is the only sender of the stream: heartbeats, and reports as soon as there are any.
func (h *host) send(ctx context.Context) {
	beat := time.NewTicker(beatEvery)
	defer beat.Stop()
	for seq := uint64(1); ; {
		m := &pb.AgentMessage{Message: &pb.AgentMessage_Heartbeat{Heartbeat: &pb.Heartbeat{}}}
		select {
		case <-ctx.Done():
			return
		case <-beat.C:
		case <-h.news:
			h.mu.Lock()
			reports := h.reports
			h.reports = nil
			for _, r := range reports {
				if r.State == pb.TaskState_TASK_STATE_SUCCEEDED {
					h.ends[seq]++
				}
			}
			h.mu.Unlock()
			if len(reports) == 0 {
				continue
			}
			m = &pb.AgentMessage{Message: &pb.AgentMessage_Reports{Reports: &pb.Reports{Seq: seq, Reports: reports}}}
			seq++
		}
		if err := h.stream.Send(m); err != nil {
			h.fail(err)
			return
		}
	}
}

func (h *host) say(r *pb.TaskReport) {
	h.mu.Lock()
	h.reports = append(h.reports, r)
	h.mu.Unlock()
	nudge(h.news)
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func (h *host) fail(err error) {
	h.mu.Lock()
	if h.err == nil {
		h.err = err
	}
	h.mu.Unlock()
	nudge(h.changed)
}

func (h *host) receive(ctx context.Context) {
	for acked := uint64(0); ; {
		m, err := h.stream.Recv()
		if err != nil {
			h.fail(err)
			return
		}
		for _, a := range m.GetDesired().GetAssignments() {
			h.obey(ctx, a)
		}
		if ack := m.GetAcknowledge(); ack != nil {
			h.mu.Lock()
			for ; acked < ack.Seq; acked++ {
				h.done += h.ends[acked+1]
				delete(h.ends, acked+1)
			}
			h.mu.Unlock()
			nudge(h.changed)
		}
	}
}

func (h *host) obey(ctx context.Context, a *pb.Assignment) {
	t := a.Task
	if t.Desired == pb.TaskDesired_TASK_DESIRED_STOP {
		h.fail(fmt.Errorf("task %s is to be stopped", t.Id))
		return
	}
	h.mu.Lock()
	known := h.seen[t.Id]
	h.seen[t.Id] = true
	if !known {
		h.started[a.JobName] = time.Now()
	}
	h.mu.Unlock()
	if known {
		return
	}
	run, err := time.ParseDuration(a.Role.GetCommand()[1])
	if err != nil {
		h.fail(err)
		return
	}
	h.say(&pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_RUNNING, StartedMs: time.Now().UnixMilli()})
	time.AfterFunc(run, func() {
		h.say(&pb.TaskReport{TaskId: t.Id, Epoch: t.Epoch, State: pb.TaskState_TASK_STATE_SUCCEEDED, EndedMs: time.Now().UnixMilli()})
	})
}

// waitDone waits until the server has committed the end of so many jobs.
func (h *host) waitDone(ctx context.Context, jobs int) error {
	for {
		h.mu.Lock()
		done, err := h.done, h.err
		h.mu.Unlock()
		switch {
		case err != nil:
			return fmt.Errorf("the host's session: %w", err)
		case done >= jobs:
			return nil
		}
		select {
		case <-h.changed:
		case <-ctx.Done():
			return fmt.Errorf("%d of %d workloads have ended: %w", done, jobs, context.Cause(ctx))
		}
	}
}
