package main

import (
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestCheckpointTable holds what llmos checkpoints shows, in a pipe.
func TestCheckpointTable(t *testing.T) {
	a, out, _ := testApp()
	at := func(seconds int64) int64 { return noon.UnixMilli() - 1000*seconds }
	a.showCheckpoints(&pb.ListCheckpointsResponse{JobId: "train-1", Checkpoints: []*pb.CheckpointView{
		{Epoch: 2, Step: 1300, SavedMs: at(5), SizeBytes: 3 << 30, State: pb.CheckpointState_CHECKPOINT_STATE_PARTIAL, RanksNeeded: 4, RanksSaved: 3,
			NodeNames: []string{"gpu-1"}, Reason: "3 of the 4 ranks that it needs have saved it"},
		{Epoch: 2, Step: 1200, SavedMs: at(605), SizeBytes: 4 << 30, State: pb.CheckpointState_CHECKPOINT_STATE_GOOD, RanksNeeded: 4, RanksSaved: 4, NodeNames: []string{"gpu-1", "gpu-2"}},
		{Epoch: 1, Step: 1100, SavedMs: at(1205), SizeBytes: 4 << 30, State: pb.CheckpointState_CHECKPOINT_STATE_BROKEN, RanksNeeded: 4, RanksSaved: 4,
			NodeNames: []string{"gpu-3"}, Reason: "rank 1 could not go on from it: its content is not what its digest says"},
		{Step: 900, SavedMs: at(90_000), SizeBytes: 4 << 30, State: pb.CheckpointState_CHECKPOINT_STATE_UNREACHABLE, RanksNeeded: 4, RanksSaved: 4,
			NodeNames: []string{"gpu-4"}, Origin: "base-7@900", Reason: "no node that holds it answers, for one rank at least"},
	}})
	golden(t, "checkpoints.golden", out.String())
}
