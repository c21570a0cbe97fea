package main

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

// idleDefault is how long a shell may lie unused.
const idleDefault = 30 * time.Minute

// keeper is what a shell's task runs: the shells are beside it.
var keeper = []string{"/bin/sh", "-c", "trap 'exit 0' TERM; while :; do sleep 3600 & wait; done"}

// shellFlags are the flags of `shell`.
type shellFlags struct {
	run  runFlags
	idle time.Duration
	keep bool
}

func (a *app) shellCommand() *cobra.Command {
	f := &shellFlags{}
	cmd := &cobra.Command{
		Use: "shell [-- COMMAND [ARGUMENT...]]", Short: "Get a shell on a node, with devices of its own",
		Long: "Start a job that does nothing, and a shell beside it. The job holds the devices until the shell ends;\n" +
			"one that nobody has used for --idle is ended. A connection that breaks leaves it running: llmos exec JOB is back in it.",
		Example: "  llmos shell --gpus 1\n  llmos shell --gpus 1 --memory 32Gi -- python\n  llmos shell --keep --gpus 1",
		Args: func(cmd *cobra.Command, args []string) error {
			if dash := cmd.ArgsLenAtDash(); len(args) > 0 && dash != 0 {
				return invalid("%s takes a command behind --", cmd.CommandPath()).Hint("llmos shell -- %s", strings.Join(args, " "))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return a.shell(cmd, f, args) },
	}
	f.run.c.flags(cmd)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.DurationVar(&f.idle, "idle", idleDefault, "end it when nobody has used it for `TIME`")
	flags.BoolVar(&f.keep, "keep", false, "leave the job running when the shell ends")
	f.run.spec.flags(flags)
	return cmd
}

func (a *app) shell(cmd *cobra.Command, f *shellFlags, args []string) error {
	spec, err := a.commandSpec(cmd.Flags(), &f.run.spec, keeper)
	if err != nil {
		return err
	}
	if f.idle < time.Second {
		return invalid("--idle %s is too short", f.idle).Hint("give at least a second; the default is %s", idleDefault)
	}
	if f.run.spec.name == "" {
		spec.GenerateName = "shell"
	}
	spec.Roles[0].IdleAfterMs = f.idle.Milliseconds()
	ctx := cmd.Context()
	s, err := a.open(ctx, &f.run.c)
	if err != nil {
		return err
	}
	defer s.close()
	f.run.requestID = newRequestID()
	resp, err := a.submit(ctx, s, &f.run, f.run.requestID, spec)
	if err != nil {
		return err
	}
	job := resp.JobId
	if err := a.awaitStart(ctx, s, job); err != nil {
		a.leaveShell(s, job, true)
		return err
	}
	err = a.enterTask(ctx, s, &pb.ExecStart{JobId: job, Command: args}, true)
	var status exitStatus
	ended := err == nil || (errors.As(err, &status) && ctx.Err() == nil)
	a.leaveShell(s, job, ended && !f.keep)
	return err
}

// errStarted ends the watch of a job that runs.
var errStarted = errors.New("it runs")

// awaitStart waits until the job runs, and says why it does not yet.
func (a *app) awaitStart(ctx context.Context, s *session, job string) error {
	said := ""
	err := s.WatchJob(ctx, job, func(v *pb.JobView) error {
		if v.GetJob().GetState() == pb.JobState_JOB_STATE_RUNNING && v.GetJob().GetStartedMs() > 0 {
			return errStarted
		}
		if reason := oneLine(v.WaitingReason); v.GetJob().GetState() == pb.JobState_JOB_STATE_PENDING && reason != "" && reason != said {
			said = reason
			a.note("%s waits: %s\n", job, reason)
		}
		return nil
	})
	switch {
	case errors.Is(err, errStarted):
		a.note("%s runs; leave the shell to end it\n", job)
		return nil
	case ctx.Err() != nil:
		return exitStatus(exitInterrupted)
	case err != nil:
		return reached(err, s.Servers())
	}
	return invalid("%s ended before the shell began", job).Hint("llmos ps -a and llmos logs %s say more", job)
}

// leaveShell ends the job, or says how to come back to it.
func (a *app) leaveShell(s *session, job string, end bool) {
	if !end {
		a.note("%s still runs; llmos exec %s enters it again, llmos stop %s ends it\n", job, job, job)
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	if _, err := s.StopJob(ctx, &pb.StopJobRequest{JobId: job, Reason: "the shell was left"}); err != nil {
		a.note("llmos: %s could not be stopped: %v\n", job, err)
	}
}
