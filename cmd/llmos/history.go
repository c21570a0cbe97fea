package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/trace"
)

func (a *app) historyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "history", Short: "What has run, for programs", Args: arguments(0, 0, "the verb export"),
		Long:    "The history of finished jobs, as far as the cluster remembers it.",
		Example: "  llmos history export > history.jsonl",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.historyExportCommand())
	return cmd
}

func (a *app) historyExportCommand() *cobra.Command {
	var c connection
	kind := "json"
	cmd := &cobra.Command{
		Use: "export", Short: "Print the finished jobs, one a line", Args: arguments(0, 0, "no arguments"),
		Long: "Print every finished job that the cluster still remembers, the oldest first: lines of JSON, or CSV.\n" +
			"Times are seconds since 1970. llmos simulate replays the file.",
		Example: "  llmos history export > history.jsonl\n  llmos history export --format csv > history.csv",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if kind != "json" && kind != "csv" {
				return invalid("there is no format %q", kind).Hint("--format is json or csv").At("--format", 0)
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				records, err := finishedJobs(ctx, s)
				if err != nil {
					return err
				}
				if len(records) == 0 {
					a.note("no job has finished yet\n")
				}
				return trace.WriteHistory(a.out, records, kind == "csv")
			})
		},
	}
	c.flags(cmd)
	cmd.Flags().StringVar(&kind, "format", kind, "`FORMAT`: json (one object a line) or csv")
	return cmd
}

// finishedJobs reads all pages of the list of jobs.
func finishedJobs(ctx context.Context, s *session) ([]trace.Record, error) {
	var records []trace.Record
	for after := ""; ; {
		page, err := s.ListJobs(ctx, &pb.ListJobsRequest{All: true, After: after})
		if err != nil {
			return nil, err
		}
		for _, v := range page.Jobs {
			if v.GetJob().GetFinishedMs() > 0 {
				records = append(records, historyRecord(v.Job)...)
			}
		}
		if !page.More || len(page.Jobs) == 0 {
			return records, nil
		}
		after = page.Jobs[len(page.Jobs)-1].GetJob().GetId()
	}
}

// historyRecord gives a job as records: one for each role, since each asks for its own
// resources; of a parent of copies none, since it never ran itself.
func historyRecord(j *pb.Job) []trace.Record {
	if j.GetSpec().GetArray() != nil || j.GetSpec().GetCron() != nil {
		return nil
	}
	seconds := func(ms int64) float64 { return float64(ms) / 1000 }
	var out []trace.Record
	for i, r := range j.GetSpec().GetRoles() {
		id := j.Id
		if i > 0 {
			id = fmt.Sprintf("%s/%s", j.Id, r.Name)
		}
		res := r.GetResources()
		model := res.GetGpuModel()
		if model == "" {
			model = strings.Join(res.GetGpuModels(), "|")
		}
		out = append(out, trace.Record{ID: id, User: j.User, Queue: j.Spec.Queue, Submit: seconds(j.SubmittedMs), Start: seconds(j.StartedMs),
			End: seconds(j.FinishedMs), Run: seconds(j.RunMs), Tasks: int(r.Count), GPUs: int(res.GetGpus()), CPUMilli: res.GetCpuMilli(), MemoryBytes: res.GetMemoryBytes(),
			Share: int(res.GetGpuShareMilli()), Model: model, State: word(j.State.String(), "JOB_STATE_"), Attempts: int(j.Epoch)})
	}
	return out
}
