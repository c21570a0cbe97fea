package api

import (
	"bytes"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestListCheckpoints shows every state of a step, and where its parts lie.
func TestListCheckpoints(t *testing.T) {
	r := newRig(t)
	api := pb.NewClusterServiceClient(r.conn(r.server("s-000000000001"), roleUser, "jane"))
	r.node("n-000000000001", "a", "127.0.0.1:1", 8)
	id := r.submit("train", 2)
	r.place(id, "n-000000000001")
	save := func(rank int32, step int64) {
		r.must(&pb.Command{Op: &pb.Command_RegisterCheckpoint{RegisterCheckpoint: &pb.RegisterCheckpoint{NodeId: "n-000000000001", Checkpoint: &pb.Checkpoint{
			JobId: id, Epoch: 1, Step: step, Rank: rank, Name: "s", SizeBytes: 50, Files: 1, SavedMs: 100 + step, ManifestSha256: bytes.Repeat([]byte{byte(step)}, 32)}}}})
	}
	list := func() []*pb.CheckpointView {
		t.Helper()
		resp, err := api.ListCheckpoints(testContext(t), &pb.ListCheckpointsRequest{JobId: "train"})
		if err != nil || resp.JobId != id {
			t.Fatal(resp, err)
		}
		return resp.Checkpoints
	}
	if got := list(); len(got) != 0 {
		t.Errorf("before anything was saved: %v", got)
	}
	save(0, 10)
	save(1, 10)
	save(0, 20)
	got := list()
	if len(got) != 2 || got[0].State != pb.CheckpointState_CHECKPOINT_STATE_PARTIAL || got[0].Reason != "1 of the 2 ranks that it needs have saved it" ||
		got[1].State != pb.CheckpointState_CHECKPOINT_STATE_GOOD || got[1].SizeBytes != 100 || got[1].SavedMs != 110 || got[1].RanksSaved != 2 || got[1].NodeNames[0] != "a" {
		t.Errorf("listed: %v", got)
	}
	r.must(&pb.Command{Op: &pb.Command_SetNodeState{SetNodeState: &pb.SetNodeState{NodeId: "n-000000000001", State: pb.NodeState_NODE_STATE_SILENT}}})
	if got := list(); got[1].State != pb.CheckpointState_CHECKPOINT_STATE_UNREACHABLE || got[1].Reason == "" {
		t.Errorf("with a silent node: %v", got)
	}
	_, err := api.ListCheckpoints(testContext(t), &pb.ListCheckpointsRequest{JobId: "nobody"})
	wantKind(t, "an unknown job", err, kindNotFound)
}
