package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

func (a *app) checkpointsCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "checkpoints JOB", Short: "List what a job has saved", Args: arguments(1, 1, "the name or ID of one job"),
		Long: "List the checkpoints of a job, the newest first: which step, how many of its ranks have saved it, and\n" +
			"which nodes hold it. A job that is started again goes on from the newest good one; another job does\n" +
			"with llmos run --resume JOB@STEP.\n\n" +
			"A job says where it saves itself by checkpoint: {path: ckpt, every: 10m, keep: 3} in its file, or\n" +
			"--checkpoint-path. What its tasks rename into that folder, or mark by a file .done in a folder of\n" +
			"its own, or announce by a line @llmos checkpoint step=N path=P, is kept by the cluster.",
		Example: "  llmos checkpoints train\n  llmos run --resume train-1@1200 train.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				list, err := s.ListCheckpoints(ctx, &pb.ListCheckpointsRequest{JobId: args[0]})
				if err != nil {
					return err
				}
				return a.print(&f, list, func() { a.showCheckpoints(list) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

func (a *app) showCheckpoints(list *pb.ListCheckpointsResponse) {
	if len(list.Checkpoints) == 0 {
		a.note("job %s has saved nothing yet; it says where by checkpoint: {path: ckpt} in its file\n", list.JobId)
		return
	}
	a.show(a.checkpointTable(list))
}

func (a *app) checkpointTable(list *pb.ListCheckpointsResponse) *table {
	t := &table{header: []string{"STEP", "ATTEMPT", "SAVED", "SIZE", "RANKS", "STATE", "NODES"}, right: map[int]bool{0: true, 1: true, 3: true, 4: true}}
	for _, v := range list.Checkpoints {
		attempt := strconv.FormatUint(v.Epoch, 10)
		if v.Epoch == 0 {
			attempt = "-"
		}
		state, colour := word(v.State.String(), "CHECKPOINT_STATE_"), green
		if v.State != pb.CheckpointState_CHECKPOINT_STATE_GOOD {
			colour = yellow
		}
		if v.State == pb.CheckpointState_CHECKPOINT_STATE_BROKEN {
			colour = red
		}
		where := strings.Join(v.NodeNames, ", ")
		if v.Origin != "" {
			where += " (of " + v.Origin + ")"
		}
		if v.Reason != "" {
			where += ": " + v.Reason
		}
		t.add(plain(strconv.FormatInt(v.Step, 10)), plain(attempt), plain(age(a.since(v.SavedMs))+" ago"), plain(jobspec.FormatBytes(v.SizeBytes)),
			plain(fmt.Sprintf("%d/%d", v.RanksSaved, v.RanksNeeded)), cell{text: state, colour: colour}, plain(where))
	}
	return t
}
