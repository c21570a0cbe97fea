package api

import (
	"context"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc/peer"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Joining needs no certificate, so anybody who reaches the port can ask. These bounds
// keep guessing hopeless and the log quiet, and let a room of hosts join in seconds.
const (
	joinsPerSecond     = 100.0 // of one server, from everywhere
	joinsBurst         = 200.0
	addrJoinsPerSecond = 10.0 // of one server, from one address
	addrJoinsBurst     = 50.0
	maxJoinAddrs       = 4096 // addresses remembered
)

// limiter counts joins against the bounds above.
type limiter struct {
	now   func() time.Time
	mu    sync.Mutex
	all   bucket
	addrs map[string]bucket
}

// bucket is a token bucket: what was left at the time it was last used.
type bucket struct {
	left float64
	at   time.Time
}

// take spends one token when there is one. The zero bucket is full.
func (k bucket) take(now time.Time, rate, burst float64) (bucket, bool) {
	left := burst
	if !k.at.IsZero() {
		left = min(burst, k.left+rate*max(0, now.Sub(k.at).Seconds()))
	}
	if left < 1 {
		return bucket{left: left, at: now}, false
	}
	return bucket{left: left - 1, at: now}, true
}

func newLimiter(now func() time.Time) *limiter {
	return &limiter{now: now, addrs: make(map[string]bucket)}
}

func (l *limiter) admit(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, host := l.now(), remoteHost(ctx)
	if len(l.addrs) >= maxJoinAddrs {
		l.forget(now)
	}
	mine, ok := l.addrs[host].take(now, addrJoinsPerSecond, addrJoinsBurst)
	if ok || len(l.addrs) < maxJoinAddrs {
		l.addrs[host] = mine
	}
	if ok {
		l.all, ok = l.all.take(now, joinsPerSecond, joinsBurst)
	}
	if !ok {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "too many attempts to join").Hint("wait a few seconds and try again")
	}
	return nil
}

// forget drops the addresses whose buckets have filled up again; when an attacker holds
// more than that many busy at once, all start afresh and the bound for all remains.
func (l *limiter) forget(now time.Time) {
	for host, k := range l.addrs {
		if k.left+addrJoinsPerSecond*now.Sub(k.at).Seconds() >= addrJoinsBurst {
			delete(l.addrs, host)
		}
	}
	if len(l.addrs) >= maxJoinAddrs {
		clear(l.addrs)
	}
}

func remoteHost(ctx context.Context) string {
	p, ok := peer.FromContext(ctx)
	if !ok || p.Addr == nil {
		return ""
	}
	host, _, err := net.SplitHostPort(p.Addr.String())
	if err != nil {
		return p.Addr.String()
	}
	return host
}
