package agent

import (
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
)

const (
	addressesMax = 32 // servers kept on disk
	hopsMax      = 4  // leader hints followed in a row
)

// addressBook knows where servers may be: the leader named last, those of the last
// welcome (kept on disk), those the agent was started with, those gossip sees. Safe for
// concurrent use.
type addressBook struct {
	join   []string
	gossip func() []string // nil: none
	save   func([]string) error
	log    *slog.Logger

	mu     sync.Mutex
	leader string
	saved  []string
}

// candidates gives every known address once: the leader's first, the others in random
// order, so that many agents do not all ask the same server.
func (b *addressBook) candidates() []string {
	var gossiped []string
	if b.gossip != nil {
		gossiped = b.gossip()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var rest []string
	for _, list := range [][]string{b.saved, b.join, gossiped} {
		for _, addr := range list {
			if addr != "" && addr != b.leader && !slices.Contains(rest, addr) {
				rest = append(rest, addr)
			}
		}
	}
	rand.Shuffle(len(rest), func(i, k int) { rest[i], rest[k] = rest[k], rest[i] })
	if b.leader != "" {
		rest = append([]string{b.leader}, rest...)
	}
	return rest
}

// setLeader remembers where the leader was seen; empty: it is gone from there.
func (b *addressBook) setLeader(addr string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.leader = addr
}

// learn keeps the servers that a welcome names.
func (b *addressBook) learn(addrs []string) {
	if len(addrs) == 0 {
		return
	}
	addrs = slices.Clone(addrs[:min(len(addrs), addressesMax)])
	slices.Sort(addrs)
	b.mu.Lock()
	same := slices.Equal(addrs, b.saved)
	b.saved = addrs
	b.mu.Unlock()
	if same {
		return
	}
	if err := b.save(addrs); err != nil {
		b.log.Warn("the servers' addresses could not be kept", "error", err)
	}
}
