package client

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

// SubmitJob submits a job. Without a request ID in the request it makes one, so that
// however often the call is tried the job is submitted once; the caller's message is not
// changed. An UNKNOWN or TIMEOUT error leaves open whether the job was submitted: a later
// call is safe only with the same request ID, which the caller must then have chosen.
func (c *Client) SubmitJob(ctx context.Context, req *pb.SubmitJobRequest, opts ...grpc.CallOption) (*pb.SubmitJobResponse, error) {
	if req.GetRequestId() == "" {
		req = proto.CloneOf(req)
		if req == nil {
			req = &pb.SubmitJobRequest{}
		}
		req.RequestId = c.tune.newID()
	}
	return c.ClusterServiceClient.SubmitJob(ctx, req, opts...)
}

// StopJob stops a job, named by its ID or as the newest of its name. A name is resolved
// before the first try: a later try must not stop a job that took the name meanwhile.
func (c *Client) StopJob(ctx context.Context, req *pb.StopJobRequest, opts ...grpc.CallOption) (*pb.StopJobResponse, error) {
	view, err := c.GetJob(ctx, &pb.GetJobRequest{JobId: req.GetJobId()}, opts...)
	if err != nil {
		return nil, err
	}
	req = proto.CloneOf(req)
	req.JobId = view.GetJob().GetId()
	return c.ClusterServiceClient.StopJob(ctx, req, opts...)
}
