package gossip_test

import (
	"bytes"
	"io"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
	"llmos/transport/gossip"
)

const (
	cluster = "c-0123456789ab"
	server  = pb.MemberRole_MEMBER_ROLE_SERVER
	agent   = pb.MemberRole_MEMBER_ROLE_AGENT

	// patience bounds every wait; suspicion alone takes seconds on a busy machine.
	patience = 60 * time.Second
)

var key = bytes.Repeat([]byte{7}, gossip.KeyBytes)

func newCA(t *testing.T, clusterID string) *ca.CA {
	t.Helper()
	c, err := ca.New(clusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// peer is one member with its port.
type peer struct {
	*gossip.Gossip
	port *transport.Port
	addr string
	kept []gossip.Event
	stop func() // as a killed process: no word to anybody
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func configure(t *testing.T, authority *ca.CA, role pb.MemberRole, id string) (gossip.Config, func()) {
	t.Helper()
	private, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := transport.NewCSR(private)
	if err != nil {
		t.Fatal(err)
	}
	der, err := authority.Issue(csr, transport.Identity{ClusterID: authority.ClusterID(), Role: role, MemberID: id}, nil, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	creds, err := transport.NewCredentials(der, private, authority.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	port, err := transport.Listen("127.0.0.1:0", creds, quiet())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := port.Serve(); err != nil {
			t.Errorf("serve: %v", err)
		}
	}()
	cfg := gossip.Config{ID: id, Meta: gossip.Meta{Role: role, Name: "host-" + id, Addr: port.Addr().String()}, Key: key,
		ClusterID: authority.ClusterID(), Port: port, Creds: creds, Log: quiet(), Profile: gossip.Fast}
	return cfg, func() { port.Close(); <-served }
}

func start(t *testing.T, cfg gossip.Config, closePort func()) *peer {
	t.Helper()
	g, err := gossip.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	p := &peer{Gossip: g, port: cfg.Port, addr: cfg.Port.Addr().String()}
	p.stop = func() {
		once.Do(func() {
			if err := g.Close(); err != nil {
				t.Errorf("close %s: %v", cfg.ID, err)
			}
			closePort()
		})
	}
	t.Cleanup(p.stop)
	return p
}

func newPeer(t *testing.T, authority *ca.CA, role pb.MemberRole, id string) *peer {
	t.Helper()
	cfg, closePort := configure(t, authority, role, id)
	return start(t, cfg, closePort)
}

// expect gives the wanted event about the member, whether it has come or is to come.
// Events about other members have no order between them, so they are kept for later.
func (p *peer) expect(t *testing.T, kind gossip.Kind, id string) gossip.Event {
	t.Helper()
	for i, ev := range p.kept {
		if ev.Kind == kind && ev.Member.ID == id {
			p.kept = append(p.kept[:i], p.kept[i+1:]...)
			return ev
		}
	}
	deadline := time.After(patience)
	for {
		select {
		case ev, ok := <-p.Events():
			if !ok {
				t.Fatalf("the events ended before %s %s", id, kind)
			}
			if ev.Kind == kind && ev.Member.ID == id {
				return ev
			}
			p.kept = append(p.kept, ev)
		case <-deadline:
			t.Fatalf("not in %s: %s %s; came: %v", patience, id, kind, p.kept)
		}
	}
}

func join(t *testing.T, p *peer, addrs ...string) {
	t.Helper()
	if n, err := p.Join(addrs); err != nil || n == 0 {
		t.Fatalf("join: %d, %v", n, err)
	}
}

func ids(p *peer) string {
	var out []string
	for _, m := range p.Members() {
		out = append(out, m.ID)
	}
	return strings.Join(out, " ")
}

func TestMembersSeeEachOtherAndTheFailed(t *testing.T) {
	authority := newCA(t, cluster)
	a, b, c := newPeer(t, authority, server, "s-1"), newPeer(t, authority, agent, "n-1"), newPeer(t, authority, agent, "n-2")
	join(t, b, a.addr)
	join(t, c, a.addr)
	a.expect(t, gossip.Joined, "n-1")
	got := a.expect(t, gossip.Joined, "n-2").Member
	if want := (gossip.Meta{Role: agent, Name: "host-n-2", Addr: c.addr}); got.Meta != want || got.Gossip != c.addr {
		t.Errorf("the event shows %+v, want %+v at %s", got, want, c.addr)
	}
	b.expect(t, gossip.Joined, "n-2")
	c.expect(t, gossip.Joined, "n-1")
	for _, p := range []*peer{a, b, c} {
		if got := ids(p); got != "n-1 n-2 s-1" {
			t.Errorf("members are %s", got)
		}
	}
	c.stop()
	a.expect(t, gossip.Failed, "n-2")
	b.expect(t, gossip.Failed, "n-2")
	if got := ids(a); got != "n-1 s-1" {
		t.Errorf("members are %s", got)
	}
}

// TestEventsKeepTheirOrder: joined, updated, left, and joined again, as they happened.
func TestEventsKeepTheirOrder(t *testing.T) {
	authority := newCA(t, cluster)
	calm := func(role pb.MemberRole, id string) *peer { // a busy machine must not look like a failure here
		cfg, closePort := configure(t, authority, role, id)
		cfg.Profile = gossip.LAN
		return start(t, cfg, closePort)
	}
	a, b := calm(server, "s-1"), calm(agent, "n-1")
	join(t, b, a.addr)
	next := func(kind gossip.Kind) gossip.Event {
		t.Helper()
		for {
			select {
			case ev := <-a.Events():
				if ev.Kind != kind {
					t.Fatalf("the next event is %s %s, want %s", ev.Member.ID, ev.Kind, kind)
				}
				return ev
			case <-time.After(patience):
				t.Fatalf("no event %s", kind)
			}
		}
	}
	next(gossip.Joined)
	if err := b.Update(gossip.Meta{Role: agent, Name: "renamed", Addr: b.addr}, patience); err != nil {
		t.Fatal(err)
	}
	if ev := next(gossip.Updated); ev.Member.Meta.Name != "renamed" {
		t.Errorf("the update shows %+v", ev.Member)
	}
	if err := b.Leave(patience); err != nil {
		t.Fatal(err)
	}
	next(gossip.Left)
	b.stop()
	if got := ids(a); got != "s-1" {
		t.Errorf("members are %s", got)
	}
	// The same member comes back at another address.
	again := calm(agent, "n-1")
	join(t, again, a.addr)
	if ev := next(gossip.Joined); ev.Member.Meta.Addr != again.addr {
		t.Errorf("it came back as %+v", ev.Member)
	}
}

func TestWrongKeyCannotJoin(t *testing.T) {
	authority := newCA(t, cluster)
	a := newPeer(t, authority, server, "s-1")
	cfg, closePort := configure(t, authority, agent, "n-1")
	cfg.Key = bytes.Repeat([]byte{8}, gossip.KeyBytes)
	b := start(t, cfg, closePort)
	if n, err := b.Join([]string{a.addr}); err == nil {
		t.Errorf("joined %d", n)
	}
	if ids(a) != "s-1" || ids(b) != "n-1" {
		t.Errorf("members are %s and %s", ids(a), ids(b))
	}
}

// TestOtherClusterCannotJoin: another authority, and the same one with another label. The
// innermost guard, the cluster in the metadata, is tested beside the delegate.
func TestOtherClusterCannotJoin(t *testing.T) {
	a := newPeer(t, newCA(t, cluster), server, "s-1")
	other := newPeer(t, newCA(t, "c-other"), server, "s-2")
	if n, err := other.Join([]string{a.addr}); err == nil {
		t.Errorf("another authority joined %d", n)
	}
	authority := newCA(t, cluster)
	b := newPeer(t, authority, server, "s-3")
	cfg, closePort := configure(t, authority, agent, "n-1")
	cfg.ClusterID = "c-other"
	mislabelled := start(t, cfg, closePort)
	if n, err := mislabelled.Join([]string{b.addr}); err == nil {
		t.Errorf("another label joined %d", n)
	}
	if ids(b) != "s-3" {
		t.Errorf("members are %s", ids(b))
	}
}

func TestStartRefuses(t *testing.T) {
	cfg, closePort := configure(t, newCA(t, cluster), agent, "n-1")
	defer closePort()
	for name, change := range map[string]func(*gossip.Config){
		"no ID":       func(c *gossip.Config) { c.ID = "" },
		"no cluster":  func(c *gossip.Config) { c.ClusterID = "" },
		"no port":     func(c *gossip.Config) { c.Port = nil },
		"short key":   func(c *gossip.Config) { c.Key = c.Key[:16] },
		"no key":      func(c *gossip.Config) { c.Key = nil },
		"long name":   func(c *gossip.Config) { c.Meta.Name = strings.Repeat("x", gossip.MetaBytesMax) },
		"bad address": func(c *gossip.Config) { c.Advertise = "127.0.0.1:port" },
	} {
		bad := cfg
		change(&bad)
		if g, err := gossip.Start(bad); err == nil {
			g.Close()
			t.Errorf("%s: started", name)
		}
	}
	// None of them kept the port busy.
	g, err := gossip.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Join(nil); err == nil {
		t.Error("joined nobody")
	}
	if _, err := g.Join([]string{"no port"}); err == nil {
		t.Error("joined an address without a port")
	}
	g.Close()
}

// TestCloseLeavesNothing: no goroutine outlives Close, and the port can gossip again.
func TestCloseLeavesNothing(t *testing.T) {
	authority := newCA(t, cluster)
	a := newPeer(t, authority, server, "s-1")
	cfg, closePort := configure(t, authority, agent, "n-1")
	defer closePort()
	for range 3 {
		g, err := gossip.Start(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.Join([]string{a.addr}); err != nil {
			t.Fatal(err)
		}
		if err := g.Leave(patience); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := g.Close(); err != nil {
				t.Fatal(err)
			}
		}
		for range g.Events() {
		}
		if err := g.Leave(time.Second); err != nil {
			t.Errorf("leave after close: %v", err)
		}
		if err := g.Update(cfg.Meta, time.Second); err == nil {
			t.Error("updated after close")
		}
	}
	a.stop()
	deadline := time.After(patience)
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		stacks := make([]byte, 1<<20)
		text := string(stacks[:runtime.Stack(stacks, true)])
		if !strings.Contains(text, "hashicorp/memberlist.") && !strings.Contains(text, "gossip.(*") {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("goroutines are left:\n%s", text)
		case <-tick.C:
		}
	}
}
