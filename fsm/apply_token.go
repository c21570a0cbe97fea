package fsm

import (
	"crypto/sha256"
	"crypto/subtle"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

var roleNames = map[pb.MemberRole]string{
	pb.MemberRole_MEMBER_ROLE_SERVER: "a server",
	pb.MemberRole_MEMBER_ROLE_AGENT:  "an agent",
	pb.MemberRole_MEMBER_ROLE_USER:   "a user",
}

func (a *applier) createToken(c *pb.CreateToken) *pb.Fault {
	k := c.GetToken()
	switch {
	case !state.ValidID(k.GetId()):
		return invalid("token.id", "%q cannot be a token's ID", cut(k.GetId()))
	case len(k.SecretSha256) != sha256.Size:
		return invalid("token.secret_sha256", "the hash of the secret is %d bytes long, not %d", len(k.SecretSha256), sha256.Size)
	case roleNames[k.Role] == "":
		return invalid("token.role", "%d is no role of a member", k.Role)
	case k.ExpiresMs <= a.txn.TimeMS():
		return invalid("token.expires_ms", "the token would have expired before it was made")
	case k.ExpiresMs > timeMSMax:
		return invalid("token.expires_ms", "the token would never expire")
	case k.UsedBy != "":
		return invalid("token.used_by", "the token is used already")
	case a.txn.Token(k.Id) != nil:
		return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, "make another", "there is a token %s already", k.Id)
	case a.txn.TokenCount() >= tokensMax:
		return limit("wait until some have expired", "the cluster has %d join tokens already", a.txn.TokenCount())
	}
	a.txn.PutToken(&pb.JoinToken{Id: k.Id, SecretSha256: k.SecretSha256, Role: k.Role, CreatedMs: a.txn.TimeMS(), ExpiresMs: k.ExpiresMs})
	a.event("token.created", "", "", "", "token %s admits %s", k.Id, roleNames[k.Role])
	return nil
}

// anotherToken is the hint of every refused join.
const anotherToken = "make another token with llmos token create"

func denied(hint, format string, args ...any) *pb.Fault {
	return state.Refuse(pb.ErrorKind_ERROR_KIND_DENIED, hint, format, args...)
}

// consumeToken admits one member, once. Nothing but the token's existence is told to a caller
// who does not know its secret.
func (a *applier) consumeToken(c *pb.ConsumeToken, r *pb.Result) *pb.Fault {
	if !state.ValidID(c.MemberId) {
		return invalid("member_id", "%q cannot be a member's ID", cut(c.MemberId))
	}
	k := a.txn.Token(c.Id)
	if k == nil {
		return denied(anotherToken, "this cluster has no join token %q", cut(c.Id))
	}
	if subtle.ConstantTimeCompare(k.SecretSha256, c.SecretSha256) != 1 {
		return denied("copy the whole token, as llmos token create printed it", "the secret of join token %s is wrong", k.Id)
	}
	if k.UsedBy != "" {
		return denied("a token admits one member; "+anotherToken, "join token %s was used by %s already", k.Id, k.UsedBy)
	}
	if a.txn.TimeMS() >= k.ExpiresMs {
		return denied(anotherToken+", with a longer --ttl if it is needed", "join token %s has expired", k.Id)
	}
	if c.Role != k.Role {
		role := roleNames[c.Role]
		if role == "" {
			return invalid("role", "%d is no role of a member", c.Role)
		}
		return denied(anotherToken+" and the --role that joins", "join token %s admits %s, not %s", k.Id, roleNames[k.Role], role)
	}
	a.txn.PutToken(&pb.JoinToken{Id: k.Id, SecretSha256: k.SecretSha256, Role: k.Role, CreatedMs: k.CreatedMs, ExpiresMs: k.ExpiresMs,
		UsedBy: c.MemberId, UsedMs: a.txn.TimeMS()})
	a.event("member.joined", "", "", "", "%s joined as %s with token %s", c.MemberId, roleNames[k.Role], k.Id)
	r.ClusterId = a.txn.Cluster().GetClusterId()
	return nil
}
