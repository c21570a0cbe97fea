// Package server is the wiring of one llmos server: its data directory and how it is made
// or joined, Raft with its stores and transport, proposing, reading, leading, agents'
// sessions, the membership of servers, and the port they all share. The thinking is done
// elsewhere: fsm decides what a command does, server/controller what a leader does next,
// server/api what a caller may ask; this package moves their inputs and outputs.
//
// It does not schedule, does not run tasks, and holds no state that matters outside Raft
// and the data directory. cmd/llmos and the cluster tests call New, Run and Close.
package server

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// DefaultListen is where a server listens when nobody says otherwise.
const DefaultListen = ":7300"

// Config says how one server runs. DefaultConfig gives the defaults; DataDir has none.
type Config struct {
	// DataDir holds everything the server keeps: identity, keys, certificates, Raft. It is
	// made when absent. One server, or one agent, uses a directory at a time.
	DataDir string
	// Listen is host:port of the one port (TCP and UDP); an empty host is every interface,
	// port 0 picks a free one. Default ":7300".
	Listen string
	// Advertise is host:port, or a host alone, that others reach this server at. Default:
	// Listen's host, or this machine's first address that is not loopback; the bound port.
	Advertise string
	// Name is what people call this server. Default: the host name.
	Name string
	// ClusterName is what people call the cluster; used at bootstrap alone. Default "llmos".
	ClusterName string
	// Bootstrap makes a new cluster in an empty DataDir. On a directory that holds a
	// cluster already it changes nothing: the server starts.
	Bootstrap bool
	// Join lists servers (host:port) to join through. With Token in an empty DataDir they
	// admit this server; later they are further addresses to look for the others at.
	Join []string
	// Token is the join token; used in an empty DataDir alone.
	Token string
	// ClientDir is where Bootstrap leaves the administrator's credentials (client.json and
	// tls/). Empty: nowhere.
	ClientDir string
	// Metrics is host:port at which Prometheus finds /metrics, in plain HTTP and without a
	// certificate: it shows the names of jobs, queues and nodes. Default: nowhere.
	Metrics string
	// Timing is one of LAN or Fast, or a variation. Default LAN.
	Timing Timing
	// Version is the program's version, shown in the status.
	Version string
	// Network is what the server reaches the others over; tests cut servers apart with it.
	// Default nil: the host's own.
	Network transport.Network
	// Log receives everything worth telling. Default: discarded.
	Log *slog.Logger
}

// Timing holds every duration and count that trades speed of reaction against load and
// false alarms.
type Timing struct {
	// HeartbeatTimeout is how long a follower hears nothing before it stands for election;
	// heartbeats come ten times as often. They queue behind the disk here (see wire), so it
	// must be longer than an fsync ever takes.
	HeartbeatTimeout time.Duration
	// ElectionTimeout is how long a candidate waits for votes; at least HeartbeatTimeout.
	ElectionTimeout time.Duration
	// LeaderLease is how long a leader goes on without a quorum; at most HeartbeatTimeout.
	LeaderLease time.Duration
	// CommitTimeout is how soon followers learn a commit when nothing else is sent.
	CommitTimeout time.Duration
	// SnapshotThreshold is how many entries behind the last snapshot make a new one.
	SnapshotThreshold uint64
	// SnapshotEvery is how often that is looked at; up to twice as long by chance.
	SnapshotEvery time.Duration
	// TrailingLogs is how many entries stay behind a snapshot for slow followers.
	TrailingLogs uint64
	// AgentHeartbeat is how often an agent lets itself be heard.
	AgentHeartbeat time.Duration
	// SilentAfter is how long an agent says nothing before its node is silent and gets no
	// new work. Its tasks run on; see a job's lost_after.
	SilentAfter time.Duration
	// HealthEvery is how often the leader asks the other servers for their status.
	HealthEvery time.Duration
	// StableAfter is how long a new server must be healthy before it becomes a voter.
	StableAfter time.Duration
	// DeadAfter is how long a voter must have been unreachable before a replacement may
	// take its place. It is never removed merely for its silence.
	DeadAfter time.Duration
	// FastGossip uses the gossip timing of one host's tests.
	FastGossip bool
}

// LAN suits servers on one site: a lost leader is replaced within about two seconds.
func LAN() Timing {
	return Timing{
		HeartbeatTimeout: 700 * time.Millisecond, ElectionTimeout: 700 * time.Millisecond,
		LeaderLease: 500 * time.Millisecond, CommitTimeout: 50 * time.Millisecond,
		SnapshotThreshold: 8192, SnapshotEvery: 60 * time.Second, TrailingLogs: 10240,
		AgentHeartbeat: 2 * time.Second, SilentAfter: 10 * time.Second,
		HealthEvery: time.Second, StableAfter: 10 * time.Second, DeadAfter: 10 * time.Minute,
	}
}

// Fast suits tests over loopback.
func Fast() Timing {
	t := LAN()
	t.HeartbeatTimeout, t.ElectionTimeout = 300*time.Millisecond, 300*time.Millisecond
	t.LeaderLease, t.CommitTimeout = 250*time.Millisecond, 10*time.Millisecond
	t.SnapshotThreshold, t.SnapshotEvery, t.TrailingLogs = 512, 5*time.Second, 256
	t.AgentHeartbeat, t.SilentAfter = 200*time.Millisecond, time.Second
	t.HealthEvery, t.StableAfter, t.DeadAfter = 100*time.Millisecond, 300*time.Millisecond, 5*time.Second
	t.FastGossip = true
	return t
}

// DefaultConfig gives a configuration that lacks only DataDir.
func DefaultConfig() Config {
	return Config{Listen: DefaultListen, ClusterName: "llmos", Timing: LAN(), Log: slog.New(slog.DiscardHandler)}
}

// Validate checks the fields and their relations; what is wrong is a fault that names the field.
func (c Config) Validate() error {
	bad := func(field, format string, args ...any) error {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...).At(field, 0)
	}
	if c.DataDir == "" {
		return bad("data-dir", "no data directory is given")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return bad("listen", "%q is not host:port", c.Listen)
	}
	if c.Log == nil {
		return bad("log", "no logger is given")
	}
	if c.Bootstrap && c.Token != "" {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "a server either bootstraps a cluster or joins one").
			Hint("give --bootstrap to the first server alone, and a token to the others")
	}
	for _, addr := range c.Join {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return bad("join", "%q is not host:port", addr)
		}
	}
	return c.Timing.validate()
}

func (t Timing) validate() error {
	for _, d := range []struct {
		name  string
		value time.Duration
	}{
		{"heartbeat timeout", t.HeartbeatTimeout}, {"election timeout", t.ElectionTimeout}, {"leader lease", t.LeaderLease},
		{"commit timeout", t.CommitTimeout}, {"snapshot interval", t.SnapshotEvery}, {"agent heartbeat", t.AgentHeartbeat},
		{"silent-after", t.SilentAfter}, {"health interval", t.HealthEvery}, {"stable-after", t.StableAfter}, {"dead-after", t.DeadAfter},
	} {
		if d.value <= 0 {
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the %s of %s is not positive", d.name, d.value).At("timing", 0)
		}
	}
	for _, rule := range []struct {
		ok   bool
		text string
	}{
		{t.ElectionTimeout >= t.HeartbeatTimeout, "the election timeout is shorter than the heartbeat timeout"},
		{t.LeaderLease <= t.HeartbeatTimeout, "the leader lease is longer than the heartbeat timeout"},
		{t.SilentAfter >= 2*t.AgentHeartbeat, "silent-after is less than two agent heartbeats"},
		{t.SnapshotThreshold > 0, "the snapshot threshold is 0"},
		{t.TrailingLogs > 0, "no trailing log entries are kept"},
	} {
		if !rule.ok {
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s", rule.text).At("timing", 0)
		}
	}
	return nil
}

// advertised gives host:port that others reach a server at which is bound to port.
func (c Config) advertised(port int) (string, error) {
	return transport.Advertised(c.Advertise, c.Listen, port)
}

// hosts gives the names and addresses for this server's certificate.
func (c Config) hosts() []string {
	out := []string{"localhost", "127.0.0.1", "::1"}
	seen := map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "": true}
	adv, err := c.advertised(0)
	if err != nil {
		return out
	}
	host, _, _ := net.SplitHostPort(adv)
	name, _ := os.Hostname()
	for _, h := range []string{host, name} {
		if !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	return out
}

// displayName gives the name people call this server by.
func (c Config) displayName() string {
	if c.Name != "" {
		return c.Name
	}
	if h, err := os.Hostname(); err == nil {
		return h
	}
	return fmt.Sprintf("server at %s", c.Listen)
}
