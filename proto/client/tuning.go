package client

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	mathrand "math/rand/v2"
	"time"
)

const (
	connectLimit  = 1500 * time.Millisecond // to have a connection to one server
	attemptLimit  = 6 * time.Second         // of one try of a unary call; longer than a server waits for a leader
	backoffFirst  = 25 * time.Millisecond   // after every server has been tried once without success
	backoffMost   = 1 * time.Second
	hintsInARow   = 3   // leader addresses followed before the next server's turn
	maxServers    = 64  // addresses remembered, given and learned
	perRankCursor = 64  // ranks whose logs are resumed one stream each
	requestIDLen  = 16  // random bytes
	jitterFloor   = 0.5 // of a backoff that is always waited
)

// tuning is what tests replace.
type tuning struct {
	newID   func() string
	jitter  func() float64 // in [0, 1)
	sleep   func(ctx context.Context, d time.Duration)
	connect time.Duration
	attempt time.Duration
}

// Option changes how a Client works.
type Option func(*tuning)

// WithRequestIDs sets what makes the idempotency keys of submits; each must be unique.
// Without it they are 32 random hex digits.
func WithRequestIDs(newID func() string) Option { return func(t *tuning) { t.newID = newID } }

// WithJitter sets the source of randomness of backoffs, in [0, 1).
func WithJitter(jitter func() float64) Option { return func(t *tuning) { t.jitter = jitter } }

// WithSleep sets how a backoff is waited; sleep returns early when ctx ends.
func WithSleep(sleep func(ctx context.Context, d time.Duration)) Option {
	return func(t *tuning) { t.sleep = sleep }
}

// WithLimits sets how long one server may take to be connected to, and how long one try of
// a unary call may take, before the next server's turn. Zero keeps the default.
func WithLimits(connect, attempt time.Duration) Option {
	return func(t *tuning) {
		if connect > 0 {
			t.connect = connect
		}
		if attempt > 0 {
			t.attempt = attempt
		}
	}
}

func defaultTuning() tuning {
	return tuning{
		newID: randomID, jitter: mathrand.Float64, sleep: sleep,
		connect: connectLimit, attempt: attemptLimit,
	}
}

func randomID() string {
	var b [requestIDLen]byte
	rand.Read(b[:]) // never fails: see crypto/rand
	return hex.EncodeToString(b[:])
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// backoff gives the wait before round n (from 1) of the servers: exponential, bounded, jittered.
func (t *tuning) backoff(n int) time.Duration {
	d := backoffMost
	if n < 8 {
		d = min(backoffMost, backoffFirst<<(n-1))
	}
	return time.Duration(float64(d) * (jitterFloor + (1-jitterFloor)*t.jitter()))
}
