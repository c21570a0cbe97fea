package cluster_test

import (
	"sync"
	"testing"

	pb "llmos/proto/llmos/v1"
	"llmos/test/cluster"
)

func request(id string, spec *pb.JobSpec) *pb.SubmitJobRequest {
	return &pb.SubmitJobRequest{RequestId: id, Spec: spec}
}

// TestDuplicateSubmit sends one request at once over eight connections to all servers.
func TestDuplicateSubmit(t *testing.T) {
	t.Parallel()
	const connections = 8
	c := cluster.Start(t, 3)
	answers := make([]*pb.SubmitJobResponse, connections)
	ctx, begin := c.Context(), make(chan struct{})
	var calls sync.WaitGroup
	for i := range answers {
		api := c.ClientOf(c.Servers[i%len(c.Servers)])
		calls.Go(func() {
			<-begin
			resp, err := api.SubmitJob(ctx, request("r-same", job("same", 1, 1, 0)))
			if err != nil {
				t.Errorf("submit over connection %d: %v", i, err)
			}
			answers[i] = resp
		})
	}
	close(begin)
	calls.Wait()
	fresh := 0
	for i, a := range answers {
		if a.GetJobId() != answers[0].GetJobId() {
			t.Errorf("connection %d was given job %q, connection 0 job %q", i, a.GetJobId(), answers[0].GetJobId())
		}
		if !a.GetRepeatedRequest() {
			fresh++
		}
	}
	if fresh != 1 {
		t.Errorf("%d answers say that they made the job, want 1", fresh)
	}
	jobs := 0
	for range c.WaitSame().Jobs() {
		jobs++
	}
	if jobs != 1 {
		t.Errorf("%d jobs, want 1", jobs)
	}
}
