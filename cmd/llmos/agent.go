package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"llmos/agent"
	"llmos/agent/device"
	"llmos/server/jobspec"
)

// agentFlags are the flags of `agent`.
type agentFlags struct {
	processFlags
	devices   string
	sharedDir string
	labels    []string
	user      string
	allow     []string
	noFence   bool
	engine    string
	ports     string
	cpu       string
	memory    string
	noGossip  bool
	timing    string
	xids      string
	overrun   string
	stranger  string
	allowMIG  bool
}

const agentLong = `Run the agent of this host: it finds the devices, runs the tasks that the servers assign
and keeps them running while it or the servers restart.

The first start needs --join and a token (llmos token create --role agent); later ones
need neither. --devices pretends to devices, to try gangs and queues without a GPU.`

func (a *app) agentCommand() *cobra.Command {
	o := &agentFlags{}
	cmd := &cobra.Command{
		Use: "agent", Short: "Run this host's agent", Long: agentLong, Args: arguments(0, 0, "no arguments"),
		Example: "  llmos agent --join 10.0.0.1:7300 --token TOKEN --shared-dir /srv/shared\n" +
			"  llmos agent --join 10.0.0.1:7300 --token TOKEN --devices 4xH100-80GB",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.agentConfig(o)
			if err != nil {
				return err
			}
			return a.runAgent(cmd.Context(), cfg)
		},
	}
	o.flags(cmd, agent.DefaultListen)
	f := cmd.Flags()
	f.StringVar(&o.devices, "devices", "", "pretend to `DEVICES`: 4xH100-80GB, a YAML file, or none (default: those that are there)")
	f.StringVar(&o.sharedDir, "shared-dir", "", "`FOLDER` that every host sees, for checkpoints; each job gets its own in it")
	f.StringArrayVar(&o.labels, "label", nil, "`NAME=VALUE` that describes this host; may be repeated")
	f.StringVar(&o.user, "user", "", "`USER` that runs tasks which name none (default: the agent's)")
	f.StringArrayVar(&o.allow, "allow-device", nil, "device `FILE` that every task may use, such as /dev/fuse; may be repeated")
	f.StringVar(&o.engine, "engine", "", "`SOCKET` of the container engine (default: Docker's or Podman's)")
	f.BoolVar(&o.noFence, "no-landlock", false, "let tasks of other users mount file systems; keep them apart by file modes alone")
	f.StringVar(&o.ports, "port-range", "20000-29999", "ports (`FIRST-LAST`) to give to tasks")
	f.StringVar(&o.cpu, "cpu", "", "`CORES` to offer, such as 8 (default: all)")
	f.StringVar(&o.memory, "memory", "", "memory (`SIZE`) to offer, such as 64Gi (default: all)")
	f.StringVar(&o.xids, "xid-actions", "", "what to do about errors of GPUs: a `FILE`, or 79=drain node,31=ignore (default: as llmos xid shows)")
	f.StringVar(&o.overrun, "memory-overrun", agent.OverrunEnd, "`WHAT` becomes of a task that holds more of a shared device than it was granted: end, warn or off")
	f.StringVar(&o.stranger, "stranger-memory", "", "`SIZE` of a device's memory that processes of no task may hold before it takes no new work, or off (default: 512Mi)")
	f.BoolVar(&o.allowMIG, "allow-mig", false, "let llmos mig make and destroy the MIG slices of this host's GPUs")
	f.BoolVar(&o.noGossip, "no-gossip", false, "find servers by --join alone")
	f.StringVar(&o.timing, "timing", "lan", "`PROFILE`: lan, or fast for tests on one host")
	envFlag(f, "engine", "LLMOS_ENGINE")
	envFlag(f, "devices", "LLMOS_DEVICES_SPEC")
	envFlag(f, "shared-dir", "LLMOS_SHARED_DIR")
	envFlag(f, "user", "LLMOS_TASK_USER")
	envFlag(f, "port-range", "LLMOS_PORT_RANGE")
	envFlag(f, "xid-actions", "LLMOS_XID_ACTIONS")
	envFlag(f, "memory-overrun", "LLMOS_MEMORY_OVERRUN")
	envFlag(f, "stranger-memory", "LLMOS_STRANGER_MEMORY")
	envFlag(f, "allow-mig", "LLMOS_ALLOW_MIG")
	return cmd
}

func (a *app) agentConfig(o *agentFlags) (agent.Config, error) {
	cfg := agent.DefaultConfig()
	var err error
	if cfg.DataDir, err = o.folder(a, "agent"); err != nil {
		return cfg, err
	}
	if cfg.Log, err = o.logger(a.errOut); err != nil {
		return cfg, err
	}
	if cfg.PortMin, cfg.PortMax, err = portRange(o.ports); err != nil {
		return cfg, err
	}
	if cfg.Labels, err = labels(o.labels); err != nil {
		return cfg, err
	}
	if cfg.SharedDir, err = a.absolute(o.sharedDir); err != nil {
		return cfg, err
	}
	if o.cpu != "" {
		if cfg.CPUMilli, err = jobspec.ParseCPU(o.cpu); err != nil {
			return cfg, atField(err, "--cpu")
		}
	}
	if o.memory != "" {
		if cfg.MemoryBytes, err = jobspec.ParseBytes(o.memory); err != nil {
			return cfg, atField(err, "--memory")
		}
	}
	if cfg.XIDs, err = device.ParseXIDActions(o.xids); err != nil {
		return cfg, atLine(err, "--xid-actions")
	}
	switch o.stranger {
	case "":
	case "off":
		cfg.StrangerBytes = -1
	default:
		if cfg.StrangerBytes, err = jobspec.ParseBytes(o.stranger); err != nil {
			return cfg, atField(err, "--stranger-memory")
		}
	}
	switch o.timing {
	case "lan":
	case "fast":
		cfg.FastGossip = true
	default:
		return cfg, invalid("--timing %q is neither lan nor fast", o.timing)
	}
	cfg.Listen, cfg.Advertise, cfg.Name, cfg.Join, cfg.Token = o.listen, o.advertise, o.name, o.join, o.token
	cfg.Overrun, cfg.AllowMIG = o.overrun, o.allowMIG
	cfg.Devices, cfg.TaskUser, cfg.Gossip, cfg.Version = o.devices, o.user, !o.noGossip, buildOf().Version
	cfg.AllowDevices, cfg.NoLandlock = o.allow, o.noFence
	cfg.Engine = o.engine
	return cfg, nil
}

func (a *app) runAgent(ctx context.Context, cfg agent.Config) error {
	g, err := agent.New(cfg)
	if err != nil {
		return err
	}
	return errors.Join(a.serve(ctx, g, func() {}), g.Close())
}
