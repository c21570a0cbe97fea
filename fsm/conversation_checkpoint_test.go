package fsm

import (
	"crypto/sha256"
	"fmt"
	"strconv"
	"strings"

	"pgregory.net/rapid"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

func init() {
	commands["save"] = func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_RegisterCheckpoint{RegisterCheckpoint: &pb.RegisterCheckpoint{NodeId: w.arg(0), Checkpoint: checkpointOf(w)}}}
	}
	commands["unsave"] = func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_LoseCheckpoint{LoseCheckpoint: &pb.LoseCheckpoint{NodeId: w.arg(0), Checkpoint: checkpointOf(w), Reason: w.set["reason"]}}}
	}
	commands["prune"] = func(_ *talk, w words) *pb.Command {
		return &pb.Command{Op: &pb.Command_PruneCheckpoints{PruneCheckpoints: &pb.PruneCheckpoints{JobId: w.arg(0)}}}
	}
	shows["saved"] = showSaved
}

// checkpointOf reads `NODE TASK STEP saved= as=CONTENT size= name= fault=`; of the task the epoch
// may be 0.
func checkpointOf(w words) *pb.Checkpoint {
	jobID, rest, _ := strings.Cut(w.arg(1), ".e")
	epoch, rank, _ := strings.Cut(rest, ".r")
	c := &pb.Checkpoint{JobId: jobID, Epoch: uint64(w.number("", 0, epoch)), Rank: int32(w.number("", 0, rank)), Step: w.number("", 0, w.arg(2)),
		SizeBytes: w.n("size", 100), Files: 1, SavedMs: w.n("saved", 1), Name: w.set["name"], Fault: w.set["fault"]}
	if c.Name == "" {
		c.Name = "step-" + strconv.FormatInt(c.Step, 10)
	}
	if c.Fault == "" {
		content := w.set["as"]
		if content == "" {
			content = fmt.Sprint(c.Step, c.Rank)
		}
		digest := sha256.Sum256([]byte(content))
		c.ManifestSha256 = digest[:w.n("digest", 32)]
	}
	return c
}

// resumeOf reads keep=, ranks= and resume=JOB@STEP of a submit.
func resumeOf(w words, spec *pb.JobSpec) {
	if w.set["keep"] != "" || w.set["ranks"] != "" {
		spec.Checkpoint = &pb.CheckpointSpec{Path: "ckpt", Keep: w.n32("keep", 0),
			Ranks: pb.CheckpointRanks(pb.CheckpointRanks_value["CHECKPOINT_RANKS_"+strings.ToUpper(w.set["ranks"])])}
	}
	if w.set["resume"] != "" {
		job, step, _ := strings.Cut(w.set["resume"], "@")
		spec.Resume = &pb.ResumeSpec{Job: job, Step: w.number("", 0, step)}
	}
}

// showSaved shows the steps of a job, newest first, and what its newest attempt goes on from.
func showSaved(s *state.State, w words) string {
	j := s.FindJob(w.arg(0))
	if j == nil {
		return "none\n"
	}
	out := fmt.Sprintf("%s saved step %d at %d, ranks %v", j.Id, j.SavedStep, j.SavedMs, j.SavingRanks)
	if r := s.Attempt(j.Id, j.Epoch).GetResume(); r != nil {
		out += fmt.Sprintf("; attempt %d goes on from %d.%d", j.Epoch, r.Epoch, r.Step)
	}
	out += "\n"
	for _, step := range s.SavedSteps(j.Id) {
		word := "partial"
		if step.Good {
			word = "good"
		}
		if step.Fault() != "" {
			word = "broken: " + step.Fault()
		}
		out += fmt.Sprintf("  %d.%d %s:", step.Epoch, step.Step, word)
		for _, c := range step.Ranks {
			out += fmt.Sprintf(" r%d on %s", c.Rank, strings.Join(c.NodeIds, "+"))
			if c.Origin != "" {
				out += " of " + c.Origin
			}
		}
		out += "\n"
	}
	return out
}

// drawCheckpoint registers, loses or prunes: mostly what a running task may have saved, sometimes
// what an older attempt or another node says.
func drawCheckpoint(t *rapid.T, s *state.State) *pb.Command {
	j := drawJob(t, s, func(j *pb.Job) bool { return j.Epoch > 0 })
	if chance(t, 15) {
		return commands["prune"](nil, words{args: []string{j.Id}})
	}
	epoch := j.Epoch
	if chance(t, 15) {
		epoch = uint64(rapid.IntRange(0, 3).Draw(t, "epoch"))
	}
	rank := int32(rapid.IntRange(0, 2).Draw(t, "rank"))
	node := drawNodeID(t)
	for k := range s.JobTasks(j.Id, epoch) {
		if k.Rank == rank && chance(t, 80) {
			node = k.NodeId
		}
	}
	w := words{args: []string{node, state.TaskID(j.Id, epoch, rank), fmt.Sprint(rapid.IntRange(1, 5).Draw(t, "step"))}, set: map[string]string{}}
	w.set["saved"] = fmt.Sprint(rapid.IntRange(1, 3).Draw(t, "saved"))
	w.set["as"] = rapid.SampledFrom([]string{"", "", "", "other"}).Draw(t, "as")
	verb := "save"
	if chance(t, 15) {
		verb = "unsave"
	} else if chance(t, 5) {
		w.set["fault"] = "a_link"
	}
	return commands[verb](nil, w)
}
