package client

import (
	"context"
	"errors"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// policy says how a method may be tried again.
type policy struct {
	write bool // a broken connection leaves the outcome unknown
	again bool // doing it twice is as good as once
	long  bool // takes minutes by its nature: only the caller bounds it
}

// policies covers every method of ClusterService; a test holds it to that. A method that
// is not here is sent once.
var policies = map[string]policy{
	pb.ClusterService_SubmitJob_FullMethodName:       {write: true, again: true}, // by its request ID
	pb.ClusterService_GetJob_FullMethodName:          {again: true},
	pb.ClusterService_ListJobs_FullMethodName:        {again: true},
	pb.ClusterService_StopJob_FullMethodName:         {write: true, again: true}, // by the job's ID
	pb.ClusterService_ExplainJob_FullMethodName:      {again: true},
	pb.ClusterService_WatchJob_FullMethodName:        {again: true},
	pb.ClusterService_ReadLogs_FullMethodName:        {again: true},
	pb.ClusterService_Exec_FullMethodName:            {write: true}, // what was typed is not typed again
	pb.ClusterService_Forward_FullMethodName:         {write: true},
	pb.ClusterService_ListNodes_FullMethodName:       {again: true},
	pb.ClusterService_RemoveNode_FullMethodName:      {write: true},
	pb.ClusterService_GetStatus_FullMethodName:       {again: true},
	pb.ClusterService_CreateJoinToken_FullMethodName: {write: true},

	pb.ClusterService_PlanJob_FullMethodName:            {again: true},
	pb.ClusterService_ListQueues_FullMethodName:         {again: true},
	pb.ClusterService_SetQueues_FullMethodName:          {write: true, again: true}, // it says what shall be
	pb.ClusterService_ListUsage_FullMethodName:          {again: true},
	pb.ClusterService_CreateReservation_FullMethodName:  {write: true},
	pb.ClusterService_RemoveReservation_FullMethodName:  {write: true},
	pb.ClusterService_ListReservations_FullMethodName:   {again: true},
	pb.ClusterService_GetSchedulerConfig_FullMethodName: {again: true},
	pb.ClusterService_SetSchedulerConfig_FullMethodName: {write: true},
	pb.ClusterService_DrainNode_FullMethodName:          {write: true, again: true}, // by the node's ID or name
	pb.ClusterService_GetForecast_FullMethodName:        {again: true},
	pb.ClusterService_ListCheckpoints_FullMethodName:    {again: true},
	pb.ClusterService_DivideGPU_FullMethodName:          {write: true, long: true},
	pb.ClusterService_RepairNode_FullMethodName:         {write: true, again: true}, // what is repaired stays so
}

// Invoke makes one unary call: grpc.ClientConnInterface. It tries the servers in turn
// until one answers, the answer is final, or ctx ends. What was not sent is always tried
// again; what was sent only when the method is idempotent.
func (c *Client) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	p, known := policies[method]
	if !known {
		p.write = true
	}
	return c.each(ctx, p, func(ctx context.Context, conn *grpc.ClientConn) (bool, error) {
		if !p.long {
			timed, cancel := context.WithTimeout(ctx, c.tune.attempt)
			defer cancel()
			ctx = timed
		}
		return false, conn.Invoke(ctx, method, args, reply, opts...)
	})
}

// NewStream opens one stream on the first server that can be reached:
// grpc.ClientConnInterface. It is not resumed; WatchJob and ReadLogs are.
func (c *Client) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	var stream grpc.ClientStream
	err := c.each(ctx, policies[method], func(ctx context.Context, conn *grpc.ClientConn) (_ bool, err error) {
		stream, err = conn.NewStream(ctx, desc, method, opts...)
		return false, err
	})
	return stream, err
}

// each runs try against one server after the other. It returns nil at the first success.
// A try that says it made progress before it failed makes the next ones start afresh,
// without the backoff of those before it.
func (c *Client) each(ctx context.Context, p policy, try func(context.Context, *grpc.ClientConn) (progress bool, err error)) error {
	t := c.newTour(ctx, p)
	for {
		s, err := t.next()
		if err != nil {
			return err
		}
		sent, progress := false, false
		conn, err := c.reach(ctx, s)
		if err == nil {
			sent = true
			progress, err = try(ctx, conn)
			err = fault.Crossed(err, p.write)
		}
		if err == nil {
			c.prefer(s, true)
			return nil
		}
		if done := t.failed(s, sent, err); done != nil {
			return done
		}
		if progress {
			last := t.lastErr
			t = c.newTour(ctx, p)
			t.lastErr = last
		}
	}
}

// tour is one call's way round the servers.
type tour struct {
	c       *Client
	ctx     context.Context
	p       policy
	queue   []*server // still to be tried in this round
	rounds  int       // finished
	hints   int       // leader addresses followed since a server's own turn
	denied  int       // servers of this round whose certificate, or ours, was refused
	unsure  bool      // something was sent whose outcome is not known
	lastErr error
}

func (c *Client) newTour(ctx context.Context, p policy) *tour {
	return &tour{c: c, ctx: ctx, p: p, queue: c.snapshot()}
}

// next gives the server whose turn it is, after a backoff when a round has ended.
func (t *tour) next() (*server, error) {
	if len(t.queue) == 0 {
		t.queue = t.c.snapshot()
		if len(t.queue) == 0 {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "no server address is known").
				Hint("name one with --server, or join a cluster first")
		}
		if t.denied == len(t.queue) {
			return nil, t.lastErr
		}
		t.rounds, t.denied, t.hints = t.rounds+1, 0, 0
		t.c.tune.sleep(t.ctx, t.c.tune.backoff(t.rounds))
	}
	if t.ctx.Err() != nil {
		return nil, t.ended()
	}
	s := t.queue[0]
	t.queue = t.queue[1:]
	return s, nil
}

// failed notes a failure and says whether it is final: the error to return, or nil to go on.
func (t *tour) failed(s *server, sent bool, err error) error {
	f := fault.From(err)
	kind := f.Fault.Kind
	t.lastErr = err
	if !sent {
		if kind == pb.ErrorKind_ERROR_KIND_DENIED {
			t.denied++
		} else if kind != pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
			return err
		}
		t.c.prefer(s, false)
		return nil
	}
	if !transient(kind) {
		return err
	}
	applied := kind == pb.ErrorKind_ERROR_KIND_UNKNOWN || kind == pb.ErrorKind_ERROR_KIND_TIMEOUT
	t.unsure = t.unsure || applied && t.p.write
	if applied && !t.p.again {
		return err
	}
	if leader := t.c.learn(f.Fault.LeaderAddr); leader != nil && leader != s && t.hints < hintsInARow {
		t.hints++
		t.queue = append([]*server{leader}, t.queue...)
		return nil
	}
	t.c.prefer(s, false)
	return nil
}

// ended is the error of a call whose context ended before a server gave a final answer.
func (t *tour) ended() error {
	why := t.ctx.Err()
	if t.lastErr == nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_TIMEOUT, "the call was given up before it was sent: %w", why)
	}
	last := fault.From(t.lastErr).Fault
	kind, sentence := last.Kind, "given up after %d rounds of the servers; the last answer: %s (%w)"
	if t.unsure {
		kind, sentence = pb.ErrorKind_ERROR_KIND_UNKNOWN, "given up after %d rounds of the servers without knowing whether it was done; the last answer: %s (%w)"
	} else if errors.Is(why, context.Canceled) {
		kind = pb.ErrorKind_ERROR_KIND_TIMEOUT
	}
	f := fault.New(kind, sentence, t.rounds+1, last.Message, why)
	f.Fault.Hint, f.Fault.LeaderAddr = last.Hint, last.LeaderAddr
	return f
}

// transient says whether another try, here or elsewhere, may end otherwise.
func transient(kind pb.ErrorKind) bool {
	switch kind {
	case pb.ErrorKind_ERROR_KIND_UNAVAILABLE, pb.ErrorKind_ERROR_KIND_NOT_LEADER,
		pb.ErrorKind_ERROR_KIND_UNKNOWN, pb.ErrorKind_ERROR_KIND_TIMEOUT:
		return true
	}
	return false
}
