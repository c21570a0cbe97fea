package transport

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"time"
)

// What tests outside the package, which may use server/ca, need of its inside.
const (
	AnonymousMax            = anonymousMax
	AnonymousBytesMax       = anonymousBytesMax
	HandshakesPerAddressMax = handshakesPerAddressMax
	TokenTextMax            = tokenTextMax
)

// CertificateOf gives the chain and key, for clients that do not verify servers.
func CertificateOf(c *Credentials) *tls.Certificate { return c.current.Load() }

var RenewAt = renewAt

// KeepFreshEvery is KeepFresh with a given pause and clock.
func KeepFreshEvery(ctx context.Context, retry time.Duration, now func() time.Time, creds *Credentials,
	renew func(context.Context, []byte) ([]byte, error), save func() error, log *slog.Logger) {
	r := &renewer{creds: creds, renew: renew, save: save, log: log, retryMin: retry, now: now, jitter: 0.5}
	r.run(ctx)
}

// FailAccepts makes the first n accepts fail; it is called before Serve.
func (p *Port) FailAccepts(n int, err error) {
	next := p.accept
	p.accept = func() (*net.TCPConn, error) {
		if n > 0 {
			n--
			return nil, err
		}
		return next()
	}
}
