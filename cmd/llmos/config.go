package main

import (
	"context"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

func (a *app) configCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Show and change the scheduling policy", Args: arguments(0, 0, "one of the verbs get and set"),
		Long:    "Show and change the cluster's scheduling policy. It is kept by the servers and holds from the next decision on.",
		Example: "  llmos config get\n  llmos config set scheduler.backfill=conservative",
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(a.configGetCommand(), a.configSetCommand())
	return cmd
}

func (a *app) configGetCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "get [KEY...]", Short: "Show settings", Args: arguments(0, -1, "keys"),
		Long:    "Show all settings with their meaning, or the values of some alone.",
		Example: "  llmos config get\n  llmos config get scheduler.backfill",
		RunE: func(cmd *cobra.Command, args []string) error {
			asked, err := settingsOf(args)
			if err != nil {
				return err
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				config, err := s.GetSchedulerConfig(ctx, &pb.GetSchedulerConfigRequest{})
				if err != nil {
					return err
				}
				return a.print(&f, config, func() { a.showSettings(config, asked) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

func settingsOf(keys []string) (asked []*jobspec.Setting, err error) {
	for _, key := range keys {
		s, err := jobspec.FindSetting(key)
		if err != nil {
			return nil, err
		}
		asked = append(asked, s)
	}
	return asked, nil
}

// showSettings prints the values that were asked for alone, for scripts; or all as a table.
func (a *app) showSettings(config *pb.SchedulerConfig, asked []*jobspec.Setting) {
	for _, s := range asked {
		value, _ := s.Get(config)
		a.printf("%s\n", value)
	}
	if len(asked) > 0 {
		return
	}
	t := &table{header: []string{"SETTING", "VALUE", "", "MEANING"}}
	for _, s := range jobspec.Settings {
		value, set := s.Get(config)
		origin := "default"
		if set {
			origin = "set"
		}
		t.add(plain(s.Key), plain(value), cell{origin, faint}, plain(s.Means))
	}
	a.show(t)
}

func (a *app) configSetCommand() *cobra.Command {
	var c connection
	var f format
	cmd := &cobra.Command{
		Use: "set KEY=VALUE...", Short: "Change settings", Args: arguments(1, -1, "one or more KEY=VALUE"),
		Long:    "Change settings, all of them or none. The value default sets one back. llmos config get lists them.",
		Example: "  llmos config set scheduler.backfill=conservative\n  llmos config set hold_after=1m preemption=off\n  llmos config set order=default",
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, assignment := range args { // before anything is asked
				if err := jobspec.Set(&pb.SchedulerConfig{}, assignment); err != nil {
					return err
				}
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				now, err := s.GetSchedulerConfig(ctx, &pb.GetSchedulerConfigRequest{})
				if err != nil {
					return err
				}
				config := proto.CloneOf(now)
				for _, assignment := range args {
					if err := jobspec.Set(config, assignment); err != nil {
						return err
					}
				}
				resp, err := s.SetSchedulerConfig(ctx, &pb.SetSchedulerConfigRequest{Config: config})
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.showChanges(now, config) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	return cmd
}

func (a *app) showChanges(before, after *pb.SchedulerConfig) {
	changed := false
	for _, s := range jobspec.Settings {
		old, _ := s.Get(before)
		if value, set := s.Get(after); value != old {
			changed = true
			a.printf("%s is %s now, and was %s\n", s.Key, value, old)
		} else if _, was := s.Get(before); was != set {
			changed = true
			a.printf("%s is %s, as before\n", s.Key, value)
		}
	}
	if !changed {
		a.printf("nothing changes\n")
	}
}
