package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

func (a *app) planCommand() *cobra.Command {
	var c connection
	var f format
	var spec specFlags
	cmd := &cobra.Command{
		Use: "plan (FILE | -- COMMAND [ARGUMENT...])", Short: "Say what would happen to a job, without submitting it",
		Long: "Say what would happen if a job were submitted now: where it would start and whom it would stop, or why\n" +
			"it would wait, and for how long. Nothing is submitted. It takes the files and flags of llmos run.",
		Example: "  llmos plan train.yaml\n  llmos plan -n 8 --gpus 1 -- python train.py",
		Args: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() < 0 && len(args) > 1 {
				return invalid("llmos plan takes one job file, and %d arguments are given", len(args)).Hint("llmos plan %s", args[0])
			}
			return a.runArguments(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := a.batchOf(cmd, &spec, args)
			if err != nil {
				return err
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.PlanJob(ctx, &pb.PlanJobRequest{Spec: b.specs[0]})
				if err != nil {
					return b.placed(err, 0)
				}
				return a.print(&f, resp, func() { a.showPlan(b.specs[0], resp) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().SortFlags = false
	spec.flags(cmd.Flags())
	return cmd
}

func (a *app) showPlan(spec *pb.JobSpec, p *pb.PlanJobResponse) {
	t := a.outTint()
	name := t.paint(bold, firstOf(spec.GetName(), spec.GetGenerateName()))
	if n := spec.GetArray().GetCount(); n > 0 {
		name = fmt.Sprintf("each of the %d copies of %s, by itself,", n, name)
	}
	if !p.StartsNow {
		a.printf("%s would %s", name, t.paint(yellow, "wait"))
		if reason := oneLine(p.GetExplanation().GetReason()); reason != "" {
			a.printf(": %s", reason)
		}
		a.printf("\n")
		a.showOutlook(p.GetExplanation())
		a.showDetails(p.GetExplanation())
	} else {
		a.printf("%s would %s: %s\n", name, t.paint(green, "start now"), plannedText(p.Tasks))
		a.show(planTable(p.Tasks))
	}
	if len(p.Evicts) > 0 {
		a.printf("it would stop %s, which would wait again: %s\n", count(len(p.Evicts), "job"), joined(p.Evicts))
	}
	a.note("%s\n", a.errTint().paint(faint, "nothing was submitted"))
}

// plannedText counts tasks and nodes: 4 tasks on 2 nodes.
func plannedText(tasks []*pb.PlannedTask) string {
	nodes := map[string]bool{}
	for _, task := range tasks {
		nodes[task.GetNodeId()] = true
	}
	return count(len(tasks), "task") + " on " + count(len(nodes), "node")
}

// planTable has a line for each role on each node, with the ranks and the devices there.
func planTable(tasks []*pb.PlannedTask) *table {
	type place struct{ node, role string }
	var order []place
	ranks, devices := map[place][]int{}, map[place][]string{}
	names := map[string]string{}
	for rank, task := range tasks {
		p := place{task.GetNodeId(), task.GetRole()}
		if ranks[p] == nil {
			order = append(order, p)
		}
		ranks[p] = append(ranks[p], rank)
		devices[p] = append(devices[p], task.GetDeviceIds()...)
		names[p.node] = firstOf(task.GetNodeName(), task.GetNodeId())
	}
	t := &table{header: []string{"NODE", "ROLE", "RANKS", "DEVICES"}}
	for _, p := range order {
		t.add(plain(names[p.node]), plain(p.role), plain(spansText(ranks[p])), plain(firstOf(strings.Join(devices[p], ", "), "-")))
	}
	return t
}

// spansText writes ascending numbers briefly: 0-3, 6.
func spansText(numbers []int) string {
	var parts []string
	for i := 0; i < len(numbers); {
		j := i
		for j+1 < len(numbers) && numbers[j+1] == numbers[j]+1 {
			j++
		}
		part := fmt.Sprint(numbers[i])
		if j > i {
			part = fmt.Sprintf("%d-%d", numbers[i], numbers[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ", ")
}
