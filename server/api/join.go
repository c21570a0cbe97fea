package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"log/slog"
	"net"
	"strings"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

const (
	csrBytesMax    = 16 << 10
	secretBytesMax = 256
	hostsMax       = 32
	hostBytesMax   = 253
	joinRepeat     = time.Minute // after a token was used, in which the same member may ask again
	serverIDPrefix = "s-"
	agentIDPrefix  = "n-"
)

// join serves JoinService.
type join struct {
	pb.UnimplementedJoinServiceServer
	b   Backend
	log *slog.Logger
}

// Join admits the bearer of a token: it uses the token up and then issues a certificate
// for the role that the token names. Everything that could be refused is looked at before
// the token is used.
func (s *join) Join(ctx context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	id := transport.Identity{ClusterID: s.b.ClusterID(), Role: req.GetRole(), MemberID: req.GetMemberId()}
	if err := checkJoin(req, id); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(req.GetSecret())
	used, err := s.mayTake(ctx, req, id, sum)
	if err == nil && !used {
		err = s.consume(ctx, req, sum)
	}
	if err != nil {
		s.log.Warn("join refused", "member", id.MemberID, "role", transport.RoleName(id.Role), "token", req.GetTokenId(), "err", err)
		return nil, err
	}
	cert, err := s.b.IssueCertificate(req.GetCsrDer(), id, req.GetHosts())
	if err != nil {
		return nil, err
	}
	s.log.Info("member joined", "member", id.MemberID, "role", transport.RoleName(id.Role), "token", req.GetTokenId())
	resp := s.b.JoinMaterial(id.Role)
	resp.ClusterId, resp.CertificateDer = id.ClusterID, cert
	return resp, nil
}

func (s *join) consume(ctx context.Context, req *pb.JoinRequest, sum [sha256.Size]byte) error {
	res, err := propose(ctx, s.b, &pb.Command{Op: &pb.Command_ConsumeToken{ConsumeToken: &pb.ConsumeToken{
		Id: req.GetTokenId(), SecretSha256: sum[:], Role: req.GetRole(), MemberId: req.GetMemberId(),
	}}})
	if err != nil {
		return err
	}
	if res.ClusterId != "" && res.ClusterId != s.b.ClusterID() {
		return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "the state belongs to cluster %s, this server to %s", res.ClusterId, s.b.ClusterID())
	}
	return nil
}

// checkJoin looks at the request alone.
func checkJoin(req *pb.JoinRequest, id transport.Identity) error {
	if err := id.Validate(); err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%w", err).At("member_id", 0)
	}
	server, agent := strings.HasPrefix(id.MemberID, serverIDPrefix), strings.HasPrefix(id.MemberID, agentIDPrefix)
	if server != (id.Role == pb.MemberRole_MEMBER_ROLE_SERVER) || agent != (id.Role == pb.MemberRole_MEMBER_ROLE_AGENT) {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%q is not an ID for role %s", id.MemberID, transport.RoleName(id.Role)).
			Hint("IDs of servers begin with %s, of agents with %s, of people with neither", serverIDPrefix, agentIDPrefix).At("member_id", 0)
	}
	if len(req.GetTokenId()) > nameMax || len(req.GetSecret()) == 0 || len(req.GetSecret()) > secretBytesMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "that is not a join token").Hint("copy the whole token").At("token_id", 0)
	}
	if len(req.GetHosts()) > hostsMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%d hosts are too many; the most is %d", len(req.GetHosts()), hostsMax).At("hosts", 0)
	}
	for _, h := range req.GetHosts() {
		if h == "" || len(h) > hostBytesMax {
			return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%.40q is not the name of a host", h).At("hosts", 0)
		}
	}
	return checkCSR(req.GetCsrDer())
}

func checkCSR(der []byte) error {
	if len(der) > csrBytesMax {
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "the certificate request has %d bytes; the most is %d", len(der), csrBytesMax).At("csr_der", 0)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err == nil {
		err = csr.CheckSignature()
	}
	if err != nil {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the certificate request cannot be used: %w", err).At("csr_der", 0)
	}
	return nil
}

// mayTake keeps a token from being used to speak for a member that is alive. A node that
// has been away for longer than its certificate comes back with a new token under its old
// ID; a server does not: without its log it must not vote again as itself. used says that
// the token was used up by this very join, whose answer was lost on its way.
func (s *join) mayTake(ctx context.Context, req *pb.JoinRequest, id transport.Identity, sum [sha256.Size]byte) (used bool, err error) {
	st, err := s.b.Read(ctx)
	if err != nil {
		return false, err
	}
	if n := st.Node(id.MemberID); n != nil && n.State == pb.NodeState_NODE_STATE_READY {
		return false, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "node %s (%s) is a member and answers", n.Id, n.Name).
			Hint("give each agent a data directory of its own")
	}
	for _, other := range s.b.ClusterStatus(ctx, true).GetServers() {
		if other.Id == id.MemberID {
			return false, fault.New(pb.ErrorKind_ERROR_KIND_CONFLICT, "server %s is a member already", id.MemberID).
				Hint("start the new server with an empty data directory; it takes an ID of its own")
		}
	}
	tok := st.Token(req.GetTokenId())
	if tok == nil {
		return false, nil
	}
	// The time of use is the cluster's, which a clock that ran ahead may have left far in
	// the future: only a use that is near by this clock, before or after it, is this join's.
	age := s.b.Now().Sub(time.UnixMilli(tok.UsedMs)).Abs()
	return tok.UsedBy == id.MemberID && tok.Role == id.Role &&
		subtle.ConstantTimeCompare(tok.SecretSha256, sum[:]) == 1 &&
		age < joinRepeat, nil
}

// Renew issues a new certificate for the caller's own identity, on whichever server is
// asked: every server holds the authority's key.
func (s *join) Renew(ctx context.Context, req *pb.RenewRequest) (*pb.RenewResponse, error) {
	id, ok := Caller(ctx)
	if !ok {
		return nil, denied("a certificate is renewed with the one that is still good")
	}
	if err := checkCSR(req.GetCsrDer()); err != nil {
		return nil, err
	}
	cert, err := s.b.IssueCertificate(req.GetCsrDer(), id, s.hostsOf(ctx, id))
	if err != nil {
		return nil, err
	}
	return &pb.RenewResponse{CertificateDer: cert}, nil
}

// hostsOf gives the host that a member is known by. Connections are verified by identity,
// so the name is for people and tools.
func (s *join) hostsOf(ctx context.Context, id transport.Identity) []string {
	addr := ""
	switch id.Role {
	case pb.MemberRole_MEMBER_ROLE_AGENT:
		addr = s.b.Stale().Node(id.MemberID).GetAddr()
	case pb.MemberRole_MEMBER_ROLE_SERVER:
		for _, other := range s.b.ClusterStatus(ctx, true).GetServers() {
			if other.Id == id.MemberID {
				addr = other.Addr
			}
		}
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return nil
	}
	return []string{host}
}
