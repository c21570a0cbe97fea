package main

import (
	"context"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

func (a *app) drainCommand() *cobra.Command {
	var c connection
	var f format
	var undo, now bool
	var stopAfter, reason string
	cmd := &cobra.Command{
		Use: "drain NODE", Short: "Keep new work off a node", Args: arguments(1, 1, "the name or ID of one node"),
		Long: "Keep new work off a node. What runs there goes on to its end; with --stop-after it is stopped after that\n" +
			"time, with --now at once, and its jobs are placed again elsewhere without losing a retry.",
		Example: "  llmos drain gpu-17 --reason 'new fan'\n  llmos drain gpu-17 --stop-after 30m\n  llmos drain gpu-17 --undo",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &pb.DrainNodeRequest{NodeId: args[0], Undo: undo, Reason: reason}
			switch {
			case undo && (now || stopAfter != "" || reason != ""):
				return invalid("--undo takes no other flag of drain").Hint("llmos drain %s --undo", args[0])
			case now && stopAfter != "":
				return invalid("--now and --stop-after say two things").Hint("keep one")
			case now:
				req.StopAfterMs = -1
			case stopAfter != "":
				ms, err := jobspec.ParseDuration(stopAfter)
				if err != nil {
					return atField(err, "--stop-after")
				}
				req.StopAfterMs = ms
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.DrainNode(ctx, req)
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.printf("%s\n", drainedText(req)) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVar(&undo, "undo", false, "the node takes work again")
	cmd.Flags().BoolVar(&now, "now", false, "stop what runs there at once")
	cmd.Flags().StringVar(&stopAfter, "stop-after", "", "stop what still runs there after `TIME`, such as 10m")
	cmd.Flags().StringVar(&reason, "reason", "", "`TEXT` for those who ask later")
	return cmd
}

func drainedText(r *pb.DrainNodeRequest) string {
	switch {
	case r.Undo:
		return r.NodeId + " takes work again"
	case r.StopAfterMs < 0:
		return r.NodeId + " takes no new work; what runs there is being stopped and placed again"
	case r.StopAfterMs > 0:
		return r.NodeId + " takes no new work; what still runs there in " + jobspec.FormatDuration(r.StopAfterMs) + " is stopped and placed again"
	}
	return r.NodeId + " takes no new work; what runs there goes on to its end"
}
