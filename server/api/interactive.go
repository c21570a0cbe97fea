package api

import (
	"context"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"

	"llmos/fsm/state"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// visitWait is how long a command or a connection waits for its task to run, and for this
// server to hear of it.
const visitWait = 3 * time.Second

// Exec joins the caller to a command beside a task. The server that was asked does it, not the
// leader: what people type needs no agreement.
func (s *cluster) Exec(caller grpc.BidiStreamingServer[pb.ExecInput, pb.ExecOutput]) error {
	first, err := caller.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the first message must say what to run, and where")
	}
	return bridge(s, caller, first, start.JobId, start.Rank, func(ctx context.Context, agent pb.AgentServiceClient, taskID string) (grpc.BidiStreamingClient[pb.ExecInput, pb.ExecOutput], error) {
		start.TaskId = taskID
		return agent.Exec(ctx)
	})
}

// Forward joins the caller to a port on which a task listens.
func (s *cluster) Forward(caller grpc.BidiStreamingServer[pb.ForwardInput, pb.ForwardOutput]) error {
	first, err := caller.Recv()
	if err != nil {
		return err
	}
	start := first.GetStart()
	if start == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the first message must name a job and a port")
	}
	return bridge(s, caller, first, start.JobId, start.Rank, func(ctx context.Context, agent pb.AgentServiceClient, taskID string) (grpc.BidiStreamingClient[pb.ForwardInput, pb.ForwardOutput], error) {
		start.TaskId = taskID
		return agent.Forward(ctx)
	})
}

// bridge finds the task, opens a stream to its agent, and passes on what both sides say.
func bridge[In, Out any](s *cluster, caller grpc.BidiStreamingServer[In, Out], first *In, job string, rank int32,
	open func(ctx context.Context, agent pb.AgentServiceClient, taskID string) (grpc.BidiStreamingClient[In, Out], error)) error {
	ctx, cancel := s.visiting(caller.Context())
	defer cancel()
	conn, task, err := s.visit(ctx, job, rank)
	if err != nil {
		return err
	}
	agent, err := open(ctx, pb.NewAgentServiceClient(conn), task.Id)
	if err != nil {
		return fault.Crossed(err, false)
	}
	return relay(caller, agent, first)
}

// visiting gives a context that ends with the call, or when this server begins to stop.
func (s *cluster) visiting(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopping := s.b.Stopping()
	go func() {
		select {
		case <-stopping:
			cancel(fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "server %s is stopping", s.b.ServerID()).Hint("the same command again asks another"))
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// relay passes on what both say until the agent has no more to say. The first message has been
// read already.
func relay[In, Out any](caller grpc.BidiStreamingServer[In, Out], agent grpc.BidiStreamingClient[In, Out], first *In) error {
	if err := agent.Send(first); err != nil && !errors.Is(err, io.EOF) {
		return fault.Crossed(err, false)
	}
	go func() { // ends with the call: Recv does
		for {
			in, err := caller.Recv()
			if err != nil {
				_ = agent.CloseSend()
				return
			}
			if agent.Send(in) != nil {
				return // Recv below says why
			}
		}
	}()
	for {
		out, err := agent.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if cause := context.Cause(agent.Context()); cause != nil && fault.Kind(cause) == pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
				return cause
			}
			return fault.Crossed(err, false)
		}
		if err := caller.Send(out); err != nil {
			return err
		}
	}
}

// visit finds the running task of a rank, and a connection to its agent.
func (s *cluster) visit(ctx context.Context, name string, rank int32) (*grpc.ClientConn, *pb.Task, error) {
	ctx, cancel := context.WithTimeout(ctx, visitWait)
	defer cancel()
	for {
		changed := s.b.Changed()
		task, final, err := taskToVisit(s.b.Stale(), name, rank)
		if err == nil {
			node := s.b.Stale().Node(task.NodeId)
			conn, err := s.b.AgentConn(node.GetAddr())
			if err != nil {
				return nil, nil, fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "reach node %s: %w", node.GetName(), err)
			}
			return conn, task, nil
		}
		if final {
			return nil, nil, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, err
		}
	}
}

// taskToVisit finds a rank's running task. final says that waiting would not help.
func taskToVisit(st *state.State, name string, rank int32) (task *pb.Task, final bool, err error) {
	job, err := findJob(st, name)
	if err != nil {
		return nil, false, err
	}
	if isParent(job) {
		return nil, true, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s starts copies and has no tasks of its own", job.Id).
			Hint("name a copy: %s_0", job.Id)
	}
	world := int32(0)
	for t := range st.JobTasks(job.Id, job.Epoch) {
		world++
		if t.Rank == rank && t.State == pb.TaskState_TASK_STATE_RUNNING {
			return t, true, nil
		}
	}
	if rank < 0 || world > 0 && rank >= world {
		return nil, true, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "job %s has no rank %d: its ranks are 0 to %d", job.Id, rank, max(0, world-1)).At("rank", 0)
	}
	f := fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "rank %d of job %s does not run: the job is %s", rank, job.Id,
		strings.ToLower(strings.TrimPrefix(job.State.String(), "JOB_STATE_")))
	if state.JobFinished(job.State) {
		return nil, true, f.Hint("llmos run starts it again, as a new job")
	}
	return nil, false, f.Hint("llmos why %s says what it waits for", job.Id)
}
