package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"llmos/agent/device"
	pb "llmos/proto/llmos/v1"
)

// migTimeout is how long a division may take: the driver works seconds on each slice.
const migTimeout = 150 * time.Second

func (a *app) devicesCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "devices [NODE]", Short: "List devices, how they are and who holds them", Args: arguments(0, 1, "the name or ID of one node, or nothing"),
		Long: "List the devices of all nodes, or of one: what is granted of each, how busy and how hot it is, the memory in use,\n" +
			"errors of its memory (corrected/uncorrected), and the tasks that hold it.",
		Example: "  llmos devices\n  llmos devices gpu-17",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				nodes, err := s.ListNodes(ctx, &pb.ListNodesRequest{Detail: true})
				if err != nil {
					return err
				}
				if len(args) > 0 {
					nodes.Nodes = slices.DeleteFunc(nodes.Nodes, func(n *pb.NodeView) bool {
						return n.GetNode().GetName() != args[0] && n.GetNode().GetId() != args[0]
					})
					if len(nodes.Nodes) == 0 {
						return fault404(args[0])
					}
				}
				return a.print(&f, nodes, func() { a.showDevices(nodes) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

func (a *app) showDevices(nodes *pb.ListNodesResponse) {
	t := &table{header: []string{"NODE", "DEVICE", "MODEL", "STATE", "GRANTED", "BUSY", "MEMORY", "TEMP", "POWER", "ECC", "TASKS"}}
	for _, n := range nodes.Nodes {
		samples := map[string]*pb.DeviceSample{}
		for _, s := range n.GetSample().GetDevices() {
			samples[s.DeviceId] = s
		}
		for _, d := range n.GetNode().GetDevices() {
			health := word(d.Health.String(), "DEVICE_HEALTH_")
			colour := ""
			if d.Health != pb.DeviceHealth_DEVICE_HEALTH_OK {
				colour = yellow
			}
			model := d.Model
			if d.MigProfile != "" {
				model += " " + d.MigProfile
			}
			row := []cell{plain(firstOf(n.Node.Name, n.Node.Id)), plain(fmt.Sprintf("%s %d %s", firstOf(d.Kind, "device"), d.Index, d.Id)), plain(model),
				{health, colour}, plain(grantedText(n, d.Id))}
			row = append(row, sampleCells(samples[d.Id], d)...)
			t.add(append(row, plain(firstOf(strings.Join(holdersOf(n, d.Id), ", "), "-")))...)
		}
	}
	if len(t.rows) == 0 {
		a.note("no devices; llmos nodes lists the hosts\n")
		return
	}
	a.show(t)
	for _, n := range nodes.Nodes {
		if why := n.GetNode().GetUnfit(); why != "" {
			a.printf("%s: takes no new work: %s\n", n.Node.Name, oneLine(why))
		}
		for _, trouble := range deviceTroubles(n.GetNode()) {
			a.printf("%s\n", trouble)
		}
	}
}

// grantedText is the share of a device that tasks hold.
func grantedText(n *pb.NodeView, id string) string {
	for _, d := range n.GetAccount().GetDevices() {
		if d.DeviceId == id {
			return fmt.Sprintf("%d%%", d.ShareAllocated/10)
		}
	}
	return "-"
}

// sampleCells writes how a device is; a dash for what is not known.
func sampleCells(s *pb.DeviceSample, d *pb.Device) []cell {
	if s == nil {
		return []cell{plain("-"), plain(bytesText(d.MemoryBytes)), plain("-"), plain("-"), plain("-")}
	}
	known := func(n int64, text string) cell {
		if n < 0 {
			return plain("-")
		}
		return plain(text)
	}
	ecc := plain("-")
	if s.EccCorrected >= 0 && s.EccUncorrected >= 0 {
		ecc = plain(fmt.Sprintf("%d/%d", s.EccCorrected, s.EccUncorrected))
		if s.EccUncorrected > 0 {
			ecc.colour = red
		}
	}
	return []cell{known(int64(s.Percent), fmt.Sprintf("%d%%", s.Percent)), known(s.MemoryUsedBytes, bytesText(s.MemoryUsedBytes)+"/"+bytesText(d.MemoryBytes)),
		known(int64(s.Celsius), fmt.Sprintf("%d C", s.Celsius)), known(s.Milliwatt, fmt.Sprintf("%d W", (s.Milliwatt+500)/1000)), ecc}
}

// holdersOf names the tasks that hold a device.
func holdersOf(n *pb.NodeView, id string) (tasks []string) {
	for _, alloc := range n.GetAllocations() {
		if slices.ContainsFunc(alloc.GetDevices(), func(g *pb.DeviceGrant) bool { return g.GetDeviceId() == id }) {
			tasks = append(tasks, alloc.TaskId)
		}
	}
	return tasks
}

func (a *app) repairCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "repair NODE [DEVICE]", Short: "Say that a device or a node is repaired", Args: arguments(1, 2, "a node, and perhaps one of its devices"),
		Long: "Say that a device, by its ID or index, or all of a node is repaired: what XID errors held against it is\n" +
			"forgotten and it takes work again. A restart of the host does the same. Reset the GPU first if it needs that.",
		Example: "  llmos repair gpu-17\n  llmos repair gpu-17 3",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &pb.RepairNodeRequest{NodeId: args[0]}
			if len(args) > 1 {
				req.DeviceId = args[1]
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.RepairNode(ctx, req)
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() {
					for _, text := range resp.Cleared {
						a.printf("%s: forgotten: %s\n", args[0], text)
					}
					if len(resp.Cleared) == 0 {
						a.printf("nothing was held against %s\n", strings.Join(args, " "))
					}
				})
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

func (a *app) migCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "mig NODE GPU PROFILES", Short: "Divide a GPU into MIG slices, or make it whole", Args: arguments(3, 3, "a node, one of its GPUs and profiles"),
		Long: "Make MIG slices of a GPU, given by its UUID or index, in place of those it has. PROFILES are such as 1g.10gb,3g.40gb\n" +
			"or 7x1g.10gb; the word whole turns MIG off. No task may hold the GPU, and its agent must run with --allow-mig.",
		Example: "  llmos mig gpu-17 0 7x1g.10gb\n  llmos mig gpu-17 0 3g.40gb,2g.20gb\n  llmos mig gpu-17 0 whole",
		RunE: func(cmd *cobra.Command, args []string) error {
			req := &pb.DivideGPURequest{NodeId: args[0], DeviceId: args[1]}
			if args[2] != "whole" {
				profiles, err := device.ParseProfiles(args[2])
				if err != nil {
					return invalid("%w", err).At("PROFILES", 0).Hint("write them as in 1g.10gb,3g.40gb or 7x1g.10gb, or write whole")
				}
				req.Profiles = profiles
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.DivideGPU(ctx, req)
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() {
					a.printf("%s: GPU %s is now\n", args[0], args[1])
					for _, d := range resp.Devices {
						a.printf("  %s\n", strings.TrimSpace(fmt.Sprintf("%s %s %s", d.Id, d.Model, d.MigProfile)))
					}
				})
			})
		},
	}
	c.flags(cmd)
	c.timeout = migTimeout
	cmd.Flags().Lookup("timeout").DefValue = migTimeout.String()
	f.flag(cmd)
	return cmd
}
