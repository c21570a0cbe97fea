package transport_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"net/url"
	"syscall"
	"testing"
	"time"

	"llmos/server/ca"
	"llmos/transport"
)

// bareCertificate is signed by the authority but not made by it: with any URIs.
func bareCertificate(t *testing.T, authority *ca.CA, uris ...string) *tls.Certificate {
	t.Helper()
	keyDER, err := authority.KeyDER()
	if err != nil {
		t.Fatal(err)
	}
	signer, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		t.Fatal(err)
	}
	parent, err := x509.ParseCertificate(authority.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, DNSNames: []string{"localhost"}}
	for _, text := range uris {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, u)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestPortReadsTheWholeIdentity(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	for _, c := range []struct {
		name string
		uris []string
		ok   bool
	}{
		{"this cluster", []string{"spiffe://" + cluster + "/server/s-2"}, true},
		{"same authority, other cluster", []string{"spiffe://c-other/server/s-2"}, false},
		{"no URI", nil, false},
		{"two URIs", []string{"spiffe://" + cluster + "/server/s-2", "spiffe://" + cluster + "/agent/n-2"}, false},
		{"unknown role", []string{"spiffe://" + cluster + "/root/s-2"}, false},
	} {
		cert := bareCertificate(t, authority, c.uris...)
		for _, alpn := range protos {
			cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}, Certificates: []tls.Certificate{*cert}}
			if _, err := helloTLS(p.Addr().String(), cfg); (err == nil) != c.ok {
				t.Errorf("%s on %s: %v", c.name, alpn, err)
			}
		}
	}
}

// TestMuteClientsDoNotStopOthers fills one address's share of handshakes: what is over it
// is turned away, and once the mute ones are gone, clients are served again.
func TestMuteClientsDoNotStopOthers(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	creds := member(t, authority, server, "s-2")
	var mute []net.Conn
	open := func() {
		c, err := net.Dial("tcp", p.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		mute = append(mute, c)
	}
	for range transport.HandshakesPerAddressMax - 1 {
		open()
	}
	if got, err := visit(p.Addr().String(), transport.ProtoRaft, creds, server); err != nil || got != transport.ProtoRaft {
		t.Fatalf("with one place left: %q, %v", got, err)
	}
	open()
	if _, err := visit(p.Addr().String(), transport.ProtoRaft, creds, server); err == nil {
		t.Fatal("admitted beyond the limit")
	}
	for _, c := range mute {
		c.Close()
	}
	eventually(t, "clients are served again", func() bool {
		_, err := visit(p.Addr().String(), transport.ProtoRaft, creds, server)
		return err == nil
	})
}

func TestAnonymousClientsAreFewAndSmall(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	addr := p.Addr().String()
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{transport.ProtoGRPC}}
	open := make([]*tls.Conn, 0, transport.AnonymousMax)
	for range transport.AnonymousMax {
		c, err := tls.Dial("tcp", addr, cfg)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := hello(c); err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := helloTLS(addr, cfg); err == nil {
		t.Error("one too many is admitted")
	}
	if _, err := visit(addr, transport.ProtoGRPC, member(t, authority, agent, "n-1"), server); err != nil {
		t.Errorf("a member is kept out: %v", err)
	}
	// The echo reads until the budget is spent and then the connection ends.
	c := open[0]
	_ = c.SetDeadline(time.Now().Add(patience))
	go func() {
		block := make([]byte, 16<<10)
		for range 2 * transport.AnonymousBytesMax / len(block) {
			if _, err := c.Write(block); err != nil {
				return
			}
		}
	}()
	read := 0
	buf := make([]byte, 32<<10)
	for {
		n, err := c.Read(buf)
		read += n
		if err != nil {
			break
		}
	}
	if read > transport.AnonymousBytesMax {
		t.Errorf("%d bytes were read of an anonymous client, at most %d", read, transport.AnonymousBytesMax)
	}
	eventually(t, "the place is free again", func() bool {
		_, err := helloTLS(addr, cfg)
		return err == nil
	})
}

func TestServeOutlivesAcceptErrors(t *testing.T) {
	authority := newCA(t, cluster)
	p, err := transport.Listen("127.0.0.1:0", member(t, authority, server, "s-1"), quiet())
	if err != nil {
		t.Fatal(err)
	}
	p.FailAccepts(4, &net.OpError{Op: "accept", Net: "tcp", Err: syscall.EMFILE})
	served := make(chan error, 1)
	go func() { served <- p.Serve() }()
	go echo(p.Listener(transport.ProtoRaft), "here")
	if got, err := visit(p.Addr().String(), transport.ProtoRaft, member(t, authority, server, "s-2"), server); err != nil || got != "here" {
		t.Errorf("after failed accepts: %q, %v", got, err)
	}
	p.Close()
	if err := <-served; err != nil {
		t.Errorf("serve: %v", err)
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("not in %s: %s", patience, what)
		case <-tick.C:
		}
	}
}
