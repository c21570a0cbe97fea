package client

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// WatchJob hands the job's views to fn: the present one, and each later one until that of
// its final state, after which it returns nil. When a connection breaks it goes on at
// another server, from the index of the last view. Views between two that fn gets may be
// missing; the newest never is. An error of fn ends the watch and is returned as it is.
func (c *Client) WatchJob(ctx context.Context, job string, fn func(*pb.JobView) error) error {
	w := &watch{req: &pb.WatchJobRequest{JobId: job}, fn: fn}
	err := c.each(ctx, policies[pb.ClusterService_WatchJob_FullMethodName], w.run)
	if w.stopped != nil {
		return w.stopped
	}
	return err
}

// watch is one WatchJob across its connections.
type watch struct {
	req     *pb.WatchJobRequest
	fn      func(*pb.JobView) error
	stopped error // fn's
}

func (w *watch) run(ctx context.Context, conn *grpc.ClientConn) (progress bool, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := pb.NewClusterServiceClient(conn).WatchJob(ctx, w.req)
	if err != nil {
		return false, err
	}
	for {
		view, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return progress, endedEarly("the watch of job " + w.req.JobId)
		}
		if err != nil {
			return progress, err
		}
		progress = true
		// The name may go to a newer job while the connection is down; the ID does not.
		w.req.JobId, w.req.AfterIndex = view.GetJob().GetId(), view.GetIndex()
		if err := w.fn(view); err != nil {
			w.stopped = err
			return true, nil
		}
		if Finished(view.GetJob().GetState()) {
			return true, nil
		}
	}
}

// Finished says whether a job in this state will not change again.
func Finished(s pb.JobState) bool {
	switch s {
	case pb.JobState_JOB_STATE_SUCCEEDED, pb.JobState_JOB_STATE_FAILED, pb.JobState_JOB_STATE_CANCELLED:
		return true
	}
	return false
}

func endedEarly(what string) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "%s ended early", what)
}
