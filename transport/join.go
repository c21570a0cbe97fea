package transport

import (
	"context"
	"crypto"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	joinTime        = 30 * time.Second // for all attempts, when the caller's context sets no end
	joinAttemptTime = 10 * time.Second // for one server's answer
	joinDialRounds  = 3                // passes over the addresses when nobody answers at all
	joinAddrsMax    = 32               // addresses tried in one pass, with those that servers name
	joinPauseMin    = 200 * time.Millisecond
	joinPauseMax    = 2 * time.Second
	gossipKeyBytes  = 32
)

// JoinRequest asks a cluster to admit this process.
type JoinRequest struct {
	Addrs    []string // servers to ask, host:port; any one that answers will do
	Token    Token
	Role     pb.MemberRole
	MemberID string   // chosen by the joiner and kept, so that a repeated join is the same member
	Hosts    []string // names and addresses it will serve on; may be empty
}

// Joined is what a member receives. GossipKey is for servers and agents, CAKeyDER and
// TaskSecret for servers alone.
type Joined struct {
	Credentials *Credentials
	ClusterID   string
	ServerAddrs []string
	GossipKey   []byte
	CAKeyDER    []byte
	TaskSecret  []byte
}

// errPin marks a server whose authority is not the one that the token names.
var errPin = errors.New("the authority is not the one that the token names")

// Join gets a certificate from the first of the servers that can give one. The token's
// secret is sent only over a connection to a server whose chain leads to the authority
// that the token pins. It follows NOT_LEADER faults and tries again until ctx ends or
// 30 seconds have passed while the cluster says that it cannot decide now. Every error is
// a fault.
func Join(ctx context.Context, req JoinRequest) (*Joined, error) {
	id := Identity{ClusterID: req.Token.ClusterID, Role: req.Role, MemberID: req.MemberID}
	if err := id.Validate(); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "join the cluster: %w", err)
	}
	if len(req.Addrs) == 0 {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "join cluster %s: no server address is given", id.ClusterID).
			Hint("name a server with --join host:port")
	}
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, joinTime)
		defer cancel()
	}
	j := &joiner{req: req, id: id}
	if err := j.prepare(); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "join cluster %s: %w", id.ClusterID, err)
	}
	return j.run(ctx)
}

// joiner is one Join. One key and so one request serve all attempts: a repeated attempt
// by the same member with the same token is the same join.
type joiner struct {
	req  JoinRequest
	id   Identity
	key  crypto.Signer
	body *pb.JoinRequest
}

func (j *joiner) prepare() (err error) {
	if j.key, err = NewKey(); err != nil {
		return fmt.Errorf("make a private key: %w", err)
	}
	csr, err := NewCSR(j.key)
	if err != nil {
		return err
	}
	j.body = &pb.JoinRequest{TokenId: j.req.Token.ID, Secret: j.req.Token.Secret, Role: j.req.Role,
		MemberId: j.req.MemberID, CsrDer: csr, Hosts: j.req.Hosts}
	return nil
}

// run makes passes over the addresses until one admits, one refuses for good, or the time is over.
func (j *joiner) run(ctx context.Context) (*Joined, error) {
	pause := joinPauseMin
	var all joinErrors
	for round := 1; ; round++ {
		joined, errs := j.pass(ctx)
		if joined != nil {
			return joined, nil
		}
		if ctx.Err() != nil && all.answer != nil {
			errs.answer = nil // an attempt that ran out of our own time answers nothing
		}
		all.merge(errs)
		if all.final != nil || (all.answer == nil && round >= joinDialRounds) {
			return nil, all.fault(j)
		}
		select {
		case <-ctx.Done():
			return nil, all.fault(j)
		case <-time.After(pause):
		}
		pause = min(2*pause, joinPauseMax)
	}
}

// pass asks each address once, and the leaders that the answers name right after.
func (j *joiner) pass(ctx context.Context) (*Joined, joinErrors) {
	var errs joinErrors
	queue := append([]string(nil), j.req.Addrs...)
	asked := map[string]bool{}
	for len(queue) > 0 && len(asked) < joinAddrsMax && ctx.Err() == nil {
		addr := queue[0]
		queue = queue[1:]
		if asked[addr] {
			continue
		}
		asked[addr] = true
		joined, err := j.ask(ctx, addr)
		if err == nil {
			return joined, errs
		}
		if leader := errs.add(addr, err); leader != "" {
			queue = append([]string{leader}, queue...)
		}
		if errs.final != nil {
			break
		}
	}
	return nil, errs
}

// ask makes one attempt. An error is a *dialError before a verified connection stands,
// else what the server answered.
func (j *joiner) ask(ctx context.Context, addr string) (*Joined, error) {
	ctx, cancel := context.WithTimeout(ctx, joinAttemptTime)
	defer cancel()
	conn, err := dialTLS(ctx, &host{}, addr, j.config())
	if err != nil {
		return nil, &dialError{err}
	}
	defer conn.Close()
	// The one verified connection is used; when it breaks, the attempt is over.
	once := make(chan net.Conn, 1)
	once <- conn
	dial := func(context.Context, string) (net.Conn, error) {
		select {
		case c := <-once:
			return c, nil
		default:
			return nil, errors.New("the connection broke")
		}
	}
	client, err := grpc.NewClient("passthrough:///"+addr, append(clientOptions(), grpc.WithContextDialer(dial))...)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	defer client.Close()
	resp, err := pb.NewJoinServiceClient(client).Join(ctx, j.body)
	if err != nil {
		return nil, err
	}
	return j.accept(addr, resp)
}

// config verifies the server by the token alone: some certificate of its chain is the
// pinned authority, and its own was issued by that to a server of the cluster.
func (j *joiner) config() *tls.Config {
	cfg := baseConfig()
	cfg.NextProtos = []string{ProtoGRPC}
	cfg.InsecureSkipVerify = true
	cfg.VerifyConnection = func(state tls.ConnectionState) error {
		roots := x509.NewCertPool()
		found := false
		for _, cert := range state.PeerCertificates {
			if cert.IsCA && PinOf(cert) == j.req.Token.CAPin {
				roots.AddCert(cert)
				found = true
			}
		}
		if !found {
			return errPin
		}
		id, err := verifyPeer(roots, j.id.ClusterID, x509.ExtKeyUsageServerAuth, state)
		if err != nil {
			return err
		}
		if id.Role != pb.MemberRole_MEMBER_ROLE_SERVER {
			return fmt.Errorf("the peer is %s, want a server", id)
		}
		if state.NegotiatedProtocol != ProtoGRPC {
			return fmt.Errorf("the peer does not speak %s", ProtoGRPC)
		}
		return nil
	}
	return cfg
}

// accept checks what the server gave before anything of it is used or kept.
func (j *joiner) accept(addr string, resp *pb.JoinResponse) (*Joined, error) {
	bad := func(err error) error {
		return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "join cluster %s: the answer of %s is wrong: %w", j.id.ClusterID, addr, err)
	}
	creds, err := NewCredentials(resp.CertificateDer, j.key, resp.CaCertificateDer)
	if err != nil {
		return nil, bad(err)
	}
	if PinOf(creds.CA()) != j.req.Token.CAPin {
		return nil, bad(errPin)
	}
	if creds.Identity() != j.id {
		return nil, bad(fmt.Errorf("it certifies %s, not %s", creds.Identity(), j.id))
	}
	if resp.ClusterId != j.id.ClusterID {
		return nil, bad(fmt.Errorf("it is for cluster %s", resp.ClusterId))
	}
	server := j.id.Role == pb.MemberRole_MEMBER_ROLE_SERVER
	if (server || j.id.Role == pb.MemberRole_MEMBER_ROLE_AGENT) && len(resp.GossipKey) != gossipKeyBytes {
		return nil, bad(fmt.Errorf("its gossip key has %d bytes, not %d", len(resp.GossipKey), gossipKeyBytes))
	}
	if server && (len(resp.CaKeyDer) == 0 || len(resp.TaskSecret) == 0) {
		return nil, bad(errors.New("it lacks the authority's key or the task secret"))
	}
	return &Joined{Credentials: creds, ClusterID: resp.ClusterId, ServerAddrs: resp.ServerAddrs, GossipKey: resp.GossipKey,
		CAKeyDER: resp.CaKeyDer, TaskSecret: resp.TaskSecret}, nil
}
