package agent

import (
	"context"
	"strings"
	"sync/atomic"

	"google.golang.org/grpc"

	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// agentService answers servers' questions about this node, and gives other agents checkpoints.
type agentService struct {
	pb.UnimplementedAgentServiceServer
	site    site
	visits  *visits
	vault   *vault       // nil: none
	busy    atomic.Int32 // commands and connections of people
	keeper  *keeper
	reserve func(context.Context, map[string]bool) (holder string, err error)
	// peer says who calls; replaced in tests that have no certificates.
	peer func(grpc.ServerStream) (transport.Identity, bool)
}

func newAgentService(s site, v *visits, kept *vault) *agentService {
	return &agentService{site: s, visits: v, vault: kept, peer: func(stream grpc.ServerStream) (transport.Identity, bool) {
		return transport.PeerIdentity(stream.Context())
	}}
}

// ReadLogs sends a task's output from an offset or so many lines before its end, and with
// follow goes on until the task ends. Only servers may ask.
func (s *agentService) ReadLogs(req *pb.ReadLogsRequest, stream grpc.ServerStreamingServer[pb.LogChunk]) error {
	if id, ok := s.peer(stream); !ok || id.Role != pb.MemberRole_MEMBER_ROLE_SERVER {
		return fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "logs are read from an agent by servers alone").
			Hint("ask a server: llmos logs JOB")
	}
	dir, ok := s.site.taskDirOf(req.GetTaskId())
	if !ok {
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "node %s has no log of task %q", s.site.nodeName, req.GetTaskId()).
			Hint("a node keeps the logs of its running tasks and of the last %d ended ones", endedTasksKept)
	}
	if req.GetOffset() < 0 || req.GetTailLines() < 0 {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the log of task %s cannot be read from a negative place", req.GetTaskId())
	}
	t := &logTail{dir: dir, taskID: req.GetTaskId(), rank: rankOf(req.GetTaskId(), req.GetRank()), stream: stream,
		reader: exec.OpenLog(dir, req.GetOffset())}
	defer t.reader.Close()
	if req.GetTailLines() > 0 {
		if err := t.reader.SeekTail(req.GetTailLines()); err != nil {
			return t.broken(err)
		}
	}
	return t.run(req.GetFollow())
}

// rankOf reads the rank off a task ID, <job>.e<epoch>.r<rank>; fallback when it has none.
func rankOf(taskID string, fallback int32) int32 {
	i := strings.LastIndex(taskID, ".r")
	if i < 0 {
		return fallback
	}
	var rank int32
	for _, c := range taskID[i+2:] {
		if c < '0' || c > '9' || rank > 1<<24 {
			return fallback
		}
		rank = rank*10 + c - '0'
	}
	return rank
}

// logTail sends one task's log to one caller.
type logTail struct {
	dir, taskID string
	rank        int32
	stream      grpc.ServerStreamingServer[pb.LogChunk]
	reader      *exec.LogReader
}

// run sends what there is. The end is looked for before the last read: what the task wrote
// is on the disk before its end is.
func (t *logTail) run(follow bool) error {
	var watch *exec.LogWatch
	if follow {
		watch = exec.WatchLog(t.dir)
		defer watch.Close()
	}
	for {
		exit, err := exec.ReadExit(t.dir)
		if err != nil {
			return t.broken(err)
		}
		if err := t.drain(); err != nil {
			return err
		}
		if exit != nil {
			return t.stream.Send(&pb.LogChunk{TaskId: t.taskID, Rank: t.rank, Offset: t.reader.Offset(), TimeMs: exit.EndedMS, End: true})
		}
		if !follow {
			return nil
		}
		if err := watch.Wait(t.stream.Context()); err != nil {
			return fault.From(err)
		}
	}
}

func (t *logTail) drain() error {
	for {
		c, ok, err := t.reader.Next()
		if err != nil {
			return t.broken(err)
		}
		if !ok {
			return nil
		}
		chunk := &pb.LogChunk{TaskId: t.taskID, Rank: t.rank, Stderr: c.Stderr, Data: c.Data, Offset: c.Offset, TimeMs: c.TimeMS}
		if err := t.stream.Send(chunk); err != nil {
			return err
		}
	}
}

func (t *logTail) broken(err error) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "read the log of task %s: %w", t.taskID, err)
}
