package controller_test

import (
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

// saved reports checkpoints, TASK@STEP, as their node does.
func (r *rig) saved(lost bool, words []string) {
	node, session := r.session(words[0])
	ev := controller.ReportsArrived{NodeID: node, Session: session, Seq: uint64(number(r.t, words[1]))}
	for _, word := range words[2:] {
		id, step, _ := strings.Cut(word, "@")
		job, rest, _ := strings.Cut(id, ".e")
		epoch, rank, _ := strings.Cut(rest, ".r")
		digest := sha256.Sum256([]byte(word))
		ev.Checkpoints = append(ev.Checkpoints, &pb.CheckpointReport{Lost: lost, Checkpoint: &pb.Checkpoint{JobId: job, Epoch: uint64(number(r.t, epoch)),
			Rank: int32(number(r.t, rank)), Step: number(r.t, step), Name: "step-" + step, ManifestSha256: digest[:], SizeBytes: 7, Files: 1, SavedMs: 1}})
	}
	r.loop.Step(ev, r.now)
}

func checkpointText(c *pb.Checkpoint) string {
	return state.TaskID(c.JobId, c.Epoch, c.Rank) + fmt.Sprintf("@%d", c.Step)
}

// holdingText shows a checkpoint, whether it is there, where it can be had and who may read it.
func holdingText(h *pb.Holding) string {
	text := checkpointText(h.Checkpoint)
	if h.Held {
		text += " held"
	}
	for i, s := range h.Sources {
		text += map[bool]string{true: " at ", false: ","}[i == 0] + s.NodeId + "=" + s.Addr
	}
	if len(h.Readers) > 0 {
		text += " for " + strings.Join(h.Readers, ",")
	}
	return text
}

// TestOldStateKnowsNoCheckpoints: below state version 3 reports of checkpoints are acknowledged, and
// nothing is proposed that an older server could not follow.
func TestOldStateKnowsNoCheckpoints(t *testing.T) {
	r := newRigOf(t, 2)
	r.do("hello n-a/1")
	r.do("settle")
	r.do("submit train")
	r.do("settle")
	r.do("save n-a/1 1 train-1.e1.r0@5")
	if got := r.do("settle"); got != "send n-a/1: acknowledge 1\n" {
		t.Errorf("answered: %s", got)
	}
}
