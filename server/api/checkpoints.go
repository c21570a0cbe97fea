package api

import (
	"context"
	"fmt"
	"slices"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// ListCheckpoints gives what a job has saved, step by step, newest first.
func (s *cluster) ListCheckpoints(ctx context.Context, req *pb.ListCheckpointsRequest) (*pb.ListCheckpointsResponse, error) {
	st, err := s.state(ctx, req.GetStale())
	if err != nil {
		return nil, err
	}
	job, err := findJob(st, req.GetJobId())
	if err != nil {
		return nil, err
	}
	resp := &pb.ListCheckpointsResponse{JobId: job.Id, Index: st.Index()}
	for _, step := range st.SavedSteps(job.Id) {
		resp.Checkpoints = append(resp.Checkpoints, checkpointView(st, &step))
	}
	return resp, nil
}

func checkpointView(st *state.State, step *state.SavedStep) *pb.CheckpointView {
	v := &pb.CheckpointView{Epoch: step.Epoch, Step: step.Step, Ranks: step.Ranks, RanksNeeded: int32(len(step.Needed)), RanksSaved: int32(len(step.NeededParts())), Reason: step.Fault(),
		Origin: step.Ranks[0].GetOrigin(), State: pb.CheckpointState_CHECKPOINT_STATE_GOOD}
	for _, c := range step.Ranks {
		v.SavedMs = max(v.SavedMs, c.SavedMs)
		v.SizeBytes += c.SizeBytes
		for _, id := range c.NodeIds {
			if name := st.Node(id).GetName(); !slices.Contains(v.NodeNames, name) {
				v.NodeNames = append(v.NodeNames, name)
			}
		}
	}
	slices.Sort(v.NodeNames)
	switch {
	case v.Reason != "":
		v.State = pb.CheckpointState_CHECKPOINT_STATE_BROKEN
	case !step.Good:
		v.State = pb.CheckpointState_CHECKPOINT_STATE_PARTIAL
		v.Reason = fmt.Sprintf("%d of the %d ranks that it needs have saved it", v.RanksSaved, v.RanksNeeded)
	case !step.Reachable(st.Node):
		v.State = pb.CheckpointState_CHECKPOINT_STATE_UNREACHABLE
		v.Reason = "no node that holds it answers, for one rank at least"
	}
	return v
}
