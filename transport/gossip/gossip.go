// Package gossip spreads who is a member and who does not answer, by memberlist over the
// process's transport.Port: packets on its UDP socket, exchanges of state over mutual TLS.
// Everything is encrypted with the cluster's gossip key and labelled with its ID.
//
// What it says is a hint. It never decides that a node is lost or that a device may be
// given away; the servers' own sessions do. It carries no jobs and no data, and it does
// not choose or distribute the key. Servers and agents call it.
package gossip

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sort"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	// MetaBytesMax bounds a member's encoded Meta; the protocol sets it.
	MetaBytesMax = memberlist.MetaMaxSize

	// KeyBytes is the length of a gossip key (AES-256).
	KeyBytes = 32

	deadReclaimTime  = 30 * time.Second // after which a failed member's ID may come back at another address
	packetBytesMax   = 1400             // of one UDP packet sent
	handoffQueueMax  = 1024             // messages that wait for processing
	delegateProtocol = 1                // version of Meta
)

// Meta is what a member says of itself.
type Meta struct {
	Role pb.MemberRole
	Name string
	Addr string // host:port that it serves on
}

// wireMeta is Meta as it travels: JSON with short names. The cluster is in it so that a
// merge with another cluster can be refused.
type wireMeta struct {
	Cluster string        `json:"c"`
	Role    pb.MemberRole `json:"r"`
	Name    string        `json:"n,omitempty"`
	Addr    string        `json:"a,omitempty"`
	Leaving bool          `json:"l,omitempty"` // it is about to leave: its end is no failure
}

// Member is one live member as gossip sees it.
type Member struct {
	ID     string
	Meta   Meta
	Gossip string // IP:port that its packets come from
}

// Profile says how fast trouble is noticed and what that costs.
type Profile int

// The profiles.
const (
	LAN  Profile = iota // one probe a second; a dead member is noticed within about ten seconds
	Fast                // five probes a second; for tests and demonstrations on one host
)

// Config says who this member is and how it gossips. All fields but Advertise and Profile
// are required.
type Config struct {
	ID        string // member ID, unique in the cluster
	Meta      Meta
	Key       []byte // KeyBytes long
	ClusterID string
	Port      *transport.Port
	Advertise string // host or host:port that others reach this port at; empty: the port's own address
	Creds     *transport.Credentials
	Log       *slog.Logger
	Profile   Profile
}

// Gossip is this process's membership. It is safe for concurrent use.
type Gossip struct {
	id      string
	cluster string
	list    *memberlist.Memberlist
	wire    *wire
	events  *events

	ending sync.Mutex // held by Leave and Close, which memberlist wants one after the other

	mu     sync.Mutex // guards what follows
	meta   wireMeta
	closed bool
	roster map[string]Member // live members by ID, this one among them
}

// Start begins to gossip, alone until Join or until another member joins.
func Start(cfg Config) (*Gossip, error) {
	if err := cfg.validate(); err != nil {
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g := &Gossip{id: cfg.ID, cluster: cfg.ClusterID, events: newEvents(), roster: map[string]Member{},
		meta: wireMeta{Cluster: cfg.ClusterID, Role: cfg.Meta.Role, Name: cfg.Meta.Name, Addr: cfg.Meta.Addr}}
	if _, err := encodeMeta(g.meta); err != nil {
		g.events.close()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.wire = newWire(cfg.Port, cfg.Creds, cfg.Advertise, cfg.Log)
	list, err := memberlist.Create(cfg.memberlist(g))
	if err != nil {
		_ = g.wire.Shutdown()
		g.events.close()
		return nil, fmt.Errorf("start gossip: %w", err)
	}
	g.list = list
	return g, nil
}

func (c Config) validate() error {
	switch {
	case c.ID == "" || c.ClusterID == "":
		return errors.New("the member ID or the cluster ID is empty")
	case c.Port == nil || c.Creds == nil || c.Log == nil:
		return errors.New("a port, credentials and a log are needed")
	case len(c.Key) != KeyBytes:
		return fmt.Errorf("the gossip key has %d bytes, not %d", len(c.Key), KeyBytes)
	}
	return nil
}

func (c Config) memberlist(g *Gossip) *memberlist.Config {
	m := memberlist.DefaultLANConfig()
	if c.Profile == Fast {
		m.ProbeInterval = 200 * time.Millisecond
		m.ProbeTimeout = 150 * time.Millisecond
		m.GossipInterval = 50 * time.Millisecond
		m.PushPullInterval = 2 * time.Second
		m.SuspicionMult = 3
		m.TCPTimeout = 2 * time.Second
		m.GossipToTheDeadTime = 5 * time.Second
	}
	m.Name = c.ID
	m.Label = c.ClusterID
	m.SecretKey = c.Key
	m.Transport = g.wire
	m.BindPort = c.Port.Addr().Port // the default for addresses without a port
	m.AdvertiseAddr, m.AdvertisePort = "", 0
	m.EnableCompression = false // messages are small, and a received bomb costs more than it saves
	m.DeadNodeReclaimTime = deadReclaimTime
	m.UDPBufferSize = packetBytesMax
	m.HandoffQueueDepth = handoffQueueMax
	m.DelegateProtocolVersion, m.DelegateProtocolMin, m.DelegateProtocolMax = delegateProtocol, delegateProtocol, delegateProtocol
	m.Delegate, m.Events, m.Merge, m.Alive = (*delegate)(g), (*delegate)(g), (*delegate)(g), (*delegate)(g)
	m.Conflict = (*delegate)(g)
	m.Logger = newLogger(c.Log)
	return m
}

// Join contacts members at the addresses (host:port) and gives how many answered; the
// error is nil when any did.
func (g *Gossip) Join(addrs []string) (int, error) {
	if len(addrs) == 0 {
		return 0, errors.New("join gossip: no address is given")
	}
	// Names are looked up here: memberlist would first ask the name server over TCP.
	var ips []string
	var errs []error
	for _, addr := range addrs {
		found, err := lookup(addr)
		ips, errs = append(ips, found...), append(errs, err)
	}
	n, err := g.list.Join(ips)
	if n > 0 {
		return n, nil
	}
	return 0, fmt.Errorf("join gossip: %w", errors.Join(append(errs, err)...))
}

// Members gives the live members in order of ID, this one among them. They are our own
// copies: memberlist goes on writing to the nodes that it hands out.
func (g *Gossip) Members() []Member {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := make([]Member, 0, len(g.roster))
	for _, m := range g.roster {
		out = append(out, m)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].ID < out[j].ID })
	return out
}

// Events gives the changes of other members, in order. The channel is closed by Close.
// A reader that falls behind finds one Resync in place of what it missed.
func (g *Gossip) Events() <-chan Event { return g.events.out }

// Update changes what this member says of itself and waits, at most timeout, until it has
// been sent to others.
func (g *Gossip) Update(meta Meta, timeout time.Duration) error {
	next := wireMeta{Cluster: g.cluster, Role: meta.Role, Name: meta.Name, Addr: meta.Addr}
	if _, err := encodeMeta(next); err != nil {
		return fmt.Errorf("update gossip: %w", err)
	}
	return g.announce(next, timeout)
}

func (g *Gossip) announce(next wireMeta, timeout time.Duration) error {
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return net.ErrClosed
	}
	g.meta = next
	g.mu.Unlock()
	if err := g.list.UpdateNode(timeout); err != nil {
		return fmt.Errorf("update gossip: %w", err)
	}
	return nil
}

// Leave tells the others that this member goes, so that they need not suspect it, and
// waits at most timeout for the word to be sent. Close follows.
func (g *Gossip) Leave(timeout time.Duration) error {
	g.ending.Lock()
	defer g.ending.Unlock()
	g.mu.Lock()
	next, closed := g.meta, g.closed
	g.mu.Unlock()
	if closed {
		return nil
	}
	next.Leaving = true
	// The protocol's own word for leaving reaches our delegate as a failure; the mark in
	// Meta, sent first, tells them apart. Without it a Left shows as a Failed, no more.
	first := g.announce(next, timeout/2)
	if err := g.list.Leave(timeout / 2); err != nil {
		return fmt.Errorf("leave gossip: %w", errors.Join(first, err))
	}
	return nil
}

// Close ends gossip without a word, after a Leave in progress; the port stays open. It is
// safe to call again.
func (g *Gossip) Close() error {
	g.ending.Lock()
	defer g.ending.Unlock()
	g.mu.Lock()
	closed := g.closed
	g.closed = true
	g.mu.Unlock()
	if closed {
		return nil
	}
	err := g.list.Shutdown()
	g.events.close()
	return err
}

func encodeMeta(m wireMeta) ([]byte, error) {
	m.Leaving = true // its longest form
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode gossip metadata: %w", err)
	}
	if len(b) > MetaBytesMax {
		return nil, fmt.Errorf("a name of %d bytes and an address of %d do not fit into %d", len(m.Name), len(m.Addr), MetaBytesMax)
	}
	return b, nil
}

func decodeMeta(b []byte) (wireMeta, error) {
	var m wireMeta
	if err := json.Unmarshal(b, &m); err != nil {
		return wireMeta{}, fmt.Errorf("decode gossip metadata: %w", err)
	}
	return m, nil
}

func memberOf(n *memberlist.Node) Member {
	m, _ := decodeMeta(n.Meta) // admission has decoded it once; see NotifyAlive
	return Member{ID: n.Name, Gossip: n.Address(), Meta: Meta{Role: m.Role, Name: m.Name, Addr: m.Addr}}
}
