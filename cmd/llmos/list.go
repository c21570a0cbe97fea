package main

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

func (a *app) nodesCommand() *cobra.Command {
	var c connection
	var f format
	var stale bool
	cmd := &cobra.Command{
		Use: "nodes", Short: "List nodes and what they hold", Args: arguments(0, 0, "no arguments"),
		Long:    "List the nodes with what is used of their CPUs, memory and devices.",
		Example: "  llmos nodes\n  llmos nodes rm gpu-17",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				nodes, err := s.ListNodes(ctx, &pb.ListNodesRequest{Stale: stale})
				if err != nil {
					return err
				}
				return a.print(&f, nodes, func() { a.showNodes(nodes) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVar(&stale, "stale", false, "what the asked server knows, without asking the leader")
	cmd.AddCommand(a.removeNodeCommand())
	return cmd
}

func (a *app) removeNodeCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: "rm NODE", Short: "Forget a node whose host is gone", Args: arguments(1, 1, "the name or ID of one node"),
		Long: "Forget a node. You vouch that its host is gone: what its lost tasks still held is given free.\n" +
			"A node that holds live tasks is refused.",
		Example: "  llmos nodes rm gpu-17",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				nodes, err := s.ListNodes(ctx, &pb.ListNodesRequest{})
				if err != nil {
					return err
				}
				id := args[0]
				for _, n := range nodes.Nodes {
					if n.GetNode().GetName() == args[0] {
						id = n.GetNode().GetId()
					}
				}
				if _, err := s.RemoveNode(ctx, &pb.RemoveNodeRequest{NodeId: id}); err != nil {
					return err
				}
				a.printf("node %s is forgotten\n", args[0])
				return nil
			})
		},
	}
	c.flags(cmd)
	return cmd
}

func (a *app) showNodes(nodes *pb.ListNodesResponse) {
	if len(nodes.Nodes) == 0 {
		a.note("no nodes yet; on a host: llmos agent --join SERVER --token TOKEN (llmos token create --role agent)\n")
		return
	}
	a.show(nodeTable(nodes))
	for _, n := range nodes.Nodes {
		if d := n.GetNode().GetDrain(); d != nil {
			a.printf("%s\n", a.drainText(n))
		}
		if why := n.GetNode().GetUnfit(); why != "" {
			a.printf("%s: takes no new work: %s\n", n.Node.Name, oneLine(why))
		}
		for _, trouble := range deviceTroubles(n.GetNode()) {
			a.printf("%s\n", trouble)
		}
	}
}

func nodeTable(nodes *pb.ListNodesResponse) *table {
	t := &table{header: []string{"NAME", "STATE", "CPU", "MEM", "GPUS", "TASKS", "ADDR"}}
	labelled := slices.ContainsFunc(nodes.Nodes, func(n *pb.NodeView) bool { return len(n.GetNode().GetLabels()) > 0 })
	if labelled {
		t.header = append(t.header, "LABELS")
	}
	byName := slices.SortedStableFunc(slices.Values(nodes.Nodes), func(x, y *pb.NodeView) int {
		return strings.Compare(x.GetNode().GetName(), y.GetNode().GetName())
	})
	for _, n := range byName {
		node, acct := n.GetNode(), n.GetAccount()
		state := word(node.GetState().String(), "NODE_STATE_")
		shown := cell{state, stateColour(state)}
		if node.GetDrain() != nil {
			shown = cell{state + ", drained", yellow}
		} else if node.GetUnfit() != "" {
			shown = cell{state + ", unfit", yellow}
		}
		row := []cell{plain(firstOf(node.GetName(), node.GetId())), shown,
			plain(milliText(acct.GetCpuAllocated()) + "/" + milliText(node.GetCpuMilli())),
			plain(bytesText(acct.GetMemoryAllocated()) + "/" + bytesText(node.GetMemoryBytes())),
			plain(deviceText(n)), plain(fmt.Sprint(n.Tasks)), plain(node.GetAddr())}
		if labelled {
			row = append(row, plain(labelText(node.GetLabels())))
		}
		t.add(row...)
	}
	return t
}

// labelText lists labels by name: rack=r7, zone=a.
func labelText(labels map[string]string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, name+"="+labels[name])
	}
	return firstOf(strings.Join(parts, ", "), "-")
}

// drainText says why a node takes no new work, and what becomes of what runs there.
func (a *app) drainText(n *pb.NodeView) string {
	d := n.GetNode().GetDrain()
	text := fmt.Sprintf("%s: drained since %s", n.Node.Name, a.clock(d.SinceMs))
	if d.User != "" {
		text += " by " + d.User
	}
	if d.Reason != "" {
		text += ": " + oneLine(d.Reason)
	}
	switch {
	case n.Tasks > 0 && d.StopAtMs > 0:
		text += fmt.Sprintf("; its %s are stopped at %s", count(int(n.Tasks), "task"), a.clock(d.StopAtMs))
	case n.Tasks > 0:
		text += fmt.Sprintf("; %s still there", count(int(n.Tasks), "task"))
	}
	return text
}

// deviceText is used/total and the model: 1.25/4 H100-80GB; a model each when they differ.
func deviceText(n *pb.NodeView) string {
	used, total := map[string]int64{}, map[string]int{}
	for _, d := range n.GetNode().GetDevices() {
		if d.Health != pb.DeviceHealth_DEVICE_HEALTH_GONE {
			total[d.Model]++
		}
	}
	for _, d := range n.GetAccount().GetDevices() {
		used[d.Model] += int64(d.ShareAllocated)
	}
	var parts []string
	for _, m := range sortedKeys(total) {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%s/%d %s", milliText(used[m]), total[m], m)))
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

// deviceTroubles is a sentence for every device that is not well.
func deviceTroubles(n *pb.Node) []string {
	var out []string
	for _, d := range n.GetDevices() {
		if d.Health == pb.DeviceHealth_DEVICE_HEALTH_OK || d.Health == pb.DeviceHealth_DEVICE_HEALTH_UNSPECIFIED {
			continue
		}
		text := fmt.Sprintf("%s: %s %d (%s) is %s", n.Name, firstOf(d.Kind, "device"), d.Index, d.Id, word(d.Health.String(), "DEVICE_HEALTH_"))
		if d.Reason != "" {
			text += ": " + oneLine(d.Reason)
		}
		out = append(out, text)
	}
	return out
}

func sortedKeys(m map[string]int) []string { return slices.Sorted(maps.Keys(m)) }

// bytesText writes an amount of memory briefly.
func bytesText(n int64) string { return jobspec.FormatBytes(n) }
