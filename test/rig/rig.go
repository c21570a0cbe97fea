// Package rig runs llmos clusters as real processes on this machine, for the demo, the
// benchmarks, the chaos run and the end-to-end tests. It starts and breaks processes and
// looks at what they left; it knows the command line and nothing of their insides.
package rig

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 30 * time.Second
	pollEvery    = 20 * time.Millisecond
)

// Config says what cluster to start.
type Config struct {
	Bin     string // folder with the built programs
	Dir     string // working folder: data, logs, client credentials
	Servers int
	Agents  int
	Devices string   // of each agent, as `llmos agent --devices`
	Timing  string   // `--timing` of servers and agents; empty: the default
	Extra   []string // more flags for every server
	// Host gives process i of a kind ("server" or "agent") the command to run it under and
	// its IP address. nil: no prefix and 127.0.0.1.
	Host func(kind string, i int) (prefix []string, ip string)
}

// Cluster is a running set of processes.
type Cluster struct {
	Config
	Servers []*Process
	Agents  []*Process
}

// Process is one llmos server or agent that can be killed and started again.
type Process struct {
	Name    string
	Kind    string
	Addr    string // host:port
	DataDir string
	LogFile string

	argv     []string
	firstArg []string // further arguments of the first start alone: bootstrap, token
	mu       sync.Mutex
	cmd      *exec.Cmd
	done     chan struct{}
}

// LLMOS is the path of the llmos program.
func (c Config) LLMOS() string { return filepath.Join(c.Bin, "llmos") }

// ClientDir is where the administrator's credentials lie.
func (c Config) ClientDir() string { return filepath.Join(c.Dir, "client") }

// SharedDir is the folder that every agent sees.
func (c Config) SharedDir() string { return filepath.Join(c.Dir, "shared") }

// Start brings the whole cluster up: the first server bootstraps, the others join by
// tokens, and it returns when every server votes and every agent is ready.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if err := os.MkdirAll(cfg.SharedDir(), 0o755); err != nil {
		return nil, err
	}
	c := &Cluster{Config: cfg}
	if err := c.start(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	for i := range c.Config.Servers {
		p, err := c.addServer(ctx, i)
		if err != nil {
			return err
		}
		c.Servers = append(c.Servers, p)
		if i == 0 {
			if err := c.WaitLeader(ctx); err != nil {
				return fmt.Errorf("first server: %w%s", err, p.tail())
			}
		}
	}
	for i := range c.Config.Agents {
		p, err := c.AddAgent(ctx, i)
		if err != nil {
			return err
		}
		c.Agents = append(c.Agents, p)
	}
	return c.WaitReady(ctx)
}

func (c *Cluster) addServer(ctx context.Context, i int) (*Process, error) {
	p, err := c.process("server", i)
	if err != nil {
		return nil, err
	}
	p.argv = append(p.argv, "--client-dir", c.ClientDir())
	if c.Timing != "" {
		p.argv = append(p.argv, "--timing", c.Timing)
	}
	p.argv = append(p.argv, c.Extra...)
	if i == 0 {
		p.firstArg = []string{"--bootstrap"}
		return p, p.Start()
	}
	token, err := c.Token(ctx, "server")
	if err != nil {
		return nil, err
	}
	p.firstArg = []string{"--join", c.Servers[0].Addr, "--token", token}
	return p, p.Start()
}

// AddAgent starts agent number i, which joins by a fresh token.
func (c *Cluster) AddAgent(ctx context.Context, i int) (*Process, error) {
	p, err := c.process("agent", i)
	if err != nil {
		return nil, err
	}
	token, err := c.Token(ctx, "agent")
	if err != nil {
		return nil, err
	}
	lo := 20000 + 500*i
	p.argv = append(p.argv, "--name", p.Name, "--shared-dir", c.SharedDir(), "--join", c.ServerAddrs(),
		"--port-range", fmt.Sprintf("%d-%d", lo, lo+499))
	if c.Timing != "" {
		p.argv = append(p.argv, "--timing", c.Timing)
	}
	if c.Devices != "" {
		p.argv = append(p.argv, "--devices", c.Devices)
	}
	p.firstArg = []string{"--token", token}
	return p, p.Start()
}

func (c *Cluster) process(kind string, i int) (*Process, error) {
	name := fmt.Sprintf("%s%d", kind, i+1)
	prefix, ip := []string(nil), "127.0.0.1"
	if c.Host != nil {
		prefix, ip = c.Host(kind, i)
	}
	port := 7300
	if c.Host == nil {
		var err error
		if port, err = FreePort(); err != nil {
			return nil, err
		}
	}
	addr := net.JoinHostPort(ip, fmt.Sprint(port))
	p := &Process{Name: name, Kind: kind, Addr: addr, DataDir: filepath.Join(c.Dir, name),
		LogFile: filepath.Join(c.Dir, name+".log")}
	p.argv = append(append([]string{}, prefix...), c.LLMOS(), kind, "--data-dir", p.DataDir, "--listen", addr)
	return p, nil
}

// ServerAddrs joins the servers' addresses by commas.
func (c *Cluster) ServerAddrs() string {
	addrs := make([]string, len(c.Servers))
	for i, s := range c.Servers {
		addrs[i] = s.Addr
	}
	return strings.Join(addrs, ",")
}

// Command is an llmos verb as a person of this cluster would run it.
func (c *Cluster) Command(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.LLMOS(), args...)
	cmd.Env = append(os.Environ(), "LLMOS_CLIENT_DIR="+c.ClientDir())
	return cmd
}

// Run runs a verb and returns its standard output; an error holds what it said.
func (c *Cluster) Run(ctx context.Context, args ...string) (string, error) {
	cmd := c.Command(ctx, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("llmos %s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Token makes a join token of a role, trying while there is no leader.
func (c *Cluster) Token(ctx context.Context, role string) (string, error) {
	var token string
	err := poll(ctx, func() error {
		out, err := c.Run(ctx, "token", "create", "--role", role, "--quiet")
		token = strings.TrimSpace(out)
		return err
	})
	return token, err
}

// poll calls f until it gives nil or ctx ends, and then returns f's last error.
func poll(ctx context.Context, f func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		err := f()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w (gave up: %w)", err, ctx.Err())
		case <-tick.C:
		}
	}
}

// Start runs the process; arguments of the first start are given once.
func (p *Process) Start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	argv := append(append([]string{}, p.argv...), p.firstArg...)
	if _, err := os.Stat(filepath.Join(p.DataDir, "identity.json")); err == nil {
		argv = p.argv
	}
	log, err := os.OpenFile(p.LogFile, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s: %w", p.Name, err)
	}
	done := make(chan struct{})
	p.cmd, p.done = cmd, done
	go func() { _ = cmd.Wait(); close(done) }()
	return nil
}

// Pid is the process's ID, or 0 when it does not run.
func (p *Process) Pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cmd == nil {
		return 0
	}
	select {
	case <-p.done:
		return 0
	default:
		return p.cmd.Process.Pid
	}
}

// Signal sends a signal to a running process.
func (p *Process) Signal(sig syscall.Signal) error {
	pid := p.Pid()
	if pid == 0 {
		return fmt.Errorf("%s does not run", p.Name)
	}
	return syscall.Kill(pid, sig)
}

// Kill ends the process by SIGKILL and waits until it is gone.
func (p *Process) Kill() {
	if p.Signal(syscall.SIGKILL) == nil {
		<-p.done
	}
}

// Stop asks the process to end, waits for grace, and kills it then.
func (p *Process) Stop(grace time.Duration) {
	if p.Signal(syscall.SIGTERM) != nil {
		return
	}
	select {
	case <-p.done:
	case <-time.After(grace):
		p.Kill()
	}
}

// tail is the end of the process's log, for messages.
func (p *Process) tail() string {
	b, err := os.ReadFile(p.LogFile)
	if err != nil {
		return ""
	}
	if len(b) > 2000 {
		b = b[len(b)-2000:]
	}
	return "\n--- " + p.LogFile + "\n" + string(b)
}

// Close kills every process of the cluster: agents first, with what they started.
func (c *Cluster) Close() {
	for _, a := range c.Agents {
		a.KillHost()
	}
	for _, s := range c.Servers {
		s.Kill()
	}
}
