package collective

import (
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"strconv"
	"strings"
	"time"
)

// keyPurpose separates this use of the attempt key from any other.
const keyPurpose = "llmos collective ed25519 v1"

// certificateUntil is the end of a certificate's life. It has no meaning: the attempt key
// lives as long as the attempt, and no side looks at the clock.
var certificateUntil = time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)

// WrongKeyError says that the other side does not hold this attempt's key. Its job and epoch
// are what its certificate says, which the wrong key does not prove.
type WrongKeyError struct {
	Job    string
	Epoch  uint64 // of this side
	Theirs string // job and epoch as the other side's certificate words them
}

// Error names both attempts.
func (e *WrongKeyError) Error() string {
	return fmt.Sprintf("the other side does not hold the key of job %s (epoch %d); it says it is %s", e.Job, e.Epoch, e.Theirs)
}

// theirEpoch is the epoch that a certificate's name claims for the same job.
func (e *WrongKeyError) theirEpoch() (uint64, bool) {
	text, ok := strings.CutPrefix(e.Theirs, fmt.Sprintf("job %s (epoch ", e.Job))
	if !ok {
		return 0, false
	}
	epoch, err := strconv.ParseUint(strings.TrimSuffix(text, ")"), 10, 64)
	return epoch, err == nil
}

// TLS gives a configuration by which the ranks of an attempt, and nobody else, can talk to each
// other: both sides prove that they hold the attempt's key. It serves listeners and dialers.
func TLS(c Config) (*tls.Config, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	if len(c.Key) != keyBytes {
		return nil, fmt.Errorf("an attempt key of %d bytes, want %d", len(c.Key), keyBytes)
	}
	return tlsConfig(c)
}

// tlsConfig makes the one configuration for both sides of every connection of the attempt.
func tlsConfig(c Config) (*tls.Config, error) {
	seed, err := hkdf.Key(sha256.New, c.Key, nil, keyPurpose, ed25519.SeedSize)
	if err != nil {
		return nil, fmt.Errorf("derive the key of %s: %w", c.attempt(), err)
	}
	private := ed25519.NewKeyFromSeed(seed)
	public := private.Public().(ed25519.PublicKey)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: c.attempt()},
		NotBefore: time.Unix(0, 0), NotAfter: certificateUntil}
	der, err := x509.CreateCertificate(nil, template, template, public, private)
	if err != nil {
		return nil, fmt.Errorf("make the certificate of %s: %w", c.attempt(), err)
	}
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		Certificates:           []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: private}},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true, // a ticket nobody reads would turn an orderly close into a reset
		// Frames are large; small first records would only cost time.
		DynamicRecordSizingDisabled: true,
		// The chain is not checked because there is none: VerifyConnection accepts exactly one
		// public key, and TLS proves that the other side holds its private half.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) != 1 {
				return errors.New("the other side showed no certificate of its own")
			}
			theirs := s.PeerCertificates[0]
			if key, ok := theirs.PublicKey.(ed25519.PublicKey); !ok || !public.Equal(key) {
				return &WrongKeyError{Job: c.Job, Epoch: c.Epoch, Theirs: fmt.Sprintf("%.300s", theirs.Subject.CommonName)}
			}
			return nil
		},
	}, nil
}
