package controller

import (
	"slices"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// TestAvoidedLapses has a job avoid a node only as long as its record says, though the
// record stays as it is.
func TestAvoidedLapses(t *testing.T) {
	j := &pb.Job{Avoid: []*pb.AvoidedNode{{NodeId: "n-a", UntilMs: 10}, {NodeId: "n-b", UntilMs: 20}}}
	for now, want := range map[int64][]string{9: {"n-a", "n-b"}, 10: {"n-b"}, 20: nil} {
		if got := avoided(j, now); !slices.Equal(got, want) {
			t.Errorf("at %d: %v, want %v", now, got, want)
		}
	}
}
