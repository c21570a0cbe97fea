package main

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
)

func (a *app) statusCommand() *cobra.Command {
	var c connection
	var f format
	var local bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the servers and the cluster's sums", Args: arguments(0, 0, "no arguments"),
		Long:    "Show who leads, every server, and how many nodes, devices and jobs there are.\nExits with 1 when an invariant of the state does not hold.",
		Example: "  llmos status\n  llmos status --local --server 10.0.0.2:7300",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				status, err := s.GetStatus(ctx, &pb.GetStatusRequest{Local: local})
				if err != nil {
					return err
				}
				if err := a.print(&f, status, func() { a.showStatus(status) }); err != nil {
					return err
				}
				if status.InvariantFault != "" {
					return exitStatus(exitFailed)
				}
				return nil
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().BoolVar(&local, "local", false, "of the asked server, without asking the leader")
	return cmd
}

func (a *app) showStatus(s *pb.ClusterStatus) {
	t := a.outTint()
	line := func(name, text string) { a.printf("%s %s\n", t.paint(faint, fmt.Sprintf("%-9s", name)), text) }
	cluster := s.ClusterId
	if s.Name != "" {
		cluster += " (" + s.Name + ")"
	}
	line("cluster", cluster)
	if s.LeaderId == "" {
		line("leader", t.paint(red, "none: no majority of the servers can be reached"))
	} else {
		line("leader", fmt.Sprintf("%s at %s, term %d", s.LeaderId, s.LeaderAddr, s.Term))
	}
	line("nodes", fmt.Sprintf("%d of %d ready", s.NodesReady, s.NodesTotal))
	line("devices", fmt.Sprintf("%d of %d free", s.DevicesFree, s.DevicesTotal))
	line("jobs", fmt.Sprintf("%d running, %d waiting", s.JobsRunning, s.JobsPending))
	switch {
	case s.InvariantFault != "":
		line("state", t.paint(red, s.InvariantFault))
	default:
		line("state", fmt.Sprintf("every invariant holds at index %d", s.AppliedIndex))
	}
	if len(s.Servers) > 0 {
		a.printf("\n")
		a.show(serverTable(s))
	}
}

func serverTable(s *pb.ClusterStatus) *table {
	t := &table{header: []string{"SERVER", "ADDR", "ROLE", "STATE", "APPLIED"}}
	for _, server := range s.Servers {
		role := "learner"
		switch {
		case server.Leader:
			role = "leader"
		case server.Voter:
			role = "voter"
		}
		state := cell{"reachable", green}
		if !server.Reachable {
			state = cell{"unreachable", red}
		}
		applied := "-"
		if server.AppliedIndex > 0 {
			applied = fmt.Sprint(server.AppliedIndex)
		}
		t.add(plain(server.Id), plain(server.Addr), plain(role), state, plain(applied))
	}
	return t
}

// build is what this program was made from.
type build struct {
	Version  string `json:"version"`
	Commit   string `json:"commit"`
	Modified bool   `json:"modified"` // the commit does not hold all of it
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

// buildOf reads what the linker and the Go tool noted.
func buildOf() build {
	b := build{Version: version, Go: runtime.Version(), Platform: runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				b.Commit = s.Value
			case "vcs.modified":
				b.Modified = s.Value == "true"
			}
		}
		if b.Version == "" && info.Main.Version != "(devel)" {
			b.Version = info.Main.Version
		}
	}
	b.Version = firstOf(b.Version, b.Commit, "unknown")
	return b
}

func (a *app) versionCommand() *cobra.Command {
	var f format
	cmd := &cobra.Command{
		Use: "version", Short: "Print what this program is", Args: arguments(0, 0, "no arguments"),
		Example: "  llmos version\n  llmos version -o json",
		RunE: func(*cobra.Command, []string) error {
			b := buildOf()
			if f.json {
				return json.NewEncoder(a.out).Encode(b)
			}
			a.printf("llmos %s (%s, %s)\n", b.Version, b.Go, b.Platform)
			return nil
		},
	}
	f.flag(cmd)
	return cmd
}
