package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const queueLong = `Show and change the queue tree. Jobs go to its leaves (llmos run --queue vision/detection);
without a queue they go to "default". A queue's quota is guaranteed to it; what it does not
use is lent to its siblings and taken back when it needs it. What nobody is guaranteed is
divided by weight, past usage counting less as it grows older.

A queue file, for llmos queue apply:

  queues:
    - name: vision
      weight: 3
      quota: {gpu: 16}
      children:
        - name: detection            # its jobs say queue: vision/detection
          quota: {gpu: {nominal: 8, borrow: 4, lend: all}}
        - name: tracking
    - name: language
      quota: {gpu: 16, cpu: 256, memory: 2Ti}
      user_gpus_max: 8`

func (a *app) queueCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "queue", Short: "Show and change the queue tree", Long: queueLong, Args: arguments(0, 0, "one of the verbs apply, ls, rm and usage"),
		Example: "  llmos queue apply queues.yaml\n  llmos queue ls\n  llmos queue usage",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.queueApplyCommand(), a.queueListCommand(), a.queueRemoveCommand(), a.usageCommand())
	return cmd
}

func (a *app) queueApplyCommand() *cobra.Command {
	var c connection
	var f format
	var prune bool
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Set the queues of a file", Args: arguments(1, 1, "one queue file"),
		Long: "Set the queues of a file: each is made or replaced, all of them or none. Queues that the file\n" +
			"does not name stay; with --prune they go, unless they have unfinished jobs.",
		Example: "  llmos queue apply queues.yaml\n  llmos queue apply --prune queues.yaml",
		RunE: func(cmd *cobra.Command, args []string) error {
			queues, err := a.readQueues(args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				req := &pb.SetQueuesRequest{Queues: queues}
				if prune {
					if req.Remove, err = others(ctx, s, queues); err != nil {
						return err
					}
				}
				resp, err := s.SetQueues(ctx, req)
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() {
					a.printf("%s set", count(len(queues), "queue"))
					if len(req.Remove) > 0 {
						a.printf(", removed %s", joined(req.Remove))
					}
					a.printf("\n")
				})
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVar(&prune, "prune", false, "remove the queues that the file does not name")
	return cmd
}

// readQueues reads a queue file; "-" is standard input.
func (a *app) readQueues(name string) ([]*pb.Queue, error) {
	src, err := a.readInput(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, invalid("there is no queue file %s", name).Hint("the path is seen from the present folder")
	}
	if err != nil {
		return nil, invalid("the queue file %s cannot be read: %w", name, err)
	}
	queues, err := jobspec.ParseQueues(name, src)
	var faults jobspec.Faults
	if errors.As(err, &faults) {
		return nil, &specFaults{file: name, faults: faults, nothing: "no queue was changed"}
	}
	return queues, err
}

func (a *app) readInput(name string) ([]byte, error) {
	if name == "-" {
		return io.ReadAll(io.LimitReader(a.in, jobspec.FileBytesMax+1))
	}
	path, err := a.absolute(name)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, jobspec.FileBytesMax+1))
}

// others names the cluster's queues that are not among these, but for the one that always is.
func others(ctx context.Context, s *session, queues []*pb.Queue) ([]string, error) {
	keep := map[string]bool{queueDefault: true}
	for _, q := range queues {
		keep[q.Name] = true
	}
	now, err := s.ListQueues(ctx, &pb.ListQueuesRequest{Stale: true})
	if err != nil {
		return nil, err
	}
	var gone []string
	for _, v := range now.Queues {
		if !keep[v.GetQueue().GetName()] {
			gone = append(gone, v.GetQueue().GetName())
		}
	}
	return gone, nil
}

const queueDefault = "default"

func (a *app) queueListCommand() *cobra.Command {
	var c connection
	var f format
	var stale bool
	cmd := &cobra.Command{
		Use: "ls", Short: "List the queues and how they stand", Args: arguments(0, 0, "no arguments"),
		Long: "List the queue tree. SHARE is what a queue and those below it hold of the cluster's scarcest resource\n" +
			"now, beside the fair share that it is due; QUOTA what they hold of what they are guaranteed; PAST the\n" +
			"past usage that counts against them, in GPU hours.",
		Example: "  llmos queue ls\n  llmos queue ls -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.ListQueues(ctx, &pb.ListQueuesRequest{Stale: stale})
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.show(queueTable(resp.Queues, stale)) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVar(&stale, "stale", false, "what the asked server knows, without the leader's shares")
	return cmd
}

func (a *app) queueRemoveCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: "rm NAME...", Short: "Remove queues that have no unfinished jobs", Args: arguments(1, -1, "the names of one or more queues"),
		Long:    "Remove queues. All of them go or none: a queue that has unfinished jobs, or queues below it that stay, is refused.",
		Example: "  llmos queue rm vision/old",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				if _, err := s.SetQueues(ctx, &pb.SetQueuesRequest{Remove: args}); err != nil {
					return err
				}
				a.printf("removed %s\n", joined(args))
				return nil
			})
		},
	}
	c.flags(cmd)
	return cmd
}
