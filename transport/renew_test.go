package transport_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"llmos/transport"
)

func TestRenewAt(t *testing.T) {
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	to := from.Add(100 * time.Hour)
	for _, c := range []struct {
		jitter float64
		after  time.Duration
	}{{0, 62 * time.Hour}, {0.5, 67 * time.Hour}, {1, 72 * time.Hour}} {
		got := transport.RenewAt(from, to, c.jitter).Sub(from)
		if d := got - c.after; d < -time.Second || d > time.Second {
			t.Errorf("jitter %v: after %s, want %s", c.jitter, got, c.after)
		}
	}
}

// TestKeepFresh: a failing cluster and a failing disk are tried again, and the certificate
// that was got is saved without asking for another.
func TestKeepFresh(t *testing.T) {
	authority := newCA(t, cluster)
	creds := memberAt(t, authority, agent, "n-1", time.Now().Add(-50*time.Minute), time.Hour)
	old := creds.NotAfter()
	asked, saved := 0, 0
	renew := func(_ context.Context, csr []byte) ([]byte, error) {
		asked++
		switch asked {
		case 1:
			return nil, errors.New("no leader")
		case 2:
			return []byte("garbage"), nil
		}
		return authority.Issue(csr, creds.Identity(), nil, 24*time.Hour, time.Now())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	save := func() error {
		if saved++; saved == 1 {
			return errors.New("disk full")
		}
		cancel()
		return nil
	}
	transport.KeepFreshEvery(ctx, time.Millisecond, time.Now, creds, renew, save, quiet())
	if asked != 3 || saved != 2 {
		t.Errorf("asked %d times and saved %d times, want 3 and 2", asked, saved)
	}
	if !creds.NotAfter().After(old) {
		t.Errorf("the certificate still ends at %s", creds.NotAfter())
	}
}

func TestKeepFreshLeavesAFreshCertificateAlone(t *testing.T) {
	creds := member(t, newCA(t, cluster), agent, "n-1")
	ctx, cancel := context.WithCancel(context.Background())
	looked := make(chan struct{})
	now := func() time.Time {
		select {
		case <-looked:
		default:
			close(looked)
		}
		return time.Now()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		transport.KeepFreshEvery(ctx, time.Millisecond, now, creds, func(context.Context, []byte) ([]byte, error) {
			t.Error("renewed too early")
			return nil, errors.New("too early")
		}, func() error { return nil }, quiet())
	}()
	<-looked
	cancel()
	<-done
}
