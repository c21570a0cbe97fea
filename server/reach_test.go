package server

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// TestRaftSpeaksToTheServerItMeans has the address of one server taken over by another:
// whoever answers there must not be counted as the one that was meant.
func TestRaftSpeaksToTheServerItMeans(t *testing.T) {
	s := alone(t)
	s.members.mu.Lock()
	s.members.addrs["s-000000000001"] = s.addr // gone, and its address is ours now
	s.members.mu.Unlock()
	var resp raft.RequestVoteResponse
	ask := &raft.RequestVoteRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: 3, ID: []byte(s.ServerID()), Addr: []byte(s.addr)},
		Term: 1, LeadershipTransfer: true}
	err := s.raft.trans.RequestVote("s-000000000001", raft.ServerAddress(s.addr), ask, &resp)
	if err == nil || !strings.Contains(err.Error(), "want member s-000000000001") {
		t.Fatalf("another server answered in its place: %+v, %v", resp, err)
	}
	if err := s.raft.trans.RequestVote("s-000000000002", raft.ServerAddress(s.addr), ask, &resp); err == nil {
		t.Fatalf("a server that nobody knows answered: %+v", resp)
	}
	if got := string(s.raft.trans.EncodePeer(raft.ServerID(s.ServerID()), "x")); got != s.addr {
		t.Errorf("the others are told that this server is at %q, not %q", got, s.addr)
	}
}

// plainWire is a wire over loopback without TLS, whose only peer is at addr.
func plainWire(t *testing.T, leads *atomic.Bool, dial func(context.Context) (net.Conn, error)) *wire {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(consensusConfig{id: "a", listener: l, advertise: l.Addr().String(),
		dial:   func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		locate: func(string) (string, bool) { return "b:1", true }}, hclog.NewNullLogger(), func(uint64) bool { return leads.Load() })
	t.Cleanup(func() { _ = w.Close() })
	return w
}

var (
	beat    = &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: 7}
	entries = &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("a")}, Term: 7, PrevLogEntry: 3, PrevLogTerm: 7}
)

// TestLogWaitsForASilentServer holds log back from a server that does not answer, so that
// the library does not pile up its pauses, and sends it with the first heartbeat that arrives.
func TestLogWaitsForASilentServer(t *testing.T) {
	var up, leads atomic.Bool
	leads.Store(true)
	answer, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	peer := newWire(consensusConfig{listener: answer, advertise: answer.Addr().String(),
		locate: func(string) (string, bool) { return "", false }}, hclog.NewNullLogger(), func(uint64) bool { return true })
	defer peer.Close()
	go func() {
		for rpc := range peer.Consumer() {
			rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
		}
	}()
	w := plainWire(t, &leads, func(ctx context.Context) (net.Conn, error) {
		if !up.Load() {
			return nil, errors.New("nobody is there")
		}
		return new(net.Dialer).DialContext(ctx, "tcp", answer.Addr().String())
	})
	send := func() chan error {
		done := make(chan error, 1)
		go func() { done <- w.AppendEntries("b", "b:1", entries, &raft.AppendEntriesResponse{}) }()
		return done
	}
	miss := func() {
		t.Helper()
		if err := w.AppendEntries("b", "b:1", beat, &raft.AppendEntriesResponse{}); err == nil {
			t.Fatal("a heartbeat was answered by nobody")
		}
	}
	miss()
	held := send()
	for range 3 {
		miss()
		select {
		case err := <-held:
			t.Fatalf("log was sent to a server that does not answer: %v", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
	up.Store(true)
	begun := time.Now()
	if err := w.AppendEntries("b", "b:1", beat, &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}
	if err := <-held; err != nil {
		t.Fatalf("the log that waited was not sent: %v", err)
	}
	if !w.reach.since("b", begun) || w.reach.since("b", time.Now()) || w.reach.since("c", begun) {
		t.Error("the time of the answered heartbeat is wrong")
	}
	up.Store(false)
	w.CloseStreams()
	miss()
	held = send()
	leads.Store(false) // of this term, at least
	miss()
	if err := <-held; err == nil {
		t.Error("log was sent to nobody")
	}
	leads.Store(true)
	miss()
	held = send()
	w.sever()
	<-held
	miss()
	<-send() // a server that stops holds nothing back
}

// TestVerifyCountsOnlyNewAnswers delivers the answer to a heartbeat that was sent before
// the quorum was asked. It says nothing about who leads now.
func TestVerifyCountsOnlyNewAnswers(t *testing.T) {
	n := &consensus{id: "a", trans: &wire{reach: newReach(func(string, uint64) bool { return true })}}
	members := []member{{ID: "a", Voter: true}, {ID: "b", Voter: true}, {ID: "c", Voter: true}, {ID: "d"}}
	sent := time.Now()
	asked := sent.Add(time.Millisecond)
	n.trans.reach.heard("b", sent, true)
	if n.confirmed(members, asked) {
		t.Error("an answer to an earlier heartbeat was counted")
	}
	n.trans.reach.heard("d", asked, true)
	n.trans.reach.heard("c", asked, false)
	if n.confirmed(members, asked) {
		t.Error("a server without a vote, or one that follows another, was counted")
	}
	n.trans.reach.heard("c", asked, true)
	n.trans.reach.heard("c", sent, true) // a slower answer on another connection
	if !n.confirmed(members, asked) || !n.confirmed(members[:1], asked) {
		t.Error("a majority was not enough")
	}
}
