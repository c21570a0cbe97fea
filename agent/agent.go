// Package agent is the wiring of one llmos agent: its data directory and how it joins, the
// session with the leader, the journal, the supervisor of the node's tasks, their logs,
// the vault of their checkpoints, the devices, and the port they share. What to do is decided by
// agent/reconcile, how tasks run by agent/exec, what the node has by agent/device, what a checkpoint
// is by agent/checkpoint.
//
// A task with a part of a device is held to the memory it was granted by the best means
// there is. A MIG slice is walled off by the hardware and needs nothing. Where a control
// daemon of MPS runs, the task's environment carries MPS's own limits. And always the agent
// looks every 2 s at what each process holds of each device and ends the task that is beyond
// its grant in two looks in a row (agent/fraction), which takes 2 to 4 s; a job that wants
// none of its neighbours to fail for so long asks for slices.
//
// It places nothing and keeps nothing that matters outside its data directory. Losing the
// servers stops no task, and neither does the end of the agent: the next one adopts them.
// cmd/llmos and the cluster tests call New, Run and Close.
package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"llmos/agent/device"
	"llmos/agent/device/sysfs"
	"llmos/agent/exec"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
	"llmos/transport/gossip"
)

// Agent is one agent. Make it with New; Run it once; Close it always.
type Agent struct {
	cfg   Config
	home  *home
	ready chan struct{}

	mu   sync.Mutex
	addr string
}

// New checks the configuration and locks and reads the data directory, which it makes
// when absent. It neither joins nor listens: Run does. Errors are faults.
func New(cfg Config) (*Agent, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Self == "" {
		self, err := os.Executable()
		if err != nil {
			return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "find this program's own file: %w", err)
		}
		cfg.Self = self
	}
	h, err := openHome(cfg)
	if err != nil {
		return nil, err
	}
	return &Agent{cfg: cfg, home: h, ready: make(chan struct{})}, nil
}

// Ready is closed once Run has joined, listens and looks after its tasks; it does not wait
// for a session.
func (a *Agent) Ready() <-chan struct{} { return a.ready }

// ID is the node's ID; empty before it has joined.
func (a *Agent) ID() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.home.id.MemberID
}

// Addr is host:port that servers reach this agent at; empty before Ready.
func (a *Agent) Addr() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.addr
}

// Close unlocks the data directory. It is called after Run has returned, or instead of it.
func (a *Agent) Close() error { return a.home.close() }

// Run joins the cluster at the first start, then serves until ctx ends. Tasks that run
// when it returns go on. The error is nil when ctx ended it.
func (a *Agent) Run(ctx context.Context) error {
	if !a.home.joined {
		if err := a.join(ctx); err != nil {
			return err
		}
	}
	port, err := transport.Listen(a.cfg.Listen, a.home.creds, a.cfg.Log)
	if err != nil {
		return err
	}
	defer port.Close()
	addr, err := a.cfg.advertised(port.Addr().Port)
	if err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "find the address to advertise: %w", err).At("advertise", 0)
	}
	j, err := openJournal(filepath.Join(a.home.dir, journalFolder))
	if err != nil {
		return err
	}
	defer j.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	p, err := a.assemble(ctx, port, addr, j)
	if err != nil {
		return err
	}
	// Closed in reverse: the loops end and are joined before what they use.
	defer p.close()
	a.mu.Lock()
	a.addr = addr
	a.mu.Unlock()
	close(a.ready)
	a.cfg.Log.Info("agent ready", "node", a.ID(), "name", a.cfg.name(), "addr", addr, "cluster", a.home.id.ClusterID)
	if a.cfg.RootTasks() {
		a.cfg.Log.Warn("tasks that name no user run as root on this node; give another user with --user")
	}
	return p.run(ctx, cancel)
}

func (a *Agent) join(ctx context.Context) error {
	joining := *a.home
	if err := joining.join(ctx, a.cfg); err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	*a.home = joining
	return nil
}

// parts are what a running agent consists of.
type parts struct {
	cfg        Config
	home       *home
	port       *transport.Port
	driver     *exec.Driver
	supervisor *supervisor
	vault      *vault
	sessions   *sessions
	node       *nodeBox
	keeper     *keeper
	changes    <-chan device.Inventory
	gossip     *gossip.Gossip // nil: off
	server     *grpc.Server
}

// assemble builds the parts without starting a loop, but for the devices' watch.
func (a *Agent) assemble(ctx context.Context, port *transport.Port, addr string, j *journal) (*parts, error) {
	cfg, id := a.cfg, a.home.id.MemberID
	probers, err := cfg.probers(id)
	if err != nil {
		return nil, err
	}
	first, changes, err := device.Watch(ctx, id, probers, cfg.inventoryEvery(), cfg.Log)
	if err != nil {
		return nil, err
	}
	k := newKeeper(cfg, a.home, first, probers)
	n := describe(cfg, id, addr, first)
	k.write(n)
	node := newNodeBox(n)
	k.node = node
	s := site{nodeID: id, nodeName: cfg.name(), tasks: filepath.Join(a.home.dir, tasksFolder), sharedDir: cfg.SharedDir, taskUser: cfg.TaskUser,
		self: cfg.Self, mps: mpsDir, deviceMemory: node.deviceMemory, device: node.device, hasVendor: node.hasVendor, allowed: cfg.AllowDevices, engine: cfg.Engine}
	if !cfg.NoLandlock {
		s.hidden = a.home.dir
	}
	driver := exec.NewDriver(exec.DriverConfig{Self: cfg.Self, Args: []string{"shim"}, NodeID: id, Warm: warmShims, Log: cfg.Log, Engine: cfg.Engine,
		ErrLog: filepath.Join(a.home.dir, shimLogFile)})
	driver.RemoveStale()
	box := newOutbox()
	kept, err := newVault(filepath.Join(a.home.dir, checkpointsFolder), id, box, carry(a.home.creds), cfg.Log)
	if err != nil {
		driver.Close()
		return nil, err
	}
	box.stored = kept.acknowledged
	sup := newSupervisor(s, driver, j, box, cfg.Log)
	sup.runner.vault = kept
	sup.look = func(ctx context.Context) (device.Use, error) { return device.Look(ctx, probers) }
	sup.keeper, sup.overrun = k, cfg.Overrun
	k.post, k.say = sup.post, box.putNode
	p := &parts{cfg: cfg, home: a.home, port: port, driver: driver, supervisor: sup, vault: kept, node: node, changes: changes, keeper: k}
	book := &addressBook{join: cfg.Join, gossip: p.gossiped, log: cfg.Log,
		save: func(addrs []string) error { return a.home.writeJSON(serversFile, addrs) }}
	if _, err := readJSON(filepath.Join(a.home.dir, serversFile), &book.saved); err != nil {
		cfg.Log.Warn("the servers' addresses could not be read; going on with those of --join", "error", err)
	}
	p.sessions = &sessions{clusterID: a.home.id.ClusterID, dial: p.dial, book: book, supervisor: sup, vault: kept, outbox: box, node: p.node,
		silence: silenceMin, log: cfg.Log}
	p.server = grpc.NewServer(transport.ServerOptions()...)
	service := newAgentService(s, sup.visits, kept)
	service.keeper, service.reserve = k, sup.reserve
	pb.RegisterAgentServiceServer(p.server, service)
	if cfg.Gossip {
		p.gossip, err = gossip.Start(gossip.Config{ID: id, Key: a.home.gossipKey, ClusterID: a.home.id.ClusterID, Port: port,
			Meta:      gossip.Meta{Role: pb.MemberRole_MEMBER_ROLE_AGENT, Name: cfg.name(), Addr: addr},
			Advertise: cfg.Advertise, Creds: a.home.creds, Log: cfg.Log, Profile: cfg.gossipProfile()})
		if err != nil {
			driver.Close()
			return nil, err
		}
	}
	return p, nil
}

func (c Config) gossipProfile() gossip.Profile {
	if c.FastGossip {
		return gossip.Fast
	}
	return gossip.LAN
}

// inventoryEvery is the time between two looks for devices.
func (c Config) inventoryEvery() time.Duration {
	if c.FastGossip {
		return inventoryFast
	}
	return inventoryEvery
}

// probers gives what looks for devices.
func (c Config) probers(nodeID string) ([]device.Prober, error) {
	switch c.Devices {
	case "":
		return []device.Prober{device.NVIDIA(c.Self, c.Log), sysfs.NewAMD("/"), sysfs.NewIntel("/"), sysfs.NewTPU("/")}, nil
	case "none":
		return nil, nil
	}
	p, err := device.Scripted(c.Devices, nodeID)
	if err != nil {
		return nil, err
	}
	return []device.Prober{p}, nil
}

func (p *parts) dial(addr string) (*grpc.ClientConn, error) {
	return transport.NewClient(addr, p.home.creds, pb.MemberRole_MEMBER_ROLE_SERVER)
}

// gossiped gives the addresses of the servers that gossip sees.
func (p *parts) gossiped() []string {
	if p.gossip == nil {
		return nil
	}
	var addrs []string
	for _, m := range p.gossip.Members() {
		if m.Meta.Role == pb.MemberRole_MEMBER_ROLE_SERVER {
			addrs = append(addrs, m.Meta.Addr)
		}
	}
	return addrs
}

// run runs the loops until ctx ends or the port fails, and joins them: first those that
// use the port, so that gossip can say goodbye, then the port's own.
func (p *parts) run(ctx context.Context, cancel context.CancelFunc) error {
	var work, serving sync.WaitGroup
	failed := make(chan error, 2)
	serve := func(what string, f func() error) {
		serving.Go(func() {
			defer cancel() // one without the other serves nobody
			if err := f(); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("%s: %w", what, err)
			}
		})
	}
	requests := p.port.Listener(transport.ProtoGRPC)
	serve("serve the port", p.port.Serve)
	serve("serve requests", func() error { return p.server.Serve(requests) })
	work.Go(func() { p.supervisor.run(ctx) })
	work.Go(func() { p.sessions.run(ctx) })
	work.Go(func() { p.vault.run(ctx) })
	work.Go(func() { p.watchDevices(ctx) })
	work.Go(func() { p.keeper.run(ctx) })
	work.Go(func() { transport.KeepFresh(ctx, p.home.creds, p.renew, p.saveCredentials, p.cfg.Log) })
	if p.gossip != nil {
		work.Go(func() { p.keepGossiping(ctx) })
	}
	<-ctx.Done()
	work.Wait()
	p.stopServer()
	_ = p.port.Close()
	serving.Wait()
	close(failed)
	return errors.Join(collect(failed)...)
}

func collect(errs <-chan error) (out []error) {
	for err := range errs {
		out = append(out, err)
	}
	return out
}

// stopServer lets calls in progress end for a while.
func (p *parts) stopServer() {
	done := make(chan struct{})
	go func() { p.server.GracefulStop(); close(done) }()
	timer := time.NewTimer(stopTimeout)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
		p.server.Stop()
		<-done
	}
}

// close ends what assemble made.
func (p *parts) close() {
	if p.gossip != nil {
		_ = p.gossip.Close()
	}
	p.driver.Close()
}
