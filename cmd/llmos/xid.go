package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"llmos/agent/device"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const xidLong = `Show what agents do about the errors (XID) that NVIDIA's driver reports of a GPU.

  ignore        the task's own affair: nothing is done
  restart task  the tasks on the device are stopped and start again, without losing a retry
  drain device  the device takes no new work; the tasks on it run on
  needs reset   both: the tasks are stopped, and the device takes no new work until it is reset
  drain node    that, and the whole node takes no new work; its other tasks run on

What is drained takes work again after llmos repair or a restart of the host. An agent does otherwise with
--xid-actions: a file with a line such as "79: needs reset" for each code, or "unknown: ignore" for the rest.`

func (a *app) xidCommand() *cobra.Command {
	var actions string
	var f format
	cmd := &cobra.Command{
		Use: "xid [CODE]", Short: "Show what is done about errors of GPUs", Long: xidLong, Args: arguments(0, 1, "one code, or nothing"),
		Example: "  llmos xid\n  llmos xid 79\n  llmos xid --xid-actions /etc/llmos/xid.yaml",
		RunE: func(_ *cobra.Command, args []string) error {
			t, err := device.ParseXIDActions(actions)
			if err != nil {
				return atLine(err, "--xid-actions")
			}
			rows := t.Rows()
			if len(args) > 0 {
				code, err := strconv.ParseUint(args[0], 10, 32)
				if err != nil {
					return invalid("%q is no XID code", args[0]).Hint("llmos xid lists them")
				}
				rows = []device.XID{t.Of(uint32(code))}
			}
			list := &pb.XIDActions{Unknown: t.Unknown().String()}
			for _, x := range rows {
				list.Xids = append(list.Xids, &pb.XIDAction{Code: x.Code, Meaning: x.Meaning, Action: x.Action.String(), Changed: x.Changed})
			}
			return a.print(&f, list, func() { a.showXIDs(list, len(args) == 0) })
		},
	}
	f.flag(cmd)
	cmd.Flags().StringVar(&actions, "xid-actions", "", "the agents' `FILE` of actions, or 79=drain node,31=ignore")
	return cmd
}

func (a *app) showXIDs(list *pb.XIDActions, rest bool) {
	t := &table{header: []string{"XID", "ACTION", "MEANING"}, right: map[int]bool{0: true}}
	for _, x := range list.Xids {
		action := plain(x.Action)
		if x.Changed {
			action = cell{x.Action + " *", yellow}
		}
		t.add(plain(fmt.Sprint(x.Code)), action, plain(x.Meaning))
	}
	if rest {
		t.add(plain("other"), plain(list.Unknown), plain("not in the table"))
	}
	a.show(t)
}

func fault404(name string) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "there is no node %q", name).Hint("llmos nodes lists them")
}
