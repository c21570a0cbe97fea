package server

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// TestHeartbeatsHaveNoFastPath pins the answer to hashicorp/raft#695: the handler that
// Raft sets must not reach the network transport, and pre-vote must stay.
func TestHeartbeatsHaveNoFastPath(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := newWire(consensusConfig{listener: l, advertise: l.Addr().String(),
		dial: func(ctx context.Context, addr, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		},
		locate: func(string) (string, bool) { return l.Addr().String(), true }}, hclog.NewNullLogger(), func(uint64) bool { return true })
	defer w.Close()
	var asRaftSeesIt raft.Transport = w
	asRaftSeesIt.SetHeartbeatHandler(func(raft.RPC) { t.Error("the fast path was taken") })
	if f := reflect.ValueOf(w.NetworkTransport).Elem().FieldByName("heartbeatFn"); !f.IsValid() || !f.IsNil() {
		t.Error("the network transport has a heartbeat handler")
	}
	if _, ok := asRaftSeesIt.(raft.WithPreVote); !ok {
		t.Error("the transport has lost pre-vote")
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		rpc := <-w.Consumer()
		rpc.Respond(&raft.AppendEntriesResponse{Term: 7, Success: true}, nil)
	}()
	var resp raft.AppendEntriesResponse
	heartbeat := &raft.AppendEntriesRequest{RPCHeader: raft.RPCHeader{Addr: []byte("x")}, Term: 7}
	if err := w.AppendEntries("other", raft.ServerAddress(l.Addr().String()), heartbeat, &resp); err != nil || resp.Term != 7 {
		t.Fatalf("a heartbeat was answered %+v, %v", resp, err)
	}
	<-done
}

func TestRepeatedComplaintsAreQuiet(t *testing.T) {
	var out bytes.Buffer
	log := raftLogger(slog.New(slog.NewTextHandler(&out, nil)))
	for range 5 {
		log.Error("failed to heartbeat to", "peer", "b")
		log.With("id", "c").Error("failed to heartbeat to", "peer", "c")
	}
	log.Info("entering follower state", "follower", hclog.Fmt("%d", 3))
	if n := strings.Count(out.String(), "\n"); n != 2 {
		t.Errorf("%d lines, want one for each peer:\n%s", n, out.String())
	}
}
