package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// reserveFlags are the flags of `reserve`.
type reserveFlags struct {
	c           connection
	f           format
	start       string
	length      string
	nodes       int32
	gpus        int32
	node        []string
	where       string
	queue       string
	maintenance bool
	reason      string
}

const reserveLong = `Set nodes or devices aside for a span of time. Jobs that say reservation: NAME run there, and
those of --queue; others run there only if they will surely have ended before it starts. With
--maintenance nobody runs there. Times without a zone are local.`

func (a *app) reserveCommand() *cobra.Command {
	o := &reserveFlags{}
	cmd := &cobra.Command{
		Use: "reserve NAME", Short: "Set nodes aside for a span of time", Long: reserveLong, Args: arguments(1, 1, "the name of one reservation"),
		Example: "  llmos reserve friday --start 2026-11-27T08:00 --for 4h --nodes 4\n" +
			"  llmos reserve demo --for 2h --gpus 32 --where 'gpu_model = H100-80GB' --queue vision\n" +
			"  llmos reserve cooling --start 2026-11-28T06:00 --for 1h --node gpu-1,gpu-2 --maintenance",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := a.reservation(o, args[0])
			if err != nil {
				return err
			}
			return a.with(cmd, &o.c, func(ctx context.Context, s *session) error {
				resp, err := s.CreateReservation(ctx, &pb.CreateReservationRequest{Reservation: r})
				if err != nil {
					return reservationFault(err)
				}
				return a.print(&o.f, resp, func() {
					a.printf("%s is reserved: %s from %s to %s\n", r.Name, roomText(r, nil), a.clock(r.StartMs), a.clock(r.EndMs))
					if r.Kind == pb.ReservationKind_RESERVATION_KIND_USE {
						a.note("  llmos run --reservation %s -- ...   %s\n", r.Name, a.errTint().paint(faint, "# to run there"))
					}
				})
			})
		},
	}
	o.c.flags(cmd)
	o.f.flag(cmd)
	f := cmd.Flags()
	f.StringVar(&o.start, "start", "now", "`TIME` when it starts, such as 2026-11-25T08:00")
	f.StringVar(&o.length, "for", "", "how long (`TIME`) it lasts, such as 2h or 3d")
	f.Int32Var(&o.nodes, "nodes", 0, "`N` whole nodes, which the scheduler finds")
	f.Int32Var(&o.gpus, "gpus", 0, "`N` devices, on as few nodes as can be")
	f.StringSliceVar(&o.node, "node", nil, "these `NODES`, whole, by name or ID")
	f.StringVar(&o.where, "where", "", "among the nodes that meet this `CONDITION`")
	f.StringVar(&o.queue, "queue", "", "jobs of this `QUEUE` may run there without naming it")
	f.BoolVar(&o.maintenance, "maintenance", false, "nobody runs there")
	f.StringVar(&o.reason, "reason", "", "`TEXT` for those who ask later")
	cmd.AddCommand(a.reserveListCommand(), a.reserveRemoveCommand())
	return cmd
}

// reservation reads the flags.
func (a *app) reservation(o *reserveFlags, name string) (*pb.Reservation, error) {
	r := &pb.Reservation{Name: name, Kind: pb.ReservationKind_RESERVATION_KIND_USE, NodeIds: o.node, Nodes: o.nodes, Gpus: o.gpus, Queue: o.queue, Reason: o.reason}
	if o.maintenance {
		r.Kind = pb.ReservationKind_RESERVATION_KIND_MAINTENANCE
	}
	var err error
	if r.StartMs = a.now().UnixMilli(); o.start != "now" {
		if r.StartMs, err = jobspec.ParseTime(o.start, a.location); err != nil {
			return nil, atField(err, "--start")
		}
	}
	if o.length == "" {
		return nil, invalid("--for is missing: how long the reservation lasts").Hint("such as --for 2h")
	}
	length, err := jobspec.ParseDuration(o.length)
	if err != nil {
		return nil, atField(err, "--for")
	}
	r.EndMs = r.StartMs + length
	if o.where != "" {
		if r.Where, err = jobspec.ParseWhere(o.where); err != nil {
			return nil, atField(err, "--where")
		}
	}
	if err := jobspec.ValidateReservation(r); err != nil {
		return nil, reservationFault(err)
	}
	return r, nil
}

// reservationFlags maps the fields of a reservation to the flags that set them.
var reservationFlags = map[string]string{"name": "", "start": "--start", "end": "--for", "nodes": "--nodes, --gpus, --node", "gpus": "--gpus",
	"node": "--node", "where": "--where", "queue": "--queue", "reason": "--reason",
	"start_ms": "--start", "end_ms": "--for", "node_ids": "--node"}

// reservationFault puts a fault of a reservation at its flag.
func reservationFault(err error) error {
	f := fault.From(err)
	field, _, _ := strings.Cut(strings.TrimPrefix(f.Fault.Field, "reservation."), "[")
	if flag, known := reservationFlags[field]; known {
		return f.At(flag, 0)
	}
	return f
}

func (a *app) reserveListCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "ls", Short: "List the reservations", Args: arguments(0, 0, "no arguments"),
		Long:    "List the reservations that run or are to come, by their start, in local time.",
		Example: "  llmos reserve ls",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				resp, err := s.ListReservations(ctx, &pb.ListReservationsRequest{})
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.showReservations(resp.Reservations, allNodeNames(ctx, s)) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

// allNodeNames gives the names of the nodes by their IDs; empty where it fails.
func allNodeNames(ctx context.Context, s *session) map[string]string {
	names := map[string]string{}
	nodes, err := s.ListNodes(ctx, &pb.ListNodesRequest{Stale: true})
	if err != nil {
		return names
	}
	for _, n := range nodes.Nodes {
		names[n.GetNode().GetId()] = n.GetNode().GetName()
	}
	return names
}

func (a *app) showReservations(all []*pb.Reservation, nodes map[string]string) {
	if len(all) == 0 {
		a.note("nothing is reserved; llmos reserve --help has examples\n")
		return
	}
	t := &table{header: []string{"NAME", "STATE", "START", "END", "ROOM", "FOR", "REASON"}}
	for _, r := range all {
		state := cell{a.reservationState(r), ""}
		if state.text == "now" {
			state.colour = green
		}
		who := "jobs that name it"
		switch {
		case r.Kind == pb.ReservationKind_RESERVATION_KIND_MAINTENANCE:
			who = "maintenance"
		case r.Queue != "":
			who = "queue " + r.Queue
		}
		t.add(plain(r.Name), state, plain(a.clock(r.StartMs)), plain(a.clock(r.EndMs)), plain(roomText(r, nodes)), plain(who), plain(firstOf(r.Reason, "-")))
	}
	a.show(t)
}

func (a *app) reservationState(r *pb.Reservation) string {
	now := a.now().UnixMilli()
	switch {
	case now < r.StartMs:
		return "in " + age(time.Duration(r.StartMs-now)*time.Millisecond)
	case now < r.EndMs:
		return "now"
	}
	return "over"
}

// roomText says what is reserved: 4 nodes where rack = r7, 32 GPUs, or gpu-1 and gpu-2.
func roomText(r *pb.Reservation, names map[string]string) string {
	text := ""
	switch {
	case len(r.NodeIds) > nodesShown:
		text = count(len(r.NodeIds), "node")
	case len(r.NodeIds) > 0:
		words := make([]string, len(r.NodeIds))
		for i, id := range r.NodeIds {
			words[i] = firstOf(names[id], id)
		}
		text = joined(words)
	case r.Nodes > 0:
		text = count(int(r.Nodes), "node")
	default:
		text = count(int(r.Gpus), "GPU")
	}
	if r.Where != nil {
		text += " where " + jobspec.FormatWhere(r.Where)
	}
	return text
}

const nodesShown = 4 // of a reservation; more are counted

// clock writes a time in the local zone, the day included unless it is today.
func (a *app) clock(ms int64) string {
	if ms == 0 {
		return "-"
	}
	t, now := time.UnixMilli(ms).In(a.location), a.now().In(a.location)
	switch {
	case t.Year() == now.Year() && t.YearDay() == now.YearDay():
		return t.Format("15:04")
	case t.Year() == now.Year():
		return t.Format("Jan 2 15:04")
	}
	return t.Format("2006-01-02 15:04")
}

// whenText is a time to come and how far it is: 14:20 (in 12m).
func (a *app) whenText(ms int64) string {
	d := time.UnixMilli(ms).Sub(a.now())
	if d < time.Minute {
		return "within a minute"
	}
	return fmt.Sprintf("%s (in %s)", a.clock(ms), age(d))
}

func (a *app) reserveRemoveCommand() *cobra.Command {
	var c connection
	cmd := &cobra.Command{
		Use: "rm NAME", Short: "Give the room of a reservation free", Args: arguments(1, 1, "the name of one reservation"),
		Example: "  llmos reserve rm friday",
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				if _, err := s.RemoveReservation(ctx, &pb.RemoveReservationRequest{Name: args[0]}); err != nil {
					return err
				}
				a.printf("%s is removed\n", args[0])
				return nil
			})
		},
	}
	c.flags(cmd)
	return cmd
}
