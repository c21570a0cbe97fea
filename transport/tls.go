package transport

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"

	pb "llmos/proto/llmos/v1"
)

// admitted says which roles may open a connection for a protocol; h2 is also open to
// clients without a certificate.
var admitted = map[string][]pb.MemberRole{
	ProtoGRPC:   {pb.MemberRole_MEMBER_ROLE_SERVER, pb.MemberRole_MEMBER_ROLE_AGENT, pb.MemberRole_MEMBER_ROLE_USER},
	ProtoRaft:   {pb.MemberRole_MEMBER_ROLE_SERVER},
	ProtoGossip: {pb.MemberRole_MEMBER_ROLE_SERVER, pb.MemberRole_MEMBER_ROLE_AGENT},
}

// errNoCertificate is why a client without a certificate is refused.
var errNoCertificate = errors.New("the peer has no certificate")

// baseConfig has what both ends share. Sessions are not resumed: each connection shows a
// certificate that is valid now.
func baseConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// serverConfig serves the given protocols. RequestClientCert leaves verification to
// verifyClient, which knows the protocol and so the roles that may speak it.
func serverConfig(creds *Credentials, protos []string) *tls.Config {
	cfg := baseConfig()
	cfg.NextProtos = protos
	cfg.ClientAuth = tls.RequestClientCert
	cfg.ClientCAs = creds.roots
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return creds.current.Load(), nil }
	cfg.VerifyConnection = func(state tls.ConnectionState) error { return verifyClient(creds, state) }
	return cfg
}

// clientConfig dials one protocol. InsecureSkipVerify turns off only the check of names;
// the chain, the cluster, the role and the member are verified by verifyPeer.
func clientConfig(creds *Credentials, alpn string, want pb.MemberRole, memberID string) *tls.Config {
	cfg := baseConfig()
	cfg.NextProtos = []string{alpn}
	cfg.InsecureSkipVerify = true
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return creds.current.Load(), nil
	}
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		if state.NegotiatedProtocol != alpn {
			return fmt.Errorf("the peer does not speak %s", alpn)
		}
		id, err := verifyPeer(creds.roots, creds.identity.ClusterID, x509.ExtKeyUsageServerAuth, state)
		if err != nil {
			return err
		}
		if want != pb.MemberRole_MEMBER_ROLE_UNSPECIFIED && id.Role != want {
			return fmt.Errorf("the peer is %s, want role %s", id, RoleName(want))
		}
		if memberID != "" && id.MemberID != memberID {
			return fmt.Errorf("the peer is %s, want member %s", id, memberID)
		}
		return nil
	}
	return cfg
}

func verifyClient(creds *Credentials, state tls.ConnectionState) error {
	roles, ok := admitted[state.NegotiatedProtocol]
	if !ok {
		return fmt.Errorf("the client offers none of the protocols of this port (got %q)", state.NegotiatedProtocol)
	}
	if len(state.PeerCertificates) == 0 {
		if state.NegotiatedProtocol == ProtoGRPC {
			return nil
		}
		return fmt.Errorf("%s: %w", state.NegotiatedProtocol, errNoCertificate)
	}
	id, err := verifyPeer(creds.roots, creds.identity.ClusterID, x509.ExtKeyUsageClientAuth, state)
	if err != nil {
		return err
	}
	for _, role := range roles {
		if id.Role == role {
			return nil
		}
	}
	return fmt.Errorf("%s may not speak %s", id, state.NegotiatedProtocol)
}

// verifyPeer checks that the peer's certificate was issued directly by the cluster's
// authority, is valid now, for this use, and names a member of the cluster.
func verifyPeer(roots *x509.CertPool, clusterID string, usage x509.ExtKeyUsage, state tls.ConnectionState) (Identity, error) {
	if len(state.PeerCertificates) == 0 {
		return Identity{}, errNoCertificate
	}
	leaf := state.PeerCertificates[0]
	opts := x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{usage}}
	if _, err := leaf.Verify(opts); err != nil {
		return Identity{}, fmt.Errorf("verify the peer's certificate: %w", err)
	}
	id, err := ParseIdentity(leaf)
	if err != nil {
		return Identity{}, err
	}
	if id.ClusterID != clusterID {
		return Identity{}, fmt.Errorf("the peer is %s, this is cluster %s", id, clusterID)
	}
	return id, nil
}

// Conn is a connection whose handshake is done.
type Conn struct {
	*tls.Conn
	peer    Identity
	known   bool
	budget  int64  // bytes that may still be read; -1 is no limit
	onClose func() // may be nil; called once or more
}

// Peer says who is at the other end; false when it showed no certificate.
func (c *Conn) Peer() (Identity, bool) { return c.peer, c.known }

// Read is the connection's Read, within the byte budget of a peer without a certificate.
func (c *Conn) Read(b []byte) (int, error) {
	if c.budget < 0 {
		return c.Conn.Read(b)
	}
	if c.budget == 0 {
		_ = c.Close()
		return 0, fmt.Errorf("a client without a certificate sent more than %d bytes", anonymousBytesMax)
	}
	if int64(len(b)) > c.budget {
		b = b[:c.budget]
	}
	n, err := c.Conn.Read(b)
	c.budget -= int64(n)
	return n, err
}

// Close closes the connection.
func (c *Conn) Close() error {
	if c.onClose != nil {
		c.onClose()
	}
	return c.Conn.Close()
}

// Dial opens a connection for one protocol and verifies that the peer is a member of this
// cluster with the wanted role (UNSPECIFIED: any). It ends with ctx, or after five seconds
// for the handshake. With TLS 1.3 a peer that refuses this certificate says so at the
// first Read, not here.
func Dial(ctx context.Context, addr, alpn string, creds *Credentials, want pb.MemberRole) (net.Conn, error) {
	return DialMember(ctx, addr, alpn, creds, want, "")
}

// DialMember is Dial with a check of the peer's member ID; empty is any member.
func DialMember(ctx context.Context, addr, alpn string, creds *Credentials, want pb.MemberRole, memberID string) (net.Conn, error) {
	return dialTLS(ctx, creds.network, addr, clientConfig(creds, alpn, want, memberID))
}

func dialTLS(ctx context.Context, network Network, addr string, cfg *tls.Config) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	raw, err := network.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", addr, err)
	}
	conn := tls.Client(raw, cfg)
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, &handshakeError{addr: addr, cause: err}
	}
	return newConn(conn), nil
}

// handshakeError says that somebody is at the address but no trusted connection came about.
type handshakeError struct {
	addr  string
	cause error
}

func (e *handshakeError) Error() string { return fmt.Sprintf("handshake with %s: %v", e.addr, e.cause) }

func (e *handshakeError) Unwrap() error { return e.cause }

// newConn reads the verified peer out of a finished handshake.
func newConn(conn *tls.Conn) *Conn {
	c := &Conn{Conn: conn, budget: -1}
	if certs := conn.ConnectionState().PeerCertificates; len(certs) > 0 {
		if id, err := ParseIdentity(certs[0]); err == nil {
			c.peer, c.known = id, true
		}
	}
	return c
}
