package ca_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

const cluster = "c-0123456789ab"

var (
	now    = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	nodeID = transport.Identity{ClusterID: cluster, Role: pb.MemberRole_MEMBER_ROLE_AGENT, MemberID: "n-1"}
)

func newCA(t *testing.T) *ca.CA {
	t.Helper()
	c, err := ca.New(cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func request(t *testing.T, key crypto.Signer, template x509.CertificateRequest) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &template, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func parse(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestIssueSaysOnlyWhatTheIssuerDecides: a request that claims more gets nothing of it.
func TestIssueSaysOnlyWhatTheIssuerDecides(t *testing.T) {
	c := newCA(t)
	greedy := x509.CertificateRequest{
		Subject:        pkix.Name{CommonName: "s-1", Organization: []string{"root"}},
		DNSNames:       []string{"leader.example"},
		EmailAddresses: []string{"root@example.org"},
		IPAddresses:    []net.IP{net.IPv4(10, 0, 0, 1)},
		URIs:           []*url.URL{{Scheme: "spiffe", Host: cluster, Path: "/server/s-1"}},
		ExtraExtensions: []pkix.Extension{{Id: []int{2, 5, 29, 19}, Critical: true, // basicConstraints CA:TRUE
			Value: []byte{0x30, 0x03, 0x01, 0x01, 0xff}}},
	}
	key := newKey(t)
	der, err := c.Issue(request(t, key, greedy), nodeID, []string{"10.1.2.3", "node.example", "fe80::1"}, 24*time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	cert := parse(t, der)
	if len(cert.URIs) != 1 || cert.URIs[0].String() != "spiffe://"+cluster+"/agent/n-1" {
		t.Errorf("URIs are %v", cert.URIs)
	}
	if len(cert.DNSNames) != 1 || cert.DNSNames[0] != "node.example" || len(cert.IPAddresses) != 2 || len(cert.EmailAddresses) != 0 {
		t.Errorf("subjects are %v %v %v", cert.DNSNames, cert.IPAddresses, cert.EmailAddresses)
	}
	if cert.IsCA || cert.KeyUsage != x509.KeyUsageDigitalSignature || cert.Subject.CommonName != "n-1" || cert.Subject.Organization[0] != cluster {
		t.Errorf("CA %v, usage %v, subject %v", cert.IsCA, cert.KeyUsage, cert.Subject)
	}
	if !cert.NotBefore.Before(now) || !cert.NotAfter.Equal(now.Add(24*time.Hour)) {
		t.Errorf("good from %s to %s", cert.NotBefore, cert.NotAfter)
	}
	if _, err := transport.NewCredentials(der, key, c.CertificateDER()); err != nil {
		t.Error(err)
	}
}

func TestIssueByRole(t *testing.T) {
	c := newCA(t)
	roots := x509.NewCertPool()
	roots.AddCert(parse(t, c.CertificateDER()))
	for role, serves := range map[pb.MemberRole]bool{
		pb.MemberRole_MEMBER_ROLE_SERVER: true, pb.MemberRole_MEMBER_ROLE_AGENT: true, pb.MemberRole_MEMBER_ROLE_USER: false,
	} {
		id := transport.Identity{ClusterID: cluster, Role: role, MemberID: "m-1"}
		der, err := c.Issue(request(t, newKey(t), x509.CertificateRequest{}), id, nil, time.Hour, now)
		if err != nil {
			t.Fatal(err)
		}
		verify := func(usage x509.ExtKeyUsage) error {
			_, err := parse(t, der).Verify(x509.VerifyOptions{Roots: roots, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage}})
			return err
		}
		if err := verify(x509.ExtKeyUsageClientAuth); err != nil {
			t.Errorf("%v cannot call: %v", role, err)
		}
		if err := verify(x509.ExtKeyUsageServerAuth); (err == nil) != serves {
			t.Errorf("%v serves: %v", role, err)
		}
		if got, err := transport.ParseIdentity(parse(t, der)); err != nil || got != id {
			t.Errorf("identity is %v, %v", got, err)
		}
	}
}

func TestIssueRefuses(t *testing.T) {
	c := newCA(t)
	good := request(t, newKey(t), x509.CertificateRequest{})
	broken := append([]byte(nil), good...)
	broken[len(broken)-1] ^= 1
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name  string
		csr   []byte
		id    transport.Identity
		hosts []string
		ttl   time.Duration
		says  string
	}{
		{"garbage", []byte("garbage"), nodeID, nil, time.Hour, "parse the certificate request"},
		{"huge", make([]byte, 17<<10), nodeID, nil, time.Hour, "at most"},
		{"broken signature", broken, nodeID, nil, time.Hour, "check the signature"},
		{"RSA", request(t, rsaKey, x509.CertificateRequest{}), nodeID, nil, time.Hour, "not ECDSA P-256"},
		{"Ed25519", request(t, edKey, x509.CertificateRequest{}), nodeID, nil, time.Hour, "not ECDSA P-256"},
		{"P-384", request(t, p384, x509.CertificateRequest{}), nodeID, nil, time.Hour, "not ECDSA P-256"},
		{"other cluster", good, transport.Identity{ClusterID: "c-2", Role: nodeID.Role, MemberID: "n-1"}, nil, time.Hour, "does not belong to cluster"},
		{"no role", good, transport.Identity{ClusterID: cluster, MemberID: "n-1"}, nil, time.Hour, "none of server, agent, user"},
		{"path in ID", good, transport.Identity{ClusterID: cluster, Role: nodeID.Role, MemberID: "../s-1"}, nil, time.Hour, "character"},
		{"no life", good, nodeID, nil, 0, "is not positive"},
		{"bad host", good, nodeID, []string{"a b"}, time.Hour, "neither an IP address nor a host name"},
		{"wildcard", good, nodeID, []string{"*.example"}, time.Hour, "neither an IP address nor a host name"},
		{"empty host", good, nodeID, []string{""}, time.Hour, "neither an IP address nor a host name"},
		{"many hosts", good, nodeID, make([]string, 33), time.Hour, "at most 32"},
	} {
		_, err := c.Issue(tc.csr, tc.id, tc.hosts, tc.ttl, now)
		if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: error is %v, want %q", tc.name, err, tc.says)
		}
	}
}

func TestIssueEndsWithTheAuthority(t *testing.T) {
	c := newCA(t)
	late := parse(t, c.CertificateDER()).NotAfter.Add(-time.Hour)
	der, err := c.Issue(request(t, newKey(t), x509.CertificateRequest{}), nodeID, nil, 24*time.Hour, late)
	if err != nil {
		t.Fatal(err)
	}
	if end := parse(t, der).NotAfter; end.After(parse(t, c.CertificateDER()).NotAfter) {
		t.Errorf("good until %s", end)
	}
}

func TestLoad(t *testing.T) {
	c := newCA(t)
	keyDER, err := c.KeyDER()
	if err != nil {
		t.Fatal(err)
	}
	again, err := ca.Load(keyDER, c.CertificateDER())
	if err != nil || again.ClusterID() != cluster {
		t.Fatalf("loaded %v", err)
	}
	key := newKey(t)
	der, err := again.Issue(request(t, key, x509.CertificateRequest{}), nodeID, nil, time.Hour, now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := transport.NewCredentials(der, key, c.CertificateDER()); err != nil {
		t.Errorf("what a loaded authority signs: %v", err)
	}
	other := newCA(t)
	for name, load := range map[string]func() (*ca.CA, error){
		"other certificate": func() (*ca.CA, error) { return ca.Load(keyDER, other.CertificateDER()) },
		"no key":            func() (*ca.CA, error) { return ca.Load(nil, c.CertificateDER()) },
		"no certificate":    func() (*ca.CA, error) { return ca.Load(keyDER, nil) },
		"a node's certificate": func() (*ca.CA, error) {
			nodeKey, err := x509.MarshalPKCS8PrivateKey(key)
			if err != nil {
				t.Fatal(err)
			}
			return ca.Load(nodeKey, der)
		},
	} {
		if _, err := load(); err == nil {
			t.Errorf("%s: loaded", name)
		}
	}
	if _, err := ca.New("Not An ID", now); err == nil {
		t.Error("an authority for an ill-formed cluster ID")
	}
}

func TestNewToken(t *testing.T) {
	c := newCA(t)
	token, record, err := c.NewToken(pb.MemberRole_MEMBER_ROLE_AGENT, 0, now)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(token.Secret)
	if token.ClusterID != cluster || token.ID != record.Id || !bytes.Equal(sum[:], record.SecretSha256) ||
		token.CAPin != transport.PinOf(parse(t, c.CertificateDER())) {
		t.Errorf("token %v, record %v", token.ID, record)
	}
	if record.Role != pb.MemberRole_MEMBER_ROLE_AGENT || record.CreatedMs != now.UnixMilli() || record.ExpiresMs != now.Add(time.Hour).UnixMilli() {
		t.Errorf("record is %v", record)
	}
	if _, err := transport.ParseToken(token.String()); err != nil {
		t.Error(err)
	}
	if _, _, err := c.NewToken(pb.MemberRole_MEMBER_ROLE_UNSPECIFIED, time.Hour, now); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
		t.Errorf("no role gives %v", err)
	}
	for _, ttl := range []time.Duration{-time.Second, 31 * 24 * time.Hour} {
		if _, _, err := c.NewToken(pb.MemberRole_MEMBER_ROLE_AGENT, ttl, now); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
			t.Errorf("a life of %s gives %v", ttl, err)
		}
	}
}
