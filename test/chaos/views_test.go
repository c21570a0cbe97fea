package main

import (
	"encoding/json"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// jobViews makes jobs from a JSON object of job IDs and request IDs.
func jobViews(t *testing.T, text string) map[string]*pb.JobView {
	t.Helper()
	requests := map[string]string{}
	if err := json.Unmarshal([]byte(text), &requests); err != nil {
		t.Fatal(err)
	}
	out := map[string]*pb.JobView{}
	for id, request := range requests {
		out[id] = &pb.JobView{Job: &pb.Job{Id: id, RequestId: request, State: pb.JobState_JOB_STATE_FAILED}}
	}
	return out
}
