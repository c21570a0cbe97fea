// Package ca is the cluster's own certificate authority: it is made once at bootstrap,
// issues the certificates that members are known by, and draws join tokens. The issuer
// alone decides what a certificate says; a request contributes its public key and nothing
// else.
//
// The package keeps nothing on disk, holds no list of what it issued, and does not decide
// who may ask: the server's wiring and server/api do.
package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// backdate lets a member whose clock is behind use its new certificate at once.
	backdate     = 10 * time.Minute
	serialBits   = 128
	csrBytesMax  = 16 << 10
	tokenLifeMax = 30 * 24 * time.Hour
	// TokenLife is how long a join token is good for when nobody says otherwise.
	TokenLife = time.Hour
)

// CA signs certificates for one cluster. It is immutable and safe for concurrent use.
type CA struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

// New makes the authority of a new cluster, good for ten years from now.
func New(clusterID string, now time.Time) (*CA, error) {
	probe := transport.Identity{ClusterID: clusterID, Role: pb.MemberRole_MEMBER_ROLE_SERVER, MemberID: "ca"}
	if err := probe.Validate(); err != nil {
		return nil, fmt.Errorf("make a certificate authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the authority's key: %w", err)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{clusterID}, CommonName: "llmos certificate authority"},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(authorityLife),
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("sign the authority's certificate: %w", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("parse the authority's certificate: %w", err)
	}
	return &CA{key: key, cert: cert}, nil
}

// Load takes up an authority from what KeyDER and CertificateDER gave.
func Load(keyDER, certDER []byte) (*CA, error) {
	parsed, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return nil, fmt.Errorf("parse the authority's key: %w", err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the authority's key is a %T, want ECDSA", parsed)
	}
	cert, err := x509.ParseCertificate(certDER)
	if err != nil {
		return nil, fmt.Errorf("parse the authority's certificate: %w", err)
	}
	if !cert.IsCA || len(cert.Subject.Organization) != 1 {
		return nil, errors.New("the certificate is not an llmos authority's")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, errors.New("the authority's key does not belong to its certificate")
	}
	return &CA{key: key, cert: cert}, nil
}

// KeyDER gives the private key, PKCS #8. It is the cluster's most precious secret.
func (c *CA) KeyDER() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.key)
	if err != nil {
		return nil, fmt.Errorf("encode the authority's key: %w", err)
	}
	return der, nil
}

// CertificateDER gives the authority's own certificate.
func (c *CA) CertificateDER() []byte { return c.cert.Raw }

// ClusterID gives the one cluster that the authority signs for.
func (c *CA) ClusterID() string { return c.cert.Subject.Organization[0] }

// NewToken draws a token and the record that the cluster keeps of it, which has only the
// hash of the secret. A ttl of 0 means TokenLife. Faults: a role that nobody can join
// with, a ttl that is negative or over 30 days.
func (c *CA) NewToken(role pb.MemberRole, ttl time.Duration, now time.Time) (transport.Token, *pb.JoinToken, error) {
	if ttl == 0 {
		ttl = TokenLife
	}
	if ttl < 0 || ttl > tokenLifeMax {
		return transport.Token{}, nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "make a join token: a life of %s is not between 0 and %s", ttl, tokenLifeMax).
			Hint("give a shorter life, such as 1h")
	}
	if _, err := transport.ParseRole(transport.RoleName(role)); err != nil {
		return transport.Token{}, nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "make a join token: %w", err).At("role", 0)
	}
	token, err := transport.NewToken(c.ClusterID(), c.cert)
	if err != nil {
		return transport.Token{}, nil, err
	}
	sum := sha256.Sum256(token.Secret)
	return token, &pb.JoinToken{Id: token.ID, SecretSha256: sum[:], Role: role,
		CreatedMs: now.UnixMilli(), ExpiresMs: now.Add(ttl).UnixMilli()}, nil
}

func newSerial() (*big.Int, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits-1))
	if err != nil {
		return nil, fmt.Errorf("draw a serial number: %w", err)
	}
	return serial.Add(serial, big.NewInt(1)), nil
}
