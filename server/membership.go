package server

import (
	"context"
	"sync"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/transport/gossip"
)

const (
	statusWait     = 2 * time.Second  // for another server's status
	gossipJoinWait = 5 * time.Second  // between attempts to reach another member by gossip
	serversMax     = 64               // servers that are watched; gossip may claim any number
	leaveWait      = time.Second      // for the word of leaving to be sent
	transferWait   = 3 * time.Second  // for another server to take over
	lookAround     = 30 * time.Second // between gossip joins when others are known
)

// membership knows the other servers: where gossip says they are, and, on the leader, how
// they answer. The leader's steward acts on it.
type membership struct {
	server *Server
	gossip *gossip.Gossip

	mu         sync.Mutex
	addrs      map[string]string // server ID to address, newest gossip
	configured map[string]string // the same by Raft's configuration
	health     map[string]*watched
}

// watched is the running record behind a health.
type watched struct {
	ok      bool
	since   time.Time
	applied uint64
	asking  bool
}

// run follows gossip until ctx ends, and while this server leads it keeps Raft's
// configuration.
func (m *membership) run(ctx context.Context) {
	tick := time.NewTicker(m.server.cfg.Timing.HealthEvery)
	defer tick.Stop()
	events := m.gossip.Events()
	for {
		m.learn()
		if m.server.tenure.Load() != nil {
			m.poll(ctx)
			m.steer()
		} else {
			m.forget()
		}
		select {
		case ev, ok := <-events:
			if !ok {
				events = nil
				continue
			}
			m.note(ev)
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// seek joins gossip through the configured and the known servers: until another one is
// seen, and now and then afterwards, so that two halves of a cluster find each other.
func (m *membership) seek(ctx context.Context) {
	for {
		wait := gossipJoinWait
		if addrs := m.seeds(); len(addrs) == 0 {
			wait = lookAround
		} else if _, err := m.gossip.Join(addrs); err != nil {
			m.server.log.Debug("no other server was reached by gossip", "addrs", addrs, "err", err)
			if m.server.cfg.Timing.FastGossip {
				wait = m.server.cfg.Timing.HealthEvery
			}
		} else {
			wait = lookAround
		}
		if !pause(ctx, wait) {
			return
		}
	}
}

// seeds are the addresses at which other servers may be.
func (m *membership) seeds() []string {
	seen := map[string]bool{m.server.addr: true}
	var out []string
	add := func(addr string) {
		if !seen[addr] {
			seen[addr] = true
			out = append(out, addr)
		}
	}
	for _, addr := range m.server.cfg.Join {
		add(addr)
	}
	members, _, err := m.server.raft.Members()
	if err != nil {
		return out
	}
	for _, other := range members {
		add(other.Addr)
	}
	return out
}

// note takes over what gossip says of one server, or of all when events were dropped.
func (m *membership) note(ev gossip.Event) {
	all := []gossip.Member{ev.Member}
	if ev.Kind == gossip.Resync {
		all = m.gossip.Members()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ev.Kind == gossip.Resync {
		clear(m.addrs)
	}
	for _, g := range all {
		_, known := m.addrs[g.ID]
		switch {
		case g.Meta.Role != pb.MemberRole_MEMBER_ROLE_SERVER || g.ID == m.server.ServerID():
		case ev.Kind == gossip.Left || ev.Kind == gossip.Failed:
			delete(m.addrs, g.ID)
		case known || len(m.addrs) < serversMax:
			m.addrs[g.ID] = g.Meta.Addr
		}
	}
}

// learn takes over where Raft's configuration says the servers are.
func (m *membership) learn() {
	members, _, err := m.server.raft.Members()
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.configured)
	for _, o := range members {
		m.configured[o.ID] = o.Addr
	}
}

// Locate gives the newest address of a server by gossip, a hint that its certificate must confirm.
func (m *membership) Locate(id string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	addr, ok := m.addrs[id]
	return addr, ok
}

// Dial gives the address at which Raft should look for a server: by gossip, or else as
// Raft's own configuration says. It is called on Raft's goroutines, so it asks Raft nothing.
func (m *membership) Dial(id string) (string, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if addr, ok := m.addrs[id]; ok {
		return addr, true
	}
	addr, ok := m.configured[id]
	return addr, ok
}

// Health gives what the leader knows of a server; false when it has not asked.
func (m *membership) Health(id string) (health, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	w, ok := m.health[id]
	if !ok || w.since.IsZero() {
		return health{}, false
	}
	return health{OK: w.ok, For: time.Since(w.since), Applied: w.applied}, true
}

// forget drops what was measured in an earlier leadership.
func (m *membership) forget() {
	m.mu.Lock()
	defer m.mu.Unlock()
	clear(m.health)
}

// poll asks every member and every server that gossip names for its status, each at most
// once at a time. The connection accepts the server's own certificate alone, so an answer
// proves who is at the address.
func (m *membership) poll(ctx context.Context) {
	members, _, err := m.server.raft.Members()
	if err != nil {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	targets := map[string]string{}
	for _, o := range members {
		targets[o.ID] = o.Addr
	}
	for id, addr := range m.addrs {
		targets[id] = addr
	}
	for id := range m.health {
		if _, ok := targets[id]; !ok {
			delete(m.health, id)
		}
	}
	for id, addr := range targets {
		if id == m.server.ServerID() {
			continue
		}
		w := m.health[id]
		if w == nil {
			w = &watched{}
			m.health[id] = w
		}
		if !w.asking {
			w.asking = true
			go m.ask(ctx, id, addr, w)
		}
	}
}

func (m *membership) ask(ctx context.Context, id, addr string, w *watched) {
	ctx, cancel := context.WithTimeout(ctx, statusWait)
	defer cancel()
	var status *pb.ClusterStatus
	conn, err := m.server.conns.server(addr, id)
	if err == nil {
		status, err = pb.NewClusterServiceClient(conn).GetStatus(ctx, &pb.GetStatusRequest{Local: true})
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	w.asking = false
	if ok := err == nil; ok != w.ok || w.since.IsZero() {
		w.ok, w.since = ok, time.Now()
	}
	if err == nil {
		w.applied = status.AppliedIndex
	}
}

// steer makes the next change of Raft's configuration, if one is due.
func (m *membership) steer() {
	members, index, err := m.server.raft.Members()
	if err != nil {
		return
	}
	t := m.server.cfg.Timing
	s := sighting{Self: m.server.ServerID(), Members: members, Gossip: map[string]string{}, Health: map[string]health{},
		Last: m.server.raft.LastIndex(), Stable: t.StableAfter, Dead: t.DeadAfter}
	m.mu.Lock()
	for id, addr := range m.addrs {
		s.Gossip[id] = addr
	}
	for id, w := range m.health {
		if !w.since.IsZero() {
			s.Health[id] = health{OK: w.ok, For: time.Since(w.since), Applied: w.applied}
		}
	}
	m.mu.Unlock()
	c := decide(s)
	if c == nil {
		return
	}
	if c.Set != nil {
		m.server.log.Info("server configured", "server", c.Set.ID, "addr", c.Set.Addr, "voter", c.Set.Voter, "why", c.Why)
		err = m.server.raft.SetMember(*c.Set, index)
	} else {
		m.server.log.Warn("server removed", "server", c.Remove, "why", c.Why)
		err = m.server.raft.RemoveMember(c.Remove, index)
	}
	if err != nil {
		m.server.log.Warn("the servers' configuration was not changed; trying again", "err", err)
	}
}
