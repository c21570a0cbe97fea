package ca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	hostsMax     = 32 // names and addresses of one certificate
	hostBytesMax = 253
	labelMax     = 63 // bytes of one part of a DNS name
)

// Issue signs a certificate for the identity, with hosts (IP addresses or DNS names) as
// further subjects, good for ttl from now but not beyond the authority's own life. Of the
// request only the public key is used, after its signature is checked; the key must be
// ECDSA P-256. What is wrong with the arguments is a fault.
func (c *CA) Issue(csrDER []byte, id transport.Identity, hosts []string, ttl time.Duration, now time.Time) ([]byte, error) {
	if err := c.checkIdentity(id, ttl); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "issue a certificate: %w", err)
	}
	public, err := requestKey(csrDER)
	if err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "issue a certificate for %s: %w", id, err).At("csr_der", 0)
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{id.ClusterID}, CommonName: id.MemberID},
		NotBefore:             now.Add(-backdate),
		NotAfter:              now.Add(ttl),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           usages(id.Role),
		BasicConstraintsValid: true,
		URIs:                  []*url.URL{id.URI()},
	}
	if template.NotAfter.After(c.cert.NotAfter) {
		template.NotAfter = c.cert.NotAfter
	}
	if err := addHosts(template, hosts); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "issue a certificate for %s: %w", id, err).At("hosts", 0)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, c.cert, public, c.key)
	if err != nil {
		return nil, fmt.Errorf("sign the certificate of %s: %w", id, err)
	}
	return der, nil
}

func (c *CA) checkIdentity(id transport.Identity, ttl time.Duration) error {
	if err := id.Validate(); err != nil {
		return err
	}
	if id.ClusterID != c.ClusterID() {
		return fmt.Errorf("%s does not belong to cluster %s", id, c.ClusterID())
	}
	if ttl <= 0 {
		return fmt.Errorf("a life of %s is not positive", ttl)
	}
	return nil
}

// usages keeps a person's certificate from serving.
func usages(role pb.MemberRole) []x509.ExtKeyUsage {
	if role == pb.MemberRole_MEMBER_ROLE_USER {
		return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	}
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

// requestKey gives the key of a request whose sender has proved to hold it.
func requestKey(csrDER []byte) (*ecdsa.PublicKey, error) {
	if len(csrDER) > csrBytesMax {
		return nil, fmt.Errorf("the certificate request has %d bytes, at most %d", len(csrDER), csrBytesMax)
	}
	csr, err := x509.ParseCertificateRequest(csrDER)
	if err != nil {
		return nil, fmt.Errorf("parse the certificate request: %w", err)
	}
	public, ok := csr.PublicKey.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() {
		return nil, errors.New("the key of the certificate request is not ECDSA P-256")
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check the signature of the certificate request: %w", err)
	}
	return public, nil
}

func addHosts(template *x509.Certificate, hosts []string) error {
	if len(hosts) > hostsMax {
		return fmt.Errorf("%d names and addresses, at most %d", len(hosts), hostsMax)
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if !dnsName(host) {
			return fmt.Errorf("%q is neither an IP address nor a host name", host)
		}
		template.DNSNames = append(template.DNSNames, host)
	}
	return nil
}

func dnsName(s string) bool {
	if s == "" || len(s) > hostBytesMax {
		return false
	}
	for _, label := range strings.Split(s, ".") {
		if label == "" || len(label) > labelMax || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_' {
				return false
			}
		}
	}
	return true
}
