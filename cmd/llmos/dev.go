package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"llmos/agent"
	"llmos/agent/device"
	"llmos/proto/client"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server"
	"llmos/transport"
)

const (
	devDevices     = "4xH100-80GB" // when the machine has none
	devServer      = "127.0.0.1:7300"
	devAgent       = "127.0.0.1:7301"
	devStartTime   = 30 * time.Second
	devStopTime    = 20 * time.Second // for the tasks to end at Ctrl-C
	devPollEvery   = 50 * time.Millisecond
	devProbeTime   = 10 * time.Second
	devLogFile     = "llmos.log"
	devHeartbeat   = 200 * time.Millisecond // one server alone: nobody else to wait for
	devLeaderLease = 150 * time.Millisecond
)

// devFlags are the flags of `dev`.
type devFlags struct {
	dataDir     string
	clientDir   string
	devices     string
	listen      string
	agentListen string
	keepTasks   bool
}

const devLong = `Run a cluster of this machine alone: a server and an agent in one process, over loopback,
with mutual TLS and no questions asked. Your credentials are written, so that the other
verbs work at once in another shell. What the cluster knows is kept in its data folder.

Without a GPU the node pretends to have four, so that gangs and queues can be tried. Ctrl-C
stops the jobs and then the cluster; --keep-tasks leaves the tasks running, and the next
llmos dev finds them again.`

func (a *app) devCommand() *cobra.Command {
	o := &devFlags{}
	cmd := &cobra.Command{
		Use: "dev", Short: "Run a cluster of this machine alone", Long: devLong, Args: arguments(0, 0, "no arguments"),
		Example: "  llmos dev\n  llmos dev --devices 8xA100-40GB",
		RunE:    func(cmd *cobra.Command, _ []string) error { return a.runDev(cmd.Context(), o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.dataDir, "data-dir", "", "`FOLDER` for everything it keeps (default ~/.local/share/llmos/dev)")
	f.StringVar(&o.clientDir, "client-dir", "", "`FOLDER` to write your credentials to (default ~/.config/llmos)")
	f.StringVar(&o.devices, "devices", "", "pretend to `DEVICES`, or none (default: those that are there, else "+devDevices+")")
	f.StringVar(&o.listen, "listen", devServer, "address of the server, `HOST:PORT`")
	f.StringVar(&o.agentListen, "agent-listen", devAgent, "address of the agent, `HOST:PORT`")
	f.BoolVar(&o.keepTasks, "keep-tasks", false, "leave the tasks running when this ends")
	envFlag(f, "data-dir", "LLMOS_DEV_DIR")
	envFlag(f, "client-dir", "LLMOS_CLIENT_DIR")
	return cmd
}

// devCluster is what `dev` runs.
type devCluster struct {
	a        *app
	o        *devFlags
	dir      string
	log      *slog.Logger
	server   *server.Server
	client   *client.Client
	creds    *transport.Credentials
	pretends string // why the devices are not real; empty when they are
	export   string // what other shells must set; empty: nothing

	rootTasks bool // tasks that name no user run as root
}

func (a *app) runDev(ctx context.Context, o *devFlags) error {
	d := &devCluster{a: a, o: o}
	logFile, err := d.prepare()
	if err != nil {
		return err
	}
	defer logFile.Close()
	serverCtx, stopServer := context.WithCancel(context.Background())
	defer stopServer()
	if err := d.startServer(ctx); err != nil {
		return err
	}
	serverEnded := make(chan error, 1)
	go func() { serverEnded <- d.server.Run(serverCtx) }()
	err = d.withServer(ctx, serverEnded)
	stopServer()
	return errors.Join(err, <-serverEnded)
}

// prepare makes the data folder and opens the log, which would drown the banner.
func (d *devCluster) prepare() (io.Closer, error) {
	dir, err := d.a.absolute(d.o.dataDir)
	if err == nil && dir == "" {
		dir, err = d.a.dataHome()
		dir = filepath.Join(dir, "dev")
	}
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, invalid("the data folder cannot be made: %w", err).Hint("name another with --data-dir")
	}
	d.dir = dir
	f, err := os.OpenFile(filepath.Join(dir, devLogFile), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, invalid("the log cannot be written: %w", err)
	}
	d.log = slog.New(slog.NewTextHandler(f, nil))
	return f, nil
}

func (d *devCluster) startServer(ctx context.Context) error {
	cfg := server.DefaultConfig()
	cfg.DataDir, cfg.ClientDir = filepath.Join(d.dir, "server"), filepath.Join(d.dir, "client")
	cfg.Listen, cfg.Name, cfg.ClusterName, cfg.Bootstrap = d.o.listen, "dev", "dev", true
	cfg.Log, cfg.Version = d.log.With("process", "server"), buildOf().Version
	cfg.Timing.HeartbeatTimeout, cfg.Timing.ElectionTimeout, cfg.Timing.LeaderLease = devHeartbeat, devHeartbeat, devLeaderLease
	s, err := server.New(ctx, cfg)
	if err != nil {
		return err
	}
	d.server = s
	return nil
}

// withServer runs everything else while the server runs.
func (d *devCluster) withServer(ctx context.Context, serverEnded chan error) error {
	select {
	case <-d.server.Ready():
	case err := <-serverEnded:
		serverEnded <- nil
		return err
	case <-ctx.Done():
		return nil
	}
	_, creds, err := openClientDir(filepath.Join(d.dir, "client"))
	if err != nil {
		return err
	}
	d.creds = creds
	d.client = client.New([]string{d.server.Addr()}, func(addr string) (*grpc.ClientConn, error) {
		return transport.NewClient(addr, creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	})
	defer d.client.Close()
	g, err := d.startAgent(ctx)
	if err != nil {
		return err
	}
	agentCtx, stopAgent := context.WithCancel(context.Background())
	defer stopAgent()
	agentEnded := make(chan error, 1)
	go func() { agentEnded <- errors.Join(g.Run(agentCtx), g.Close()) }()
	if err := d.share(); err != nil {
		stopAgent()
		return errors.Join(err, <-agentEnded)
	}
	if d.awaitNode(ctx, agentEnded) && ctx.Err() == nil {
		d.banner(ctx)
	}
	select {
	case <-ctx.Done():
		d.stopJobs()
		stopAgent()
		return <-agentEnded
	case err := <-agentEnded:
		return err
	case err := <-serverEnded:
		serverEnded <- nil
		stopAgent()
		return errors.Join(err, <-agentEnded)
	}
}

func (d *devCluster) startAgent(ctx context.Context) (*agent.Agent, error) {
	cfg := agent.DefaultConfig()
	cfg.DataDir, cfg.Listen, cfg.Join = filepath.Join(d.dir, "agent"), d.o.agentListen, []string{d.server.Addr()}
	cfg.Log, cfg.Version = d.log.With("process", "agent"), buildOf().Version
	cfg.Devices = d.o.devices
	if cfg.Devices == "" && !d.hasDevices(ctx) {
		cfg.Devices, d.pretends = devDevices, "no GPU was found; --devices pretends to others"
	} else if cfg.Devices != "" {
		d.pretends = "by --devices"
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, "identity.json")); errors.Is(err, fs.ErrNotExist) {
		ctx, cancel := context.WithTimeout(ctx, devStartTime)
		defer cancel()
		resp, err := d.client.CreateJoinToken(ctx, &pb.CreateJoinTokenRequest{Role: pb.MemberRole_MEMBER_ROLE_AGENT})
		if err != nil {
			return nil, err
		}
		cfg.Token = resp.Token
	}
	d.rootTasks = cfg.RootTasks()
	return agent.New(cfg)
}

// hasDevices asks the driver once, in a child of its own.
func (d *devCluster) hasDevices(ctx context.Context) bool {
	self, err := os.Executable()
	if err != nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, devProbeTime)
	defer cancel()
	found, err := device.NVIDIA(self, d.log).Probe(ctx)
	return err == nil && len(found) > 0
}

// share writes the credentials to the client folder that other shells look at, unless it
// belongs to another cluster: then those shells are told what to set.
func (d *devCluster) share() error {
	own := filepath.Join(d.dir, "client")
	dir, err := d.a.clientDir(d.o.clientDir)
	if err != nil {
		return err
	}
	have, err := readClientFile(dir)
	cluster := d.creds.Identity().ClusterID
	if !errors.Is(err, fs.ErrNotExist) && (err != nil || !have.Dev && have.ClusterID != cluster) {
		d.export = own
		return nil
	}
	return saveClient(dir, &clientFile{ClusterID: cluster, Servers: []string{d.server.Addr()}, Dev: true}, d.creds)
}

// awaitNode waits until the node is ready, for a bounded time: the banner says what is so.
// It gives false when the agent has ended, which it leaves in ended.
func (d *devCluster) awaitNode(ctx context.Context, ended chan error) bool {
	ctx, cancel := context.WithTimeout(ctx, devStartTime)
	defer cancel()
	tick := time.NewTicker(devPollEvery)
	defer tick.Stop()
	for {
		if nodes, err := d.client.ListNodes(ctx, &pb.ListNodesRequest{}); err == nil {
			for _, n := range nodes.Nodes {
				if n.GetNode().GetState() == pb.NodeState_NODE_STATE_READY {
					return true
				}
			}
		}
		select {
		case <-tick.C:
		case err := <-ended:
			ended <- err
			return false
		case <-ctx.Done():
			return true
		}
	}
}

func (d *devCluster) banner(ctx context.Context) {
	a, t := d.a, d.a.outTint()
	a.printf("%s\n", t.paint(bold, "A cluster of this machine alone is up."))
	line := func(name, text string) { a.printf("  %s %s\n", t.paint(faint, fmt.Sprintf("%-8s", name)), text) }
	line("server", d.server.Addr())
	if nodes, err := d.client.ListNodes(ctx, &pb.ListNodesRequest{}); err == nil {
		for _, n := range nodes.Nodes {
			line("node", nodeText(n, d.pretends))
		}
	}
	line("data", d.dir+", its log in "+devLogFile)
	if d.rootTasks {
		line("warning", "tasks run as root, because this does; a job can name another user with --user")
	}
	a.printf("\nIn another shell:\n")
	if d.export != "" {
		a.printf("  export LLMOS_CLIENT_DIR=%s   %s\n", d.export, t.paint(faint, "# your client folder belongs to another cluster and is left alone"))
	}
	for _, next := range []string{"llmos run --follow -- echo hello", "llmos run -n 4 --gpus 1 --wait -- sleep 5", "llmos ps -a", "llmos nodes"} {
		a.printf("  %s\n", next)
	}
	ends := "Ctrl-C stops the jobs and the cluster."
	if d.o.keepTasks {
		ends = "Ctrl-C stops the cluster; tasks go on, and the next llmos dev finds them again."
	}
	a.printf("\n%s\n", t.paint(faint, ends))
}

func nodeText(n *pb.NodeView, pretends string) string {
	text := fmt.Sprintf("%s: %s CPUs, %s", n.GetNode().GetName(), milliText(n.GetNode().GetCpuMilli()), bytesText(n.GetNode().GetMemoryBytes()))
	total := map[string]int{}
	for _, d := range n.GetNode().GetDevices() {
		total[d.Model]++
	}
	for _, model := range sortedKeys(total) {
		text += fmt.Sprintf(", %d × %s", total[model], model)
	}
	if pretends != "" && len(total) > 0 {
		text += " (pretended: " + pretends + ")"
	}
	return text
}

// stopJobs stops every unfinished job and waits, for a bounded time, until its tasks have
// ended: without the cluster nobody could see or stop them.
func (d *devCluster) stopJobs() {
	if d.o.keepTasks {
		d.a.note("\nstopping; the tasks go on\n")
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), devStopTime)
	defer cancel()
	jobs, err := d.client.ListJobs(ctx, &pb.ListJobsRequest{})
	if err != nil {
		d.a.note("\nllmos: the jobs could not be stopped: %s\n", fault.From(err).Fault.Message)
		return
	}
	if len(jobs.Jobs) > 0 {
		d.a.note("\nstopping %s; Ctrl-C again leaves at once\n", count(len(jobs.Jobs), "job"))
	}
	for _, v := range jobs.Jobs {
		id := v.GetJob().GetId()
		if _, err := d.client.StopJob(ctx, &pb.StopJobRequest{JobId: id, Reason: "llmos dev was stopped"}); err != nil {
			d.a.note("llmos: %s could not be stopped: %s\n", id, fault.From(err).Fault.Message)
		}
	}
	for _, v := range jobs.Jobs {
		id := v.GetJob().GetId()
		if err := d.client.WatchJob(ctx, id, func(*pb.JobView) error { return nil }); err != nil {
			d.a.note("llmos: %s has not ended: %s\n", id, fault.From(err).Fault.Message)
		}
	}
}
