package server

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// failing is a log store whose writes fail once they are told to.
type failing struct {
	*raft.InmemStore
	err    error
	writes int
}

func (f *failing) StoreLogs(l []*raft.Log) error {
	f.writes++
	if f.err != nil {
		return f.err
	}
	return f.InmemStore.StoreLogs(l)
}

func testPoison(t *testing.T) (*poison, *[]error) {
	var told []error
	return &poison{dir: "/data", fatal: func(err error) { told = append(told, err) }}, &told
}

func TestFirstFailedWritePoisons(t *testing.T) {
	p, told := testPoison(t)
	under := &failing{InmemStore: raft.NewInmemStore()}
	logs := &logStore{LogStore: under, poison: p}
	if err := logs.StoreLog(&raft.Log{Index: 1, Data: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	under.err = fmt.Errorf("write raft.db: %w", syscall.ENOSPC)
	for range 2 {
		if err := logs.StoreLog(&raft.Log{Index: 2}); err == nil {
			t.Fatal("a failed write succeeded")
		}
		under.err = nil // the disk is well again, but what it holds is not known
	}
	if under.writes != 2 {
		t.Errorf("%d writes reached the store, want 2: none after the failure", under.writes)
	}
	if err := logs.DeleteRange(1, 1); err == nil {
		t.Error("truncating went on after a failed write")
	}
	if len(*told) != 1 {
		t.Fatalf("told %d times, want once: %v", len(*told), *told)
	}
	text := (*told)[0].Error()
	for _, want := range []string{"/data", "disk is full", "free space"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q does not say %q", text, want)
		}
	}
	if strings.Contains(text, "\n") {
		t.Errorf("%q is not one sentence", text)
	}
}

func TestRottenEntryIsRefused(t *testing.T) {
	p, told := testPoison(t)
	under := raft.NewInmemStore()
	logs := &logStore{LogStore: under, poison: p}
	want := &raft.Log{Index: 7, Term: 3, Type: raft.LogCommand, Data: []byte("payload")}
	if err := logs.StoreLogs([]*raft.Log{want}); err != nil {
		t.Fatal(err)
	}
	if want.Extensions != nil {
		t.Error("the caller's entry was changed")
	}
	var got raft.Log
	if err := logs.GetLog(7, &got); err != nil || string(got.Data) != "payload" || got.Extensions != nil {
		t.Fatalf("read back %+v, %v", got, err)
	}
	for name, rot := range map[string]func(*raft.Log){
		"data": func(l *raft.Log) { l.Data = []byte("Payload") },
		"term": func(l *raft.Log) { l.Term++ },
		"type": func(l *raft.Log) { l.Type = raft.LogNoop },
		"sum":  func(l *raft.Log) { l.Extensions = nil },
	} {
		var l raft.Log
		_ = under.GetLog(7, &l)
		rot(&l)
		_ = under.StoreLog(&l)
		before := len(*told)
		if err := logs.GetLog(7, &got); err == nil || len(*told) != before+1 {
			t.Errorf("%s: a rotten entry was read: %v", name, err)
		}
		_ = logs.StoreLogs([]*raft.Log{want})
	}
}

// TestVoteIsOneRecord cuts a vote between Raft's two writes.
func TestVoteIsOneRecord(t *testing.T) {
	p, _ := testPoison(t)
	under := raft.NewInmemStore()
	open := func() *stableStore { return &stableStore{StableStore: under, poison: p} }
	vote := func(s *stableStore) string {
		term, err := s.GetUint64([]byte(keyVoteTerm))
		cand, err2 := s.Get([]byte(keyVoteCand))
		if err != nil || err2 != nil {
			if err.Error() != "not found" || err2.Error() != "not found" {
				t.Fatal(err, err2)
			}
			return "none"
		}
		return fmt.Sprintf("%d %s", term, cand)
	}
	s := open()
	if got := vote(s); got != "none" {
		t.Fatalf("an empty store has vote %q", got)
	}
	_ = s.SetUint64([]byte(keyVoteTerm), 4)
	_ = s.Set([]byte(keyVoteCand), []byte("a"))
	_ = s.SetUint64([]byte(keyVoteTerm), 5) // and here the process dies
	if got := vote(open()); got != "4 a" {
		t.Fatalf("after the cut the vote is %q, want the whole older one", got)
	}
	s = open()
	_ = s.SetUint64([]byte(keyVoteTerm), 5)
	_ = s.Set([]byte(keyVoteCand), []byte("b"))
	if got := vote(open()); got != "5 b" {
		t.Fatalf("the vote is %q", got)
	}
	_ = s.SetUint64([]byte("CurrentTerm"), 9)
	if term, err := open().GetUint64([]byte("CurrentTerm")); err != nil || term != 9 {
		t.Fatalf("term %d, %v", term, err)
	}
}

func TestBoltIsOpenedAsMeasured(t *testing.T) {
	p, _ := testPoison(t)
	_, _, bolt, err := openBolt(t.TempDir(), p, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer bolt.Close()
	if o := boltOptions(false); !o.NoFreelistSync || o.FreelistType != bbolt.FreelistMapType || o.NoSync {
		t.Errorf("options %+v", o)
	}
}

func fillBolt(t *testing.T, dir string) {
	t.Helper()
	p, _ := testPoison(t)
	logs, stable, bolt, err := openBolt(dir, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 300; i++ {
		if i == 1 || i%50 == 0 {
			if err := stable.SetUint64([]byte("CurrentTerm"), i); err != nil {
				t.Fatal(err)
			}
		}
	}
	var all []*raft.Log
	for i := uint64(1); i <= 300; i++ {
		all = append(all, &raft.Log{Index: i, Term: 1, Type: raft.LogCommand, Data: []byte(strings.Repeat("x", 200))})
	}
	if err := logs.StoreLogs(all); err != nil {
		t.Fatal(err)
	}
	if err := bolt.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestDamagedBoltIsOneSentence damages the file in several ways: opening never panics.
func TestDamagedBoltIsOneSentence(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"truncated to half":  func(b []byte) []byte { return b[:len(b)/2] },
		"truncated to pages": func(b []byte) []byte { return b[:4*os.Getpagesize()] },
		"no bolt file":       func(b []byte) []byte { return []byte(strings.Repeat("nonsense ", 4000)) },
		"zeroed behind":      func(b []byte) []byte { clear(b[2*os.Getpagesize():]); return b },
		"garbage behind": func(b []byte) []byte {
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] = 0xa5
			}
			return b
		},
		"one bit of an entry": func(b []byte) []byte {
			at := strings.Index(string(b), "xxxxxxxxxxxxxxxx")
			b[at+3] ^= 4
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			fillBolt(t, dir)
			path := filepath.Join(dir, raftFile)
			content, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(content), 0o600); err != nil {
				t.Fatal(err)
			}
			p, _ := testPoison(t)
			_, _, bolt, err := openBolt(dir, p, 0)
			if err == nil {
				bolt.Close()
				t.Fatal("a damaged file was opened")
			}
			if f := fault.From(err); f.Fault.Hint == "" || !strings.Contains(f.Error(), "join again with a token") || strings.Contains(f.Error(), "\n") {
				t.Errorf("told as %q", f.Error())
			}
		})
	}
}

func TestMissingEntriesAreDamage(t *testing.T) {
	dir := t.TempDir()
	fillBolt(t, dir)
	p, _ := testPoison(t)
	logs, _, bolt, err := openBolt(dir, p, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := logs.DeleteRange(1, 100); err != nil {
		t.Fatal(err)
	}
	bolt.Close()
	for snapshot, ok := range map[uint64]bool{100: true, 150: true, 99: false, 0: false} {
		_, _, bolt, err := openBolt(dir, p, snapshot)
		if (err == nil) != ok {
			t.Errorf("with a snapshot of %d: %v", snapshot, err)
		}
		if err == nil {
			bolt.Close()
		}
	}
}

func TestSnapshots(t *testing.T) {
	dir := t.TempDir()
	p, told := testPoison(t)
	good := func(io.Reader) error { return nil }
	store, err := openSnapshots(dir, p, hclog.NewNullLogger(), good)
	if err != nil {
		t.Fatal(err)
	}
	sink, err := store.Create(1, 10, 2, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("the state")); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(dir, snapshotsFolder, "2-20-1.tmp")
	if err := os.MkdirAll(left, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := openSnapshots(dir, p, hclog.NewNullLogger(), good); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(left); !errors.Is(err, os.ErrNotExist) {
		t.Error("an unfinished snapshot was left")
	}
	bad := func(io.Reader) error { panic("checksum") }
	if _, err := openSnapshots(dir, p, hclog.NewNullLogger(), bad); fault.Kind(err) != pb.ErrorKind_ERROR_KIND_INTERNAL || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("a bad snapshot: %v", err)
	}
	state := filepath.Join(dir, snapshotsFolder, sink.ID(), "state.bin")
	if err := os.WriteFile(state, []byte("another state"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := openSnapshots(dir, p, hclog.NewNullLogger(), good); err == nil || !strings.Contains(err.Error(), "corrupt") {
		t.Errorf("a changed snapshot: %v", err)
	}
	if len(*told) != 0 {
		t.Errorf("reading told %v", *told)
	}
}
