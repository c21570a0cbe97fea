package transport_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/ca"
	"llmos/transport"
)

// admitter is a server's join as far as a joiner can see: one token, good once per member.
type admitter struct {
	ca     *ca.CA
	record *pb.JoinToken

	mu      sync.Mutex
	secrets [][]byte // every secret that arrived
	spoil   func(*pb.JoinResponse)
	refuse  []error // answered first, in order
}

func (a *admitter) join(_ context.Context, req *pb.JoinRequest) (*pb.JoinResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.secrets = append(a.secrets, req.Secret)
	if len(a.refuse) > 0 {
		err := a.refuse[0]
		a.refuse = a.refuse[1:]
		return nil, err
	}
	sum := sha256.Sum256(req.Secret)
	if req.TokenId != a.record.Id || !bytes.Equal(sum[:], a.record.SecretSha256) || req.Role != a.record.Role {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "the join token is not known")
	}
	if a.record.UsedBy != "" && a.record.UsedBy != req.MemberId {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_DENIED, "the join token has been used by %s", a.record.UsedBy).
			Hint("make another with `llmos token create`")
	}
	a.record.UsedBy = req.MemberId
	id := transport.Identity{ClusterID: a.ca.ClusterID(), Role: req.Role, MemberID: req.MemberId}
	der, err := a.ca.Issue(req.CsrDer, id, req.Hosts, transport.NodeCertificateLife, time.Now())
	if err != nil {
		return nil, err
	}
	resp := &pb.JoinResponse{ClusterId: a.ca.ClusterID(), CertificateDer: der, CaCertificateDer: a.ca.CertificateDER(),
		ServerAddrs: []string{"127.0.0.1:1"}, GossipKey: make([]byte, 32)}
	if req.Role == server {
		if resp.CaKeyDer, err = a.ca.KeyDER(); err != nil {
			return nil, err
		}
		resp.TaskSecret = []byte("task secret")
	}
	if a.spoil != nil {
		a.spoil(resp)
	}
	return resp, nil
}

func (a *admitter) seen() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.secrets)
}

// newCluster serves an admitter and gives its address and a token for the role.
func newCluster(t *testing.T, role pb.MemberRole) (*admitter, string, transport.Token) {
	t.Helper()
	authority := newCA(t, cluster)
	token, record, err := authority.NewToken(role, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	a := &admitter{ca: authority, record: record}
	return a, serveGRPC(t, member(t, authority, server, "s-1"), &peers{join: a.join}), token
}

// unused gives an address where nobody listens.
func unused(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func TestJoin(t *testing.T) {
	for _, role := range []pb.MemberRole{server, agent, user} {
		a, addr, token := newCluster(t, role)
		req := transport.JoinRequest{Addrs: []string{unused(t), addr}, Token: token, Role: role, MemberID: "m-1", Hosts: []string{"127.0.0.1", "node.example"}}
		got, err := transport.Join(within(t), req)
		if err != nil {
			t.Fatalf("%v: %v", role, err)
		}
		if id := got.Credentials.Identity(); id != (transport.Identity{ClusterID: cluster, Role: role, MemberID: "m-1"}) {
			t.Errorf("the certificate is for %v", id)
		}
		if got.ClusterID != cluster || len(got.ServerAddrs) != 1 || (role == server) != (len(got.CAKeyDER) > 0) {
			t.Errorf("%v joined with %+v", role, got)
		}
		// The certificate is good for the cluster's other services.
		client, err := transport.NewClient(addr, got.Credentials, server)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := pb.NewJoinServiceClient(client).Renew(within(t), &pb.RenewRequest{})
		if err != nil || string(resp.CertificateDer) != got.Credentials.Identity().String() {
			t.Errorf("%v: renew gives %q, %v", role, resp.GetCertificateDer(), err)
		}
		client.Close()
		// The same member may repeat, another may not.
		if _, err := transport.Join(within(t), req); err != nil {
			t.Errorf("a repeated join: %v", err)
		}
		req.MemberID = "m-2"
		_, err = transport.Join(within(t), req)
		if f := fault.From(err); f == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_DENIED || !strings.Contains(f.Fault.Message, "used by m-1") {
			t.Errorf("a second use gives %v", err)
		}
		if n := a.seen(); n != 3 {
			t.Errorf("the server saw %d requests, want 3: a refusal must not be repeated", n)
		}
	}
}

// TestJoinPinsTheAuthority: the secret must not leave when the server is not the token's.
func TestJoinPinsTheAuthority(t *testing.T) {
	_, _, token := newCluster(t, agent)
	impostor, addr, _ := newCluster(t, agent) // same cluster ID, its own authority
	_, err := transport.Join(within(t), transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: agent, MemberID: "n-1"})
	f := fault.From(err)
	want := "the cluster at " + addr + " does not have the certificate authority that the token names"
	if f == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_DENIED || f.Fault.Message != want || f.Fault.Hint == "" {
		t.Errorf("error is %v, want %q", err, want)
	}
	if n := impostor.seen(); n != 0 {
		t.Fatalf("the impostor saw %d requests", n)
	}
}

// TestJoinTrustsServersAlone: a stolen agent's certificate must not collect secrets, even
// with the right authority in its chain.
func TestJoinTrustsServersAlone(t *testing.T) {
	authority := newCA(t, cluster)
	token, record, err := authority.NewToken(agent, 0, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	thief := &admitter{ca: authority, record: record}
	addr := serveGRPC(t, member(t, authority, agent, "n-9"), &peers{join: thief.join})
	_, err = transport.Join(within(t), transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: agent, MemberID: "n-1"})
	if f := fault.From(err); f == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_DENIED || !strings.Contains(f.Fault.Message, "want a server") {
		t.Errorf("error is %v", err)
	}
	if n := thief.seen(); n != 0 {
		t.Fatalf("the thief saw %d requests", n)
	}
}

func TestJoinFollowsTheLeader(t *testing.T) {
	leader, leaderAddr, token := newCluster(t, agent)
	follower := &admitter{ca: leader.ca, record: leader.record}
	notLeader := fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "s-2 is not the leader")
	notLeader.Fault.LeaderAddr = leaderAddr
	noLeader := fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "there is no leader now")
	follower.refuse = []error{noLeader, notLeader}
	addr := serveGRPC(t, member(t, leader.ca, server, "s-2"), &peers{join: follower.join})
	if _, err := transport.Join(within(t), transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: agent, MemberID: "n-1"}); err != nil {
		t.Fatal(err)
	}
	if leader.seen() != 1 || follower.seen() != 2 {
		t.Fatalf("the leader saw %d requests, the follower %d", leader.seen(), follower.seen())
	}
}

func TestJoinSaysWhyNot(t *testing.T) {
	_, _, token := newCluster(t, agent)
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	go func() {
		for {
			c, err := plain.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.Close()
		}
	}()
	nobody := unused(t)
	good := transport.JoinRequest{Addrs: []string{nobody}, Token: token, Role: agent, MemberID: "n-1"}
	for _, c := range []struct {
		name   string
		change func(*transport.JoinRequest)
		kind   pb.ErrorKind
		says   string
	}{
		{"nobody", func(*transport.JoinRequest) {}, pb.ErrorKind_ERROR_KIND_UNAVAILABLE, "nobody answers at " + nobody},
		{"not llmos", func(r *transport.JoinRequest) { r.Addrs = []string{plain.Addr().String()} }, pb.ErrorKind_ERROR_KIND_DENIED, "cannot verify the server at " + plain.Addr().String()},
		{"no address", func(r *transport.JoinRequest) { r.Addrs = nil }, pb.ErrorKind_ERROR_KIND_INVALID, "no server address"},
		{"no member", func(r *transport.JoinRequest) { r.MemberID = "" }, pb.ErrorKind_ERROR_KIND_INVALID, "the member ID is empty"},
		{"no role", func(r *transport.JoinRequest) { r.Role = anyRole }, pb.ErrorKind_ERROR_KIND_INVALID, "none of server, agent, user"},
	} {
		req := good
		c.change(&req)
		_, err := transport.Join(within(t), req)
		if f := fault.From(err); f == nil || f.Fault.Kind != c.kind || !strings.Contains(f.Fault.Message, c.says) {
			t.Errorf("%s: error is %v, want %v %q", c.name, err, c.kind, c.says)
		}
	}
}

func TestJoinGivesUpWithTheLastAnswer(t *testing.T) {
	a, addr, token := newCluster(t, agent)
	for range 100 {
		a.refuse = append(a.refuse, fault.New(pb.ErrorKind_ERROR_KIND_NOT_LEADER, "there is no leader now"))
	}
	// The context ends when the server has refused twice: more attempts, but no wait for 30 s.
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	go func() {
		eventually(t, "two requests", func() bool { return a.seen() >= 2 })
		cancel()
	}()
	_, err := transport.Join(ctx, transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: agent, MemberID: "n-1"})
	if f := fault.From(err); f == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_UNAVAILABLE || !strings.Contains(f.Fault.Message, "there is no leader now") {
		t.Fatalf("error is %v", err)
	}
}

func TestJoinChecksTheAnswer(t *testing.T) {
	for name, spoil := range map[string]func(*testing.T, *admitter, *pb.JoinResponse){
		"foreign authority": func(t *testing.T, _ *admitter, r *pb.JoinResponse) {
			r.CaCertificateDer = newCA(t, cluster).CertificateDER()
		},
		"foreign key": func(t *testing.T, a *admitter, r *pb.JoinResponse) {
			key, err := transport.NewKey()
			if err != nil {
				t.Error(err)
			}
			r.CertificateDer = issue(t, a.ca, key, agent, "n-1", time.Now(), transport.NodeCertificateLife)
		},
		"no certificate":   func(_ *testing.T, _ *admitter, r *pb.JoinResponse) { r.CertificateDer = nil },
		"other cluster":    func(_ *testing.T, _ *admitter, r *pb.JoinResponse) { r.ClusterId = "c-other" },
		"short gossip key": func(_ *testing.T, _ *admitter, r *pb.JoinResponse) { r.GossipKey = r.GossipKey[:16] },
	} {
		a, addr, token := newCluster(t, agent)
		a.spoil = func(r *pb.JoinResponse) { spoil(t, a, r) }
		_, err := transport.Join(within(t), transport.JoinRequest{Addrs: []string{addr}, Token: token, Role: agent, MemberID: "n-1"})
		if fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INTERNAL || !strings.Contains(err.Error(), "the answer of "+addr+" is wrong") {
			t.Errorf("%s: error is %v", name, err)
		}
	}
}
