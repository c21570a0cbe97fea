package fsm

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// TestOlderLogs replays logs that the programs of state versions 1 and 2 wrote. They hold their hashes
// in VerifyHash: a server of this version must come to the same ones, or it could not join the others.
func TestOlderLogs(t *testing.T) {
	files, err := filepath.Glob("testdata/v[12]/*.log")
	if err != nil || len(files) == 0 {
		t.Fatalf("no logs: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		f, verified := New(), 0
		for index := uint64(1); len(data) > 0; index++ {
			size := binary.BigEndian.Uint32(data)
			entry := &pb.Entry{}
			if err := proto.Unmarshal(data[4:4+size], entry); err != nil {
				t.Fatal(err)
			}
			data = data[4+size:]
			f.Apply(index, entry)
			if err := f.Diverged(); err != nil {
				t.Fatalf("%s: %v", file, err)
			}
			if entry.Commands[0].GetVerifyHash() != nil {
				verified++
			}
		}
		if err := state.Check(f.State()); err != nil || verified == 0 {
			t.Errorf("%s: %d hashes were verified; %v", file, verified, err)
		}
	}
}

// TestVersion1Snapshots restores snapshots of format 1, and goes on from them: as version 1 until
// a leader raises the version, as version 2 afterwards.
func TestVersion1Snapshots(t *testing.T) {
	for _, name := range []string{"gang", "lost"} {
		data, err := os.ReadFile(filepath.Join("testdata/v1", name+".snapshot"))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Read(bytes.NewReader(data))
		if err != nil {
			t.Fatal(err)
		}
		if err := state.Check(s); err != nil {
			t.Error(err)
		}
		k := newTalk(t)
		k.fsm.Restore(s)
		k.index, k.timeMS = s.Index(), s.TimeMS()
		k.line("submit old")
		if j := k.fsm.State().FindJob("old"); j == nil || j.ReadyMs != 0 {
			t.Errorf("%s: under version 1 there is %v", name, j)
		}
		if got := k.line("init c-1 version=1") + k.line("init c-1 version=2") + k.line("init c-1 version=9"); got !=
			"ok c-1\nok c-1\nINVALID: state version 9 is not known, at most 3 is (hint: upgrade llmos on every server first)\n" {
			t.Error(got)
		}
		k.line("submit new")
		if j := k.fsm.State().FindJob("new"); j.GetReadyMs() != s.TimeMS() || k.fsm.State().Cluster().StateVersion != 2 {
			t.Errorf("%s: under version 2 there is %v", name, j)
		}
		if k.line("init c-1 version=1"); k.fsm.State().Cluster().StateVersion != 2 {
			t.Error("the version went back")
		}
	}
}

// TestSnapshotReaders: a cluster that knows no checkpoints yet writes snapshots that its older servers
// can read.
func TestSnapshotReaders(t *testing.T) {
	for line, want := range map[string]uint32{"init c-1 version=2": 2, "init c-1 version=3": 3, "init c-1": 3} {
		k := newTalk(t)
		k.line(line)
		if got := minReaderOf(k.fsm.State()); got != want {
			t.Errorf("%s: a reader of format %d is asked for, want %d", line, got, want)
		}
	}
}
