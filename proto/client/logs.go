package client

import (
	"context"
	"errors"
	"io"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// ReadLogs hands the output of a job's task, or of all its tasks (rank -1), to fn. When a
// connection breaks it goes on at another server from the byte after the last one of each
// rank: within a task fn sees every byte that is kept once and in order. fn is called by
// one goroutine at a time. With follow it returns when the job has ended. An error of fn
// ends the reading and is returned as it is; a part that cannot be read, such as that of a
// node that does not answer, is an error at the end, after all that can.
func (c *Client) ReadLogs(ctx context.Context, req *pb.ReadLogsRequest, fn func(*pb.LogChunk) error) error {
	view, err := c.GetJob(ctx, &pb.GetJobRequest{JobId: req.GetJobId()})
	if err != nil {
		return err
	}
	r := &logReader{fn: fn, cursors: make(map[int32]cursor), req: proto.CloneOf(req)}
	r.req.JobId = view.GetJob().GetId() // its name may go to a newer job meanwhile
	for _, role := range view.GetJob().GetSpec().GetRoles() {
		r.world += role.Count
	}
	err = c.each(ctx, policies[pb.ClusterService_ReadLogs_FullMethodName], r.run)
	if r.stopped != nil {
		return r.stopped
	}
	return err
}

// cursor is how far one rank's output has been handed on.
type cursor struct {
	epoch uint64
	next  int64 // offset of the first byte not yet seen
	ended bool  // the task's last chunk was seen
}

// logReader is one ReadLogs across its connections.
type logReader struct {
	req   *pb.ReadLogsRequest
	world int32

	mu      sync.Mutex // also held while fn runs
	fn      func(*pb.LogChunk) error
	cursors map[int32]cursor
	first   uint64 // epoch of the first chunk: where silent ranks are read from after a cut
	stopped error  // fn's
}

// run reads what is left over one connection.
func (r *logReader) run(ctx context.Context, conn *grpc.ClientConn) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	before := r.seen()
	todo := r.plan()
	if !r.req.Follow {
		err = r.inTurn(ctx, conn, todo)
	} else {
		err = r.atOnce(ctx, cancel, conn, todo)
	}
	r.mu.Lock()
	stopped := r.stopped != nil
	r.mu.Unlock()
	if stopped {
		return true, nil
	}
	return r.seen() != before, err
}

// plan gives the requests that together fetch what is left: at first the caller's own,
// after a cut one for each rank from its cursor. With very many ranks it is one for all
// from the beginning, of which accept drops what was seen.
func (r *logReader) plan() []*pb.ReadLogsRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.cursors) == 0 {
		return []*pb.ReadLogsRequest{r.req}
	}
	if r.req.Rank >= 0 {
		return []*pb.ReadLogsRequest{r.resume(r.req.Rank)}
	}
	if r.world > perRankCursor {
		all := proto.CloneOf(r.req)
		all.Epoch, all.TailLines = r.first, 0
		return []*pb.ReadLogsRequest{all}
	}
	var todo []*pb.ReadLogsRequest
	for rank := range r.world {
		todo = append(todo, r.resume(rank))
	}
	return todo
}

// resume asks for the rest of one rank. The caller holds mu.
func (r *logReader) resume(rank int32) *pb.ReadLogsRequest {
	req := proto.CloneOf(r.req)
	req.Rank = rank
	if at, seen := r.cursors[rank]; seen {
		req.Epoch, req.Offset, req.TailLines = at.epoch, at.next, 0
	} else if req.Epoch == 0 {
		req.Epoch = r.first
	}
	return req
}

func (r *logReader) inTurn(ctx context.Context, conn *grpc.ClientConn, todo []*pb.ReadLogsRequest) error {
	var missing error
	for _, req := range todo {
		err := r.read(ctx, conn, req)
		if err != nil && transient(fault.Kind(fault.Crossed(err, false))) {
			return err
		}
		if err != nil && missing == nil {
			missing = err
		}
		if r.hasStopped() {
			return nil
		}
	}
	return missing
}

// atOnce follows all ranks together. A connection that breaks ends them all.
func (r *logReader) atOnce(ctx context.Context, cancel context.CancelFunc, conn *grpc.ClientConn, todo []*pb.ReadLogsRequest) error {
	ends := make(chan error, len(todo))
	for _, req := range todo {
		go func() { ends <- r.read(ctx, conn, req) }()
	}
	var cut, missing error
	for range todo {
		err := <-ends
		switch {
		case r.hasStopped():
			cancel()
		case err == nil:
		case transient(fault.Kind(fault.Crossed(err, false))):
			if cut == nil {
				cut = err
			}
			cancel()
		case missing == nil:
			missing = err
		}
	}
	if cut != nil {
		return cut
	}
	return missing
}

// read drains one stream.
func (r *logReader) read(ctx context.Context, conn *grpc.ClientConn, req *pb.ReadLogsRequest) error {
	stream, err := pb.NewClusterServiceClient(conn).ReadLogs(ctx, req)
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
		if !r.accept(chunk) {
			return nil
		}
	}
}

// accept hands on what of the chunk is new; false when fn wants no more.
func (r *logReader) accept(chunk *pb.LogChunk) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopped != nil {
		return false
	}
	epoch := taskEpoch(chunk.GetTaskId())
	at, seen := r.cursors[chunk.GetRank()]
	if !seen || epoch > at.epoch {
		at = cursor{epoch: epoch}
	} else if epoch < at.epoch {
		return true
	}
	if old := at.next - chunk.GetOffset(); old > 0 {
		old = min(old, int64(len(chunk.Data)))
		chunk.Data, chunk.Offset = chunk.Data[old:], chunk.Offset+old
	}
	if len(chunk.Data) == 0 && (!chunk.End || at.ended) {
		return true
	}
	at.next = chunk.Offset + int64(len(chunk.Data))
	at.ended = at.ended || chunk.End
	if len(r.cursors) == 0 {
		r.first = epoch
	}
	r.cursors[chunk.GetRank()] = at
	if err := r.fn(chunk); err != nil {
		r.stopped = err
		return false
	}
	return true
}

func (r *logReader) hasStopped() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopped != nil
}

// seen sums the cursors: it differs once anything more was handed on.
func (r *logReader) seen() (sum uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, at := range r.cursors {
		sum += at.epoch<<32 + uint64(at.next)
		if at.ended {
			sum++
		}
	}
	return sum
}

// taskEpoch reads the epoch out of a task's ID, <job>.e<epoch>.r<rank>; 0 when it has none.
func taskEpoch(id string) uint64 {
	head, _, ok := cutLast(id, ".r")
	if !ok {
		return 0
	}
	_, digits, ok := cutLast(head, ".e")
	if !ok {
		return 0
	}
	epoch, err := strconv.ParseUint(digits, 10, 64)
	if err != nil {
		return 0
	}
	return epoch
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}
