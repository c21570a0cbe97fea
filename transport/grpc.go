package transport

import (
	"context"
	"errors"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"

	pb "llmos/proto/llmos/v1"
)

// What both ends of a gRPC connection must agree on. A client that pings more often than
// keepaliveMinTime is cut off by the server, so keepaliveEvery is well above it.
const (
	MessageBytesMax = 16 << 20 // one gRPC message, either direction

	keepaliveEvery   = 20 * time.Second // of silence, after which an end asks whether the other is there
	keepaliveTimeout = 10 * time.Second // for the answer; then the connection is dead
	keepaliveMinTime = 10 * time.Second // the server's bound on a client's pings

	streamsMax      = 4096     // concurrent calls of one connection
	headerBytesMax  = 64 << 10 // of one call's headers
	connectTimeout  = 5 * time.Second
	reconnectMin    = 50 * time.Millisecond // small, because a failover waits for it
	reconnectMax    = 2 * time.Second
	reconnectFactor = 1.6
	reconnectJitter = 0.2
)

// AuthInfo is what gRPC knows about the peer of a connection that came through a Port.
type AuthInfo struct {
	credentials.CommonAuthInfo
	Peer  Identity
	Known bool // false: the client has no certificate
}

// AuthType names the scheme for gRPC.
func (AuthInfo) AuthType() string { return "llmos-mtls" }

// handshaken are gRPC credentials for connections whose TLS handshake is done already.
type handshaken struct{}

// GRPCServerCredentials are for a grpc.Server that serves Port.Listener(ProtoGRPC). Any
// other connection is refused.
func GRPCServerCredentials() credentials.TransportCredentials { return handshaken{} }

func (handshaken) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := raw.(*Conn)
	if !ok {
		return nil, nil, errors.New("the connection did not come through a transport.Port")
	}
	id, known := c.Peer()
	return c, AuthInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, Peer: id, Known: known}, nil
}

func (h handshaken) ClientHandshake(_ context.Context, _ string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return h.ServerHandshake(raw)
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (handshaken) Clone() credentials.TransportCredentials { return handshaken{} }

func (handshaken) OverrideServerName(string) error { return nil }

// ServerOptions gives the options every grpc.Server of llmos starts from: credentials for
// a Port, keepalive, and bounds on messages, headers and concurrent calls.
func ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(GRPCServerCredentials()),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime, PermitWithoutStream: true}),
		grpc.MaxRecvMsgSize(MessageBytesMax),
		grpc.MaxSendMsgSize(MessageBytesMax),
		grpc.MaxConcurrentStreams(streamsMax),
		grpc.MaxHeaderListSize(headerBytesMax),
		grpc.ConnectionTimeout(connectTimeout),
	}
}

// clientOptions are the other half of ServerOptions.
func clientOptions() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(handshaken{}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveEvery, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(MessageBytesMax), grpc.MaxCallSendMsgSize(MessageBytesMax)),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout, Backoff: backoff.Config{
			BaseDelay: reconnectMin, MaxDelay: reconnectMax, Multiplier: reconnectFactor, Jitter: reconnectJitter}}),
		// No service configuration from names, and no idle mode that would end keepalive.
		grpc.WithDisableServiceConfig(),
		grpc.WithIdleTimeout(0),
	}
}

// NewClient makes a gRPC connection to a member with the wanted role (UNSPECIFIED: any)
// of this cluster. It returns at once and connects in the background; the caller closes it.
func NewClient(addr string, creds *Credentials, want pb.MemberRole, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	return NewMemberClient(addr, creds, want, "", opts...)
}

// NewMemberClient is NewClient with a check of the peer's member ID; empty is any member.
func NewMemberClient(addr string, creds *Credentials, want pb.MemberRole, memberID string, opts ...grpc.DialOption) (*grpc.ClientConn, error) {
	dial := func(ctx context.Context, addr string) (net.Conn, error) {
		return DialMember(ctx, addr, ProtoGRPC, creds, want, memberID)
	}
	all := append(clientOptions(), grpc.WithContextDialer(dial))
	return grpc.NewClient("passthrough:///"+addr, append(all, opts...)...)
}

// PeerIdentity says who is at the other end of the call that ctx belongs to; false when
// it has no certificate or did not come through this package.
func PeerIdentity(ctx context.Context) (Identity, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return Identity{}, false
	}
	info, ok := p.AuthInfo.(AuthInfo)
	if !ok || !info.Known {
		return Identity{}, false
	}
	return info.Peer, true
}
