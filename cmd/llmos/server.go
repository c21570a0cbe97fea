package main

import (
	"context"

	"github.com/spf13/cobra"

	"llmos/server"
)

// serverFlags are the flags of `server`.
type serverFlags struct {
	processFlags
	bootstrap   bool
	clusterName string
	clientDir   string
	timing      string
	snapshots   uint64
	metrics     string
}

const serverLong = `Run a server. Three or five of them replicate the cluster's state; one is enough to begin.

The first server of a cluster starts with --bootstrap, which makes the cluster, its
certificate authority and your credentials. The others start with --join and a token
(llmos token create --role server). Every later start needs neither: what the server is
was written to its data folder.`

func (a *app) serverCommand() *cobra.Command {
	o := &serverFlags{}
	cmd := &cobra.Command{
		Use: "server", Short: "Run a server of a cluster", Long: serverLong, Args: arguments(0, 0, "no arguments"),
		Example: "  llmos server --bootstrap --listen 10.0.0.1:7300\n" +
			"  llmos server --listen 10.0.0.2:7300 --join 10.0.0.1:7300 --token TOKEN",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := a.serverConfig(o)
			if err != nil {
				return err
			}
			return a.runServer(cmd.Context(), cfg)
		},
	}
	o.flags(cmd, server.DefaultListen)
	f := cmd.Flags()
	f.BoolVar(&o.bootstrap, "bootstrap", false, "make a new cluster in an empty data folder")
	f.StringVar(&o.clusterName, "cluster-name", "llmos", "`NAME` that people call the cluster by; with --bootstrap")
	f.StringVar(&o.clientDir, "client-dir", "", "`FOLDER` where --bootstrap leaves your credentials (default ~/.config/llmos)")
	f.StringVar(&o.timing, "timing", "lan", "`PROFILE`: lan, or fast for tests on one host")
	f.Uint64Var(&o.snapshots, "snapshot-threshold", 0, "`N` log entries behind the last snapshot that make a new one (default: that of --timing)")
	f.StringVar(&o.metrics, "metrics", "", "show figures to Prometheus at `HOST:PORT`/metrics, in plain HTTP (default: nowhere)")
	envFlag(f, "client-dir", "LLMOS_CLIENT_DIR")
	envFlag(f, "timing", "LLMOS_TIMING")
	return cmd
}

func (a *app) serverConfig(o *serverFlags) (server.Config, error) {
	cfg := server.DefaultConfig()
	var err error
	if cfg.DataDir, err = o.folder(a, "server"); err != nil {
		return cfg, err
	}
	if cfg.ClientDir, err = a.clientDir(o.clientDir); err != nil && o.bootstrap {
		return cfg, err
	}
	if cfg.Log, err = o.logger(a.errOut); err != nil {
		return cfg, err
	}
	switch o.timing {
	case "lan":
	case "fast":
		cfg.Timing = server.Fast()
	default:
		return cfg, invalid("--timing %q is neither lan nor fast", o.timing)
	}
	if o.snapshots > 0 {
		cfg.Timing.SnapshotThreshold = o.snapshots
	}
	cfg.Listen, cfg.Advertise, cfg.Name, cfg.ClusterName = o.listen, o.advertise, o.name, o.clusterName
	cfg.Bootstrap, cfg.Join, cfg.Token, cfg.Version = o.bootstrap, o.join, o.token, buildOf().Version
	cfg.Metrics = o.metrics
	return cfg, nil
}

func (a *app) runServer(ctx context.Context, cfg server.Config) error {
	s, err := server.New(ctx, cfg)
	if err != nil {
		return err
	}
	return a.serve(ctx, s, func() {
		if cfg.Bootstrap && a.errTTY {
			a.note("the cluster is up at %s; in another shell:\n  llmos status\n  llmos token create --role agent   # for a host that runs tasks\n", s.Addr())
		}
	})
}
