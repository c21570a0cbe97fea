package server

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"llmos/fsm"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// alone starts a server of its own cluster that leads.
func alone(t *testing.T) *Server {
	t.Helper()
	cfg := homeConfig(filepath.Join(t.TempDir(), "data"))
	cfg.Bootstrap, cfg.Timing, cfg.Log = true, Fast(), slog.New(slog.DiscardHandler)
	return begin(t, cfg)
}

func begin(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := New(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	waitFor(t, func() bool { return s.tenure.Load() != nil })
	return s
}

// ended runs the server until it ends by itself and gives its sentence.
func ended(t *testing.T, s *Server) error {
	t.Helper()
	done := make(chan error, 1)
	go func() { done <- s.Run(context.Background()) }()
	select {
	case err := <-done:
		if err == nil {
			t.Fatal("the server ended without a word")
		}
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the server goes on")
		return nil
	}
}

func job(name string) *pb.Command {
	return &pb.Command{Op: &pb.Command_SubmitJob{SubmitJob: &pb.SubmitJob{Spec: &pb.JobSpec{Name: name,
		Roles: []*pb.RoleSpec{{Name: "worker", Count: 1, Command: []string{"true"}}}}}}}
}

// TestFailedWriteEndsTheServer takes the disk away under a running leader.
func TestFailedWriteEndsTheServer(t *testing.T) {
	s := alone(t)
	if _, err := s.Propose(context.Background(), job("before")); err != nil {
		t.Fatal(err)
	}
	if err := s.raft.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := s.Propose(ctx, job("after")); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNKNOWN {
		t.Errorf("a write that failed on disk: %v, want UNKNOWN", err)
	}
	err := ended(t, s)
	f := fault.From(err)
	if !strings.Contains(f.Error(), s.cfg.DataDir) || f.Fault.Hint == "" {
		t.Errorf("told as %q", f.Error())
	}
}

// TestDivergedStateEndsTheServer has the log say that the state should be another.
func TestDivergedStateEndsTheServer(t *testing.T) {
	s := alone(t)
	if _, err := s.Propose(context.Background(), job("a")); err != nil {
		t.Fatal(err)
	}
	wrong := &pb.Command{Op: &pb.Command_VerifyHash{VerifyHash: &pb.VerifyHash{Index: s.fsm.State().Index(), Hash: make([]byte, 32)}}}
	if _, err := s.Propose(context.Background(), wrong); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNKNOWN {
		t.Errorf("the proposal: %v", err)
	}
	if err := ended(t, s); !strings.Contains(err.Error(), "differs from the leader's") {
		t.Errorf("told as %q", err)
	}
}

func TestUndecodableEntriesHalt(t *testing.T) {
	future := protowire.AppendTag(nil, 999, protowire.BytesType)
	future = protowire.AppendBytes(future, nil)
	entry := protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), future)
	for name, row := range map[string]struct {
		data []byte
		says string
	}{
		"garbage":             {[]byte{0xff, 0xff, 0xff}, "cannot be decoded"},
		"a newer version's":   {entry, "does not know (field 999)"},
		"one without command": {protowire.AppendBytes(protowire.AppendTag(nil, 3, protowire.BytesType), nil), "does not know"},
	} {
		var told []error
		a := &fsmAdapter{fsm: fsm.New(), fatal: func(err error) { told = append(told, err) }}
		if got := a.Apply(&raft.Log{Index: 1, Type: raft.LogCommand, Data: row.data}); got != nil {
			t.Errorf("%s: applied as %v", name, got)
		}
		if got := a.Apply(&raft.Log{Index: 2, Type: raft.LogCommand}); got != nil {
			t.Errorf("%s: the next entry was applied", name)
		}
		if _, err := a.Snapshot(); err == nil {
			t.Errorf("%s: a snapshot was taken of a halted state", name)
		}
		if len(told) != 1 || !strings.Contains(told[0].Error(), row.says) {
			t.Errorf("%s: told %v", name, told)
		}
	}
}

// TestDamagedDirectoryIsRefused damages what a stopped server left.
func TestDamagedDirectoryIsRefused(t *testing.T) {
	s := alone(t)
	for range 3 {
		if _, err := s.Propose(context.Background(), job("x"+randomID("", 4))); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.raft.Snapshot(); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	state, err := filepath.Glob(filepath.Join(s.cfg.DataDir, "raft", snapshotsFolder, "*", "state.bin"))
	if err != nil || len(state) != 1 {
		t.Fatal(state, err)
	}
	for _, path := range []string{state[0], filepath.Join(s.cfg.DataDir, "raft", raftFile)} {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, whole[:min(len(whole)/2, 2*os.Getpagesize())], 0o600); err != nil {
			t.Fatal(err)
		}
		opened, err := New(context.Background(), s.cfg)
		if err == nil {
			_ = opened.Close()
			t.Fatalf("%s: it was opened", path)
		}
		if !strings.Contains(err.Error(), "corrupt") || fault.From(err).Fault.Hint == "" {
			t.Errorf("%s: %v", path, err)
		}
		if err := os.WriteFile(path, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	begin(t, s.cfg)
}

// TestQuickChangesOfLeadership gives notifications faster than tenures begin and end.
func TestQuickChangesOfLeadership(t *testing.T) {
	s := alone(t)
	first := s.tenure.Load()
	for range 5 {
		s.raft.notify <- false
		s.raft.notify <- true
	}
	waitFor(t, func() bool { now := s.tenure.Load(); return now != nil && now != first })
	if first.ctx.Err() == nil {
		t.Error("the old tenure goes on")
	}
	if _, err := s.Propose(context.Background(), job("still-here")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Read(context.Background()); err != nil {
		t.Fatal(err)
	}
	s.raft.notify <- false
	waitFor(t, func() bool { return s.tenure.Load() == nil })
	if _, err := s.reads.Read(context.Background()); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
		t.Errorf("a read without a tenure: %v", err)
	}
}

func TestCloseIsFinal(t *testing.T) {
	s := alone(t)
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Propose(context.Background(), job("late")); err == nil {
		t.Error("a closed server took a write")
	}
	begin(t, s.cfg) // the directory and the port are free again
}

// TestCloseEndsWaits closes a server at which a call waits for a leader: the call is told
// why it ends, which it would not be if it were cut off at the end of drainWait.
func TestCloseEndsWaits(t *testing.T) {
	s := alone(t)
	s.raft.notify <- false
	waitFor(t, func() bool { return s.tenure.Load() == nil })
	admin := transport.Identity{ClusterID: s.ClusterID(), Role: pb.MemberRole_MEMBER_ROLE_USER, MemberID: "admin"}
	creds, err := issueNew(s.home.ca, admin, nil, time.Hour, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	conn, err := transport.NewClient(s.Addr(), creds, pb.MemberRole_MEMBER_ROLE_SERVER)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := pb.NewClusterServiceClient(conn).GetStatus(context.Background(), &pb.GetStatusRequest{Local: true}); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 2)
	go func() {
		_, err := pb.NewClusterServiceClient(conn).ListNodes(context.Background(), &pb.ListNodesRequest{})
		ended <- err
	}()
	go func() {
		_, err := s.Propose(context.Background(), job("late"))
		ended <- err
	}()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-ended; fault.Kind(err) != pb.ErrorKind_ERROR_KIND_UNAVAILABLE {
			t.Errorf("a call that waited: %v", err)
		}
	}
}

// TestStuckWorkDoesNotKeepTheProcess has background work wait for a Raft that has been
// parked by a failed write: the server must end with its sentence all the same.
func TestStuckWorkDoesNotKeepTheProcess(t *testing.T) {
	s := alone(t)
	never := make(chan struct{})
	defer close(never)
	s.start(func() { <-never })
	if err := s.raft.bolt.Close(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if _, err := s.Propose(ctx, job("after")); err == nil {
		t.Error("a write was taken without a disk")
	}
	if err := ended(t, s); !strings.Contains(err.Error(), s.cfg.DataDir) {
		t.Errorf("told as %q", err)
	}
}

// TestClockThatRanAhead leaves the cluster's time a year in the future.
func TestClockThatRanAhead(t *testing.T) {
	s := alone(t)
	data, err := proto.Marshal(&pb.Entry{TimeMs: time.Now().AddDate(1, 0, 0).UnixMilli(), Commands: []*pb.Command{job("ahead")}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.raft.Apply(data).Wait(); err != nil {
		t.Fatal(err)
	}
	_, record, err := s.NewJoinToken(pb.MemberRole_MEMBER_ROLE_AGENT, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	results, err := s.Propose(context.Background(), &pb.Command{Op: &pb.Command_CreateToken{CreateToken: &pb.CreateToken{Token: record}}})
	if err != nil || results[0].Fault != nil {
		t.Fatalf("no token can be made any more: %v, %v", results, err)
	}
}
