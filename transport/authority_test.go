package transport_test

import (
	"crypto"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

const (
	cluster = "c-0123456789ab"
	server  = pb.MemberRole_MEMBER_ROLE_SERVER
	agent   = pb.MemberRole_MEMBER_ROLE_AGENT
	user    = pb.MemberRole_MEMBER_ROLE_USER
	anyRole = pb.MemberRole_MEMBER_ROLE_UNSPECIFIED
)

// patience bounds every wait for something that should happen at once.
const patience = 20 * time.Second

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func newCA(t testing.TB, clusterID string) *ca.CA {
	t.Helper()
	authority, err := ca.New(clusterID, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func issue(t testing.TB, a *ca.CA, key crypto.Signer, role pb.MemberRole, member string, from time.Time, life time.Duration) []byte {
	t.Helper()
	csr, err := transport.NewCSR(key)
	if err != nil {
		t.Fatal(err)
	}
	id := transport.Identity{ClusterID: a.ClusterID(), Role: role, MemberID: member}
	der, err := a.Issue(csr, id, []string{"127.0.0.1"}, life, from)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// member makes credentials that are good for an hour.
func member(t testing.TB, a *ca.CA, role pb.MemberRole, id string) *transport.Credentials {
	t.Helper()
	return memberAt(t, a, role, id, time.Now(), time.Hour)
}

func memberAt(t testing.TB, a *ca.CA, role pb.MemberRole, id string, from time.Time, life time.Duration) *transport.Credentials {
	t.Helper()
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	creds, err := transport.NewCredentials(issue(t, a, key, role, id, from, life), key, a.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	return creds
}

// openPort serves a port on loopback until the test ends.
func openPort(t testing.TB, creds *transport.Credentials) *transport.Port {
	t.Helper()
	p, err := transport.Listen("127.0.0.1:0", creds, quiet())
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- p.Serve() }()
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Errorf("close the port: %v", err)
		}
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return p
}

// echo answers every connection of a listener with the listener's name and what it reads.
func echo(l net.Listener, name string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			if _, err := io.WriteString(c, name+"\n"); err == nil {
				_, _ = io.Copy(c, c)
			}
		}()
	}
}
