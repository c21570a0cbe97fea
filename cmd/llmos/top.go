package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

// topEvery is the time between two looks at the cluster.
const topEvery = 2 * time.Second

// topFlags are the flags of `top`.
type topFlags struct {
	c     connection
	once  bool
	every time.Duration
}

func (a *app) topCommand() *cobra.Command {
	o := &topFlags{}
	cmd := &cobra.Command{
		Use: "top", Short: "Watch what jobs and nodes use", Args: arguments(0, 0, "no arguments"),
		Long: "Watch the cluster: what its nodes and jobs really use of CPU, memory and devices, how far jobs are,\n" +
			"and which ranks make no progress. Keys: up and down choose a job, enter shows its ranks, s sorts, q ends.\n" +
			"Where there is no terminal, or with --once, it prints one look and ends.",
		Example: "  llmos top\n  llmos top --once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := a.open(cmd.Context(), &o.c)
			if err != nil {
				return err
			}
			defer s.close()
			return a.top(cmd.Context(), s, o)
		},
	}
	o.c.flags(cmd)
	cmd.Flags().BoolVar(&o.once, "once", false, "print one look and end")
	cmd.Flags().DurationVar(&o.every, "every", topEvery, "look again after `TIME`")
	return cmd
}

func (a *app) top(ctx context.Context, s *session, o *topFlags) error {
	if o.every < 100*time.Millisecond {
		return invalid("--every %s is too often", o.every).Hint("give at least 100ms; the default is %s", topEvery)
	}
	look := func() topLook { return lookAt(ctx, s, o.c.timeout) }
	first := look()
	if first.err != nil {
		return reached(first.err, s.Servers())
	}
	b := newTopBoard(a)
	b.take(first)
	if o.once || !a.outTTY {
		width := 0
		if a.outTTY {
			width = a.columns()
		}
		a.printf("%s", b.render(width, 0))
		return nil
	}
	return a.watchTop(ctx, b, look, o.every)
}

// topLook is what one look at the cluster found.
type topLook struct {
	nodes []*pb.NodeView
	jobs  []*pb.JobView
	err   error
}

func lookAt(ctx context.Context, s *session, timeout time.Duration) topLook {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	nodes, err := s.ListNodes(ctx, &pb.ListNodesRequest{})
	if err != nil {
		return topLook{err: err}
	}
	jobs, err := s.ListJobs(ctx, &pb.ListJobsRequest{})
	return topLook{nodes: nodes.GetNodes(), jobs: jobs.GetJobs(), err: err}
}
