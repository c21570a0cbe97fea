package api

import (
	"bytes"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// TestJoin makes tokens through the API and joins with them through transport, by a
// follower; then it tries everything that must be refused.
func TestJoin(t *testing.T) {
	r := newRig(t)
	r.server("s-000000000001")
	follower := r.server("s-000000000002")
	api := pb.NewClusterServiceClient(r.conn(follower, roleUser, "jane"))
	token := func(role pb.MemberRole) transport.Token {
		t.Helper()
		made, err := api.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{Role: role})
		if err != nil {
			t.Fatal(err)
		}
		if life := time.Until(time.UnixMilli(made.ExpiresMs)); life < 50*time.Minute || life > 70*time.Minute {
			t.Errorf("a token without a life lives for %v", life)
		}
		tok, err := transport.ParseToken(made.Token)
		if err != nil {
			t.Fatal(err)
		}
		return tok
	}
	join := func(tok transport.Token, role pb.MemberRole, id string) (*transport.Joined, error) {
		return transport.Join(testContext(t), transport.JoinRequest{
			Addrs: []string{follower.addr}, Token: tok, Role: role, MemberID: id, Hosts: []string{"127.0.0.1"}})
	}
	agentToken := token(roleAgent)
	first, err := join(agentToken, roleAgent, "n-000000000001")
	if err != nil {
		t.Fatal(err)
	}
	if id := first.Credentials.Identity(); id.Role != roleAgent || id.MemberID != "n-000000000001" || len(first.CAKeyDER) > 0 {
		t.Errorf("an agent joined as %v, with %d bytes of the authority's key", id, len(first.CAKeyDER))
	}
	again, err := join(agentToken, roleAgent, "n-000000000001")
	if err != nil || again == nil {
		t.Errorf("the same agent with the same token: %v", err)
	}
	for _, away := range []time.Duration{2 * joinRepeat, -2 * joinRepeat} { // the second: it was used by a clock that ran ahead
		r.forward(away)
		if _, err := join(agentToken, roleAgent, "n-000000000001"); err == nil {
			t.Errorf("the same agent was admitted again %s later with the token it had used", away)
		}
	}
	r.forward(0)
	if j, err := join(token(roleServer), roleServer, "s-000000000003"); err != nil || len(j.CAKeyDER) == 0 || len(j.TaskSecret) == 0 {
		t.Errorf("a server: %v", err)
	}
	if _, err := join(token(roleUser), roleUser, "joe"); err != nil {
		t.Errorf("a person: %v", err)
	}
	forged := token(roleAgent)
	forged.Secret = bytes.Repeat([]byte{7}, len(forged.Secret))
	r.node("n-000000000007", "alive", "127.0.0.1:1", 0)
	denied := pb.ErrorKind_ERROR_KIND_DENIED
	for _, c := range []struct {
		name string
		tok  transport.Token
		role pb.MemberRole
		id   string
		want pb.ErrorKind
	}{
		{"a token used twice", agentToken, roleAgent, "n-000000000002", denied},
		{"a forged secret", forged, roleAgent, "n-000000000002", denied},
		{"another role", token(roleAgent), roleServer, "s-000000000009", denied},
		{"another kind of ID", token(roleUser), roleUser, "s-000000000009", kindInvalid},
		{"a live node's ID", token(roleAgent), roleAgent, "n-000000000007", pb.ErrorKind_ERROR_KIND_CONFLICT},
		{"a present server's ID", token(roleServer), roleServer, "s-000000000001", pb.ErrorKind_ERROR_KIND_CONFLICT},
	} {
		_, err := join(c.tok, c.role, c.id)
		wantKind(t, c.name, err, c.want)
	}
}

// TestJoinBounds holds the bounds on tokens and requests.
func TestJoinBounds(t *testing.T) {
	r := newRig(t)
	server := r.server("s-000000000001")
	api := pb.NewClusterServiceClient(r.conn(server, roleUser, "jane"))
	_, err := api.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{Role: roleAgent, TtlMs: -1})
	wantKind(t, "a negative life", err, kindInvalid)
	_, err = api.CreateJoinToken(testContext(t), &pb.CreateJoinTokenRequest{})
	wantKind(t, "no role", err, kindInvalid)
	joins := pb.NewJoinServiceClient(r.conn(server, roleNone, ""))
	good := &pb.JoinRequest{TokenId: "t-1", Secret: []byte("secret"), Role: roleAgent, MemberId: "n-000000000001"}
	_, err = joins.Join(testContext(t), good)
	wantKind(t, "no certificate request", err, kindInvalid)
	refused := 0
	for range int(2 * addrJoinsBurst) {
		if _, err := joins.Join(testContext(t), good); fault.Kind(err) == kindLimit {
			refused++
		}
	}
	if refused == 0 {
		t.Error("joins are not limited")
	}
	if _, err := api.ListNodes(testContext(t), &pb.ListNodesRequest{}); err != nil {
		t.Errorf("other calls suffer from it: %v", err)
	}
}

// TestRenew gives the caller's own identity and no other, on any server.
func TestRenew(t *testing.T) {
	r := newRig(t)
	r.server("s-000000000001")
	follower := r.server("s-000000000002")
	r.setLeader("")
	creds := r.credentials(roleAgent, "n-000000000001")
	conn, err := transport.NewClient(follower.addr, creds, roleServer)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	csr, err := creds.CSR()
	if err != nil {
		t.Fatal(err)
	}
	resp, err := pb.NewJoinServiceClient(conn).Renew(testContext(t), &pb.RenewRequest{CsrDer: csr})
	if err != nil {
		t.Fatal(err)
	}
	before := creds.Identity()
	if err := creds.Replace(resp.CertificateDer); err != nil || creds.Identity() != before {
		t.Errorf("renewed as %v: %v", creds.Identity(), err)
	}
	_, err = pb.NewJoinServiceClient(conn).Renew(testContext(t), &pb.RenewRequest{CsrDer: []byte("junk")})
	wantKind(t, "junk", err, kindInvalid)
}

// TestBuckets checks the arithmetic of the limiter on a clock of its own.
func TestBuckets(t *testing.T) {
	now := time.Unix(0, 0)
	l := newLimiter(func() time.Time { return now })
	admitted := func(n int) (ok int) {
		for range n {
			if l.admit(t.Context()) == nil {
				ok++
			}
		}
		return ok
	}
	if got := admitted(1000); got != addrJoinsBurst {
		t.Errorf("%d at once, want %v", got, addrJoinsBurst)
	}
	now = now.Add(time.Second)
	if got := admitted(1000); got != addrJoinsPerSecond {
		t.Errorf("%d a second later, want %v", got, addrJoinsPerSecond)
	}
	now = now.Add(-time.Hour)
	if got := admitted(10); got != 0 {
		t.Errorf("%d after the clock went back", got)
	}
	for i := range 2 * maxJoinAddrs {
		l.addrs[string(rune(i))] = bucket{at: now}
	}
	admitted(1)
	if len(l.addrs) > maxJoinAddrs {
		t.Errorf("%d addresses are remembered", len(l.addrs))
	}
}
