package transport_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

var protos = []string{transport.ProtoGRPC, transport.ProtoRaft, transport.ProtoGossip}

// serveAll gives a port whose three protocols answer with their names.
func serveAll(t *testing.T, creds *transport.Credentials) *transport.Port {
	p := openPort(t, creds)
	for _, alpn := range protos {
		go echo(p.Listener(alpn), alpn)
	}
	return p
}

// hello reads the name that the other end says first.
func hello(c net.Conn) (string, error) {
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	return strings.TrimSpace(line), err
}

// visit dials and reads the first line; a refused certificate shows in either step.
func visit(addr, alpn string, creds *transport.Credentials, want pb.MemberRole) (string, error) {
	c, err := transport.Dial(context.Background(), addr, alpn, creds, want)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return hello(c)
}

func TestPortRoutesByProtocol(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	creds := member(t, authority, server, "s-2")
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			alpn := protos[i%len(protos)]
			if got, err := visit(p.Addr().String(), alpn, creds, server); err != nil || got != alpn {
				t.Errorf("%s: got %q, %v", alpn, got, err)
			}
		}()
	}
	wg.Wait()
}

func TestPortHandsOutPeers(t *testing.T) {
	authority := newCA(t, cluster)
	p := openPort(t, member(t, authority, server, "s-1"))
	l := p.Listener(transport.ProtoRaft)
	c, err := transport.Dial(context.Background(), p.Addr().String(), transport.ProtoRaft, member(t, authority, server, "s-2"), server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if id, ok := got.(*transport.Conn).Peer(); !ok || id != (transport.Identity{ClusterID: cluster, Role: server, MemberID: "s-2"}) {
		t.Fatalf("the server sees %v, %v", id, ok)
	}
	if id, ok := c.(*transport.Conn).Peer(); !ok || id.MemberID != "s-1" {
		t.Fatalf("the client sees %v, %v", id, ok)
	}
}

func TestPortRefusesClients(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	past := time.Now().Add(-3 * time.Hour)
	credentials := map[string]*transport.Credentials{
		"server":        member(t, authority, server, "s-2"),
		"agent":         member(t, authority, agent, "n-1"),
		"user":          member(t, authority, user, "u-1"),
		"expired":       memberAt(t, authority, server, "s-3", past, time.Hour),
		"not yet valid": memberAt(t, authority, server, "s-4", time.Now().Add(time.Hour), time.Hour),
		"wrong CA":      member(t, newCA(t, cluster), server, "s-5"),
		"other cluster": member(t, newCA(t, "c-other"), server, "s-6"),
	}
	admitted := map[string][]string{
		"server": protos, "agent": {transport.ProtoGRPC, transport.ProtoGossip}, "user": {transport.ProtoGRPC},
	}
	for who, creds := range credentials {
		for _, alpn := range protos {
			want := strings.Contains(strings.Join(admitted[who], " "), alpn)
			got, err := dialAnyServer(p.Addr().String(), alpn, creds)
			if want && (err != nil || got != alpn) {
				t.Errorf("%s is not admitted to %s: %v", who, alpn, err)
			}
			if !want && err == nil {
				t.Errorf("%s is admitted to %s", who, alpn)
			}
		}
	}
}

// dialAnyServer shows a certificate to whatever server is there, as an attacker would.
func dialAnyServer(addr, alpn string, creds *transport.Credentials) (string, error) {
	cert := transport.CertificateOf(creds)
	cfg := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}}
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return cert, nil }
	return helloTLS(addr, cfg)
}

func helloTLS(addr string, cfg *tls.Config) (string, error) {
	c, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", addr, cfg)
	if err != nil {
		return "", err
	}
	defer c.Close()
	return hello(c)
}

func TestPortAdmitsAnonymousOnGRPCOnly(t *testing.T) {
	p := serveAll(t, member(t, newCA(t, cluster), server, "s-1"))
	for _, alpn := range protos {
		got, err := helloTLS(p.Addr().String(), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{alpn}})
		if want := alpn == transport.ProtoGRPC; want != (err == nil) {
			t.Errorf("%s without a certificate: %q, %v", alpn, got, err)
		}
	}
	for name, cfg := range map[string]*tls.Config{
		"no protocol":    {InsecureSkipVerify: true},
		"other protocol": {InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
		"TLS 1.2":        {InsecureSkipVerify: true, NextProtos: protos, MaxVersion: tls.VersionTLS12},
	} {
		if got, err := helloTLS(p.Addr().String(), cfg); err == nil {
			t.Errorf("%s is admitted to %q", name, got)
		}
	}
}

func TestRefusedClientReadsWhy(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	_, err := visit(p.Addr().String(), transport.ProtoRaft, member(t, authority, agent, "n-1"), server)
	if err == nil || !strings.Contains(err.Error(), "bad certificate") {
		t.Fatalf("an agent on raft reads %v", err)
	}
}

func TestDialRefusesServers(t *testing.T) {
	authority := newCA(t, cluster)
	creds := member(t, authority, agent, "n-1")
	other := newCA(t, "c-other")
	for _, c := range []struct {
		name   string
		peer   *transport.Credentials
		want   pb.MemberRole
		member string
		says   string
	}{
		{"wrong role", member(t, authority, agent, "n-2"), server, "", "want role server"},
		{"wrong member", member(t, authority, server, "s-1"), server, "s-2", "want member s-2"},
		{"user serves", member(t, authority, user, "u-1"), anyRole, "", "verify the peer's certificate"},
		{"wrong CA", member(t, newCA(t, cluster), server, "s-1"), server, "", "verify the peer's certificate"},
		{"other cluster", member(t, other, server, "s-1"), server, "", "verify the peer's certificate"},
		{"expired", memberAt(t, authority, server, "s-1", time.Now().Add(-2*time.Hour), time.Hour), server, "", "expired"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := serveAll(t, c.peer)
			conn, err := transport.DialMember(context.Background(), p.Addr().String(), transport.ProtoGRPC, creds, c.want, c.member)
			if err == nil {
				conn.Close()
				t.Fatal("the server is trusted")
			}
			if !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error is %v, want %q", err, c.says)
			}
		})
	}
	p := serveAll(t, member(t, authority, agent, "n-2"))
	conn, err := transport.DialMember(context.Background(), p.Addr().String(), transport.ProtoGRPC, creds, agent, "n-2")
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestReplaceWhileRunning(t *testing.T) {
	authority := newCA(t, cluster)
	key, err := transport.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	// The port begins with a certificate that has expired, so only a reload can help.
	old := issue(t, authority, key, server, "s-1", time.Now().Add(-2*time.Hour), time.Hour)
	creds, err := transport.NewCredentials(old, key, authority.CertificateDER())
	if err != nil {
		t.Fatal(err)
	}
	p := serveAll(t, creds)
	client := member(t, authority, agent, "n-1")
	if _, err := visit(p.Addr().String(), transport.ProtoGRPC, client, server); err == nil {
		t.Fatal("an expired server is trusted")
	}
	if err := creds.Replace(issue(t, authority, key, server, "s-1", time.Now(), time.Hour)); err != nil {
		t.Fatal(err)
	}
	if _, err := visit(p.Addr().String(), transport.ProtoGRPC, client, server); err != nil {
		t.Fatalf("the new certificate is not shown by the port: %v", err)
	}
	// The same credentials dial with the new certificate too.
	other := serveAll(t, member(t, authority, server, "s-2"))
	if _, err := visit(other.Addr().String(), transport.ProtoRaft, creds, server); err != nil {
		t.Fatalf("the new certificate is not shown by a dial: %v", err)
	}
}

func TestPortBindsBothOrNeither(t *testing.T) {
	creds := member(t, newCA(t, cluster), server, "s-1")
	p := openPort(t, creds)
	if udp := p.PacketConn().LocalAddr().(*net.UDPAddr); udp.Port != p.Addr().Port || udp.Port == 0 {
		t.Fatalf("UDP has %d, TCP %d", udp.Port, p.Addr().Port)
	}
	_, err := transport.Listen(p.Addr().String(), creds, quiet())
	if f := fault.From(err); f == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_CONFLICT || f.Fault.Hint == "" {
		t.Fatalf("a taken port gives %v", err)
	}
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	if _, err := transport.Listen(udp.LocalAddr().String(), creds, quiet()); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_CONFLICT {
		t.Fatalf("a taken UDP port gives %v", err)
	}
	tcp, err := net.Listen("tcp", udp.LocalAddr().String())
	if err != nil {
		t.Fatalf("the TCP half is still bound: %v", err)
	}
	tcp.Close()
	for _, addr := range []string{"", "7300", "host:port:more", "192.0.2.1:0"} {
		if _, err := transport.Listen(addr, creds, quiet()); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INVALID {
			t.Errorf("%q gives %v", addr, err)
		}
	}
}

func TestListenerClosesAlone(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	creds := member(t, authority, server, "s-2")
	l := p.Listener(transport.ProtoRaft)
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Fatalf("accept after close gives %v", err)
	}
	if _, err := visit(p.Addr().String(), transport.ProtoRaft, creds, server); err == nil {
		t.Fatal("raft is still served")
	}
	if _, err := visit(p.Addr().String(), transport.ProtoGossip, creds, server); err != nil {
		t.Fatalf("gossip went with raft: %v", err)
	}
	go echo(p.Listener(transport.ProtoRaft), "again")
	if got, err := visit(p.Addr().String(), transport.ProtoRaft, creds, server); err != nil || got != "again" {
		t.Fatalf("a new listener gives %q, %v", got, err)
	}
}

func TestPortCloseEndsEverything(t *testing.T) {
	authority := newCA(t, cluster)
	p := serveAll(t, member(t, authority, server, "s-1"))
	conn, err := transport.Dial(context.Background(), p.Addr().String(), transport.ProtoGossip, member(t, authority, agent, "n-1"), anyRole)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := hello(conn); err != nil {
		t.Fatal(err)
	}
	mute, err := net.Dial("tcp", p.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	l := p.Listener(transport.ProtoRaft)
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]net.Conn{"an open connection": conn, "a handshake": mute} {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s outlives the port: %v", name, err)
		}
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accept gives %v", err)
	}
	if _, err := p.Listener(transport.ProtoRaft).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a late listener gives %v", err)
	}
	if _, _, err := p.PacketConn().ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the UDP socket gives %v", err)
	}
}
