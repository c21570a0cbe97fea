package main

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

const whyEvents = 20 // newest events that `why -v` shows

func (a *app) whyCommand() *cobra.Command {
	var c connection
	var f format
	var verbose bool
	cmd := &cobra.Command{
		Use: "why JOB", Short: "Say why a job waits, runs or ended", Args: arguments(1, 1, "the ID or name of one job"),
		Long: "Say why a job is in its state: of a waiting one the dominant reason, with what it would start now, when\n" +
			"it is expected to start and what would change that. -v adds every reason and what happened to it.",
		Example: "  llmos why train-1\n  llmos why -v train-1",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				answer, err := s.ExplainJob(ctx, &pb.ExplainJobRequest{JobId: args[0]})
				if err != nil {
					return err
				}
				return a.print(&f, answer, func() { a.showExplanation(answer, verbose) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "every reason, and what happened")
	return cmd
}

func (a *app) showExplanation(e *pb.Explanation, verbose bool) {
	t := a.outTint()
	state := word(e.State.String(), "JOB_STATE_")
	verb := " is "
	if e.State == pb.JobState_JOB_STATE_SUCCEEDED || e.State == pb.JobState_JOB_STATE_FAILED { // these are verbs
		verb = " "
	}
	a.printf("%s%s%s", t.paint(bold, e.JobId), verb, t.paint(stateColour(state), state))
	if e.Reason != "" && e.Reason != state {
		a.printf(": %s", oneLine(e.Reason))
	}
	a.printf("\n")
	a.showOutlook(e)
	if !verbose {
		if len(e.Details)+len(e.Events) > 0 {
			a.note("%s\n", a.errTint().paint(faint, "llmos why -v "+e.JobId+" tells more"))
		}
		return
	}
	a.showDetails(e)
	if len(e.Events) == 0 {
		return
	}
	a.printf("\n")
	for _, ev := range e.Events[max(len(e.Events)-whyEvents, 0):] {
		at := time.UnixMilli(ev.TimeMs).In(a.location).Format(time.TimeOnly)
		a.printf("  %s  %s\n", t.paint(faint, at), oneLine(firstOf(ev.Message, ev.Kind)))
	}
}

// showOutlook says with what the job would start now, when it is expected to, and what
// would change that.
func (a *app) showOutlook(e *pb.Explanation) {
	t := a.outTint()
	if len(e.GetWouldStart()) > 0 {
		a.printf("%s %s\n", t.paint(faint, "it would start now:"), oneLine(strings.Join(e.WouldStart, "; or ")))
	}
	if ms := e.GetExpectedStartMs(); ms > 0 {
		label := "expected to start:"
		if e.GetState() == pb.JobState_JOB_STATE_SCHEDULED {
			label = "next copy:"
		}
		a.printf("%s %s\n", t.paint(faint, label), a.whenText(ms))
	}
	if e.GetRemedy() != "" {
		a.printf("%s %s\n", t.paint(faint, "what would change it:"), oneLine(e.Remedy))
	}
}

func (a *app) showDetails(e *pb.Explanation) {
	for _, d := range e.GetDetails() {
		a.printf("  - %s\n", oneLine(d))
	}
}

func (a *app) stopCommand() *cobra.Command {
	var c connection
	var f format
	var reason string
	cmd := &cobra.Command{
		Use: "stop JOB...", Short: "Stop jobs", Args: arguments(1, -1, "the IDs or names of one or more jobs"),
		Long: "Stop jobs: a waiting one is cancelled, a running one's tasks get their stop signal and, after their grace, SIGKILL.\n" +
			"Stopping a job that has ended changes nothing.",
		Example: "  llmos stop train-1\n  llmos stop first second --reason 'wrong data'",
		RunE: func(cmd *cobra.Command, args []string) error {
			if f.json && len(args) > 1 {
				return invalid("-o json answers for one job, and %d are named", len(args)).Hint("stop them one by one")
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				for _, job := range args {
					resp, err := s.StopJob(ctx, &pb.StopJobRequest{JobId: job, Reason: reason})
					if err != nil {
						return err
					}
					if err := a.print(&f, resp, func() { a.printf("%s is asked to stop\n", firstOf(resp.JobId, job)) }); err != nil {
						return err
					}
				}
				return nil
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for those who ask later")
	return cmd
}
