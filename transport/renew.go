package transport

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"
)

// Lives of certificates.
const (
	NodeCertificateLife = 30 * 24 * time.Hour  // of servers and agents
	UserCertificateLife = 365 * 24 * time.Hour // of people and programs
)

const (
	renewFraction  = 0.67             // of its life, after which a certificate is renewed
	renewSpread    = 0.05             // of its life, by which members differ so that they do not renew at once
	renewRetryMin  = 15 * time.Second // first pause after a failure
	renewRetryMax  = time.Hour
	renewCheckMax  = time.Hour // longest sleep, so that a changed clock is noticed
	renewCallLimit = time.Minute
)

// KeepFresh renews the certificate at 67 % of its life, give or take a few, until ctx
// ends. renew sends a request to the cluster and gives the new certificate; save keeps
// the credentials on disk. A failure is logged and tried again with growing pauses;
// connections in place are not touched by a renewal.
func KeepFresh(ctx context.Context, creds *Credentials, renew func(ctx context.Context, csr []byte) ([]byte, error), save func() error, log *slog.Logger) {
	r := &renewer{creds: creds, renew: renew, save: save, log: log, retryMin: renewRetryMin, now: time.Now, jitter: rand.Float64()}
	r.run(ctx)
}

type renewer struct {
	creds    *Credentials
	renew    func(ctx context.Context, csr []byte) ([]byte, error)
	save     func() error
	log      *slog.Logger
	retryMin time.Duration
	now      func() time.Time
	jitter   float64 // 0 to 1
	unsaved  bool    // the certificate in use is newer than the one on disk
}

func (r *renewer) run(ctx context.Context) {
	pause := r.retryMin
	for {
		wait := renewAt(r.creds.NotBefore(), r.creds.NotAfter(), r.jitter).Sub(r.now())
		if wait <= 0 || r.unsaved {
			if err := r.once(ctx); err != nil {
				r.failed(ctx, err, pause)
				wait, pause = pause, min(2*pause, renewRetryMax)
			} else {
				// A certificate that is due at once again must not be asked for in a tight loop.
				wait, pause = r.retryMin, r.retryMin
				r.log.Info("certificate renewed", "until", r.creds.NotAfter())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(min(wait, renewCheckMax)):
		}
	}
}

func (r *renewer) failed(ctx context.Context, err error, pause time.Duration) {
	if ctx.Err() != nil {
		return
	}
	if !r.now().Before(r.creds.NotAfter()) {
		r.log.Error("the certificate has expired; join again with a new token", "expired", r.creds.NotAfter(), "error", err)
		return
	}
	r.log.Warn("certificate not renewed; trying again", "until", r.creds.NotAfter(), "wait", pause, "error", err)
}

func (r *renewer) once(ctx context.Context) error {
	if !r.unsaved {
		if err := r.replace(ctx); err != nil {
			return err
		}
	}
	r.unsaved = true
	if err := r.save(); err != nil {
		return fmt.Errorf("save the renewed certificate: %w", err)
	}
	r.unsaved = false
	return nil
}

func (r *renewer) replace(ctx context.Context) error {
	csr, err := r.creds.CSR()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, renewCallLimit)
	defer cancel()
	der, err := r.renew(ctx, csr)
	if err != nil {
		return fmt.Errorf("ask for a new certificate: %w", err)
	}
	return r.creds.Replace(der)
}

// renewAt gives when a certificate is to be renewed; jitter from 0 to 1 spreads members.
func renewAt(notBefore, notAfter time.Time, jitter float64) time.Time {
	life := float64(notAfter.Sub(notBefore))
	return notBefore.Add(time.Duration(life * (renewFraction + renewSpread*(2*jitter-1))))
}
