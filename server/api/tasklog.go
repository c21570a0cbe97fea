package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// taskRead reads one task's output from its agent, over as many connections as it takes.
type taskRead struct {
	r    *logRead
	task *pb.Task
	next int64 // offset of the first byte not yet sent
	tail int64
	done bool // the last chunk was sent

	heard atomic.Uint64 // counts chunks
	busy  atomic.Bool   // the caller is being sent one: it is not the agent that is silent
}

// follow reads until the task has ended. It returns why the rest cannot be read, or "".
func (t *taskRead) follow(ctx context.Context) string {
	end := t.end(ctx)
	wait, tries := agentBackoff, 0
	for {
		before := t.heard.Load()
		err := t.once(ctx, end)
		if t.done || ctx.Err() != nil {
			return ""
		}
		if t.heard.Load() != before {
			wait, tries = agentBackoff, 0
		}
		select {
		case <-end:
			if err == nil {
				return ""
			}
			if tries++; tries > agentRetries || t.hopeless(err) {
				return t.why(err)
			}
		default:
		}
		pause(ctx, wait)
		wait = min(2*wait, agentBackoffN)
	}
}

// end gives a channel that is closed when the task's record says that it has ended.
func (t *taskRead) end(ctx context.Context) <-chan struct{} {
	end := make(chan struct{})
	go func() {
		for {
			st := t.r.b.Stale()
			changed := st.WatchJob(t.task.JobId)
			if ended(currentTask(st, t.task)) || st.Job(t.task.JobId) == nil {
				close(end)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	return end
}

// hopeless says whether another try for an ended task is in vain.
func (t *taskRead) hopeless(err error) bool {
	n := t.r.b.Stale().Node(t.task.NodeId)
	return n.GetState() != pb.NodeState_NODE_STATE_READY || errors.Is(err, errSilent) || fault.Kind(err) == pb.ErrorKind_ERROR_KIND_NOT_FOUND
}

// why tells in words why a task cannot be read; "" when there is nothing to read.
func (t *taskRead) why(err error) string {
	st := t.r.b.Stale()
	node, now := st.Node(t.task.NodeId), currentTask(st, t.task)
	switch {
	case fault.Kind(err) == pb.ErrorKind_ERROR_KIND_NOT_FOUND && now.StartedMs == 0:
		return ""
	case node == nil:
		return fmt.Sprintf("its node %s has been removed", t.task.NodeId)
	case fault.Kind(err) == pb.ErrorKind_ERROR_KIND_NOT_FOUND:
		return fmt.Sprintf("node %s no longer has it", node.Name)
	case errors.Is(err, errSilent) || fault.Kind(err) == pb.ErrorKind_ERROR_KIND_UNAVAILABLE:
		return fmt.Sprintf("node %s (%s) does not answer", node.Name, node.Addr)
	}
	return fmt.Sprintf("node %s: %s", node.Name, fault.From(err).Fault.Message)
}

var errSilent = errors.New("the agent is silent")

// once reads over one stream. Once armed is closed, a silent agent is cut off.
func (t *taskRead) once(ctx context.Context, armed <-chan struct{}) error {
	node := t.r.b.Stale().Node(t.task.NodeId)
	if node == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "node %s is not registered", t.task.NodeId)
	}
	conn, err := t.r.b.AgentConn(node.Addr)
	if err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "reach node %s: %w", node.Name, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go t.guard(ctx, cancel, armed)
	err = t.drain(ctx, conn)
	if errors.Is(context.Cause(ctx), errSilent) {
		return errSilent
	}
	return fault.Crossed(err, false)
}

func (t *taskRead) drain(ctx context.Context, conn *grpc.ClientConn) error {
	stream, err := pb.NewAgentServiceClient(conn).ReadLogs(ctx, &pb.ReadLogsRequest{
		JobId: t.task.JobId, Rank: t.task.Rank, TaskId: t.task.Id, Epoch: t.task.Epoch,
		Follow: t.r.follow, Offset: t.next, TailLines: t.tail,
	}, grpc.WaitForReady(true))
	if err != nil {
		return err
	}
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		t.heard.Add(1)
		if err := t.forward(chunk); err != nil {
			return err
		}
		if chunk.End {
			t.done = true
			return nil
		}
	}
}

// forward tags the chunk and sends it. A caller that cannot be sent to ends the whole call.
func (t *taskRead) forward(chunk *pb.LogChunk) error {
	if old := t.next - chunk.Offset; old > 0 && t.tail == 0 {
		old = min(old, int64(len(chunk.Data)))
		chunk.Data, chunk.Offset = chunk.Data[old:], chunk.Offset+old
	}
	if len(chunk.Data) == 0 && !chunk.End {
		return nil
	}
	chunk.TaskId, chunk.Rank = t.task.Id, t.task.Rank
	t.next, t.tail = chunk.Offset+int64(len(chunk.Data)), 0
	t.busy.Store(true)
	defer t.busy.Store(false)
	t.r.sending.Lock()
	defer t.r.sending.Unlock()
	if err := t.r.stream.Send(chunk); err != nil {
		t.r.cancel(err)
		return err
	}
	return nil
}

// guard cancels the stream of an agent that says nothing for the bound of silence, from
// when armed is closed.
func (t *taskRead) guard(ctx context.Context, cancel context.CancelCauseFunc, armed <-chan struct{}) {
	select {
	case <-armed:
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(t.r.silence)
	defer tick.Stop()
	last := t.heard.Load()
	for {
		select {
		case <-tick.C:
			now := t.heard.Load()
			if now == last && !t.busy.Load() {
				cancel(errSilent)
				return
			}
			last = now
		case <-ctx.Done():
			return
		}
	}
}
