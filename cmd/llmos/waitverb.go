package main

import (
	"context"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

// waitCommand stays with a job that is submitted already, as `run --wait` does with a new one.
func (a *app) waitCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "wait JOB", Short: "Stay until a job has ended", Args: arguments(1, 1, "the ID or name of one job"),
		Long: "Stay until a job has ended and exit with its code. Ctrl-C leaves the job running.\n" +
			"-o json prints how it ended.",
		Example: "  llmos wait train-1\n  llmos wait -o json train",
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := a.open(cmd.Context(), &c)
			if err != nil {
				return err
			}
			defer s.close()
			asking, cancel := context.WithTimeout(cmd.Context(), c.timeout)
			view, err := s.GetJob(asking, &pb.GetJobRequest{JobId: args[0]})
			cancel()
			if err != nil {
				return reached(err, s.Servers())
			}
			job := view.GetJob()
			if job.GetState() == pb.JobState_JOB_STATE_SCHEDULED {
				return invalid("%s is a cron job, which does not end by itself", job.GetId()).Hint("llmos ps shows when its next copy starts")
			}
			_, tasks := taskCounts(view)
			return a.await(cmd.Context(), s, job.GetId(), tasks, false, f.json)
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}
