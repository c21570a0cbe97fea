package fsm

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// told gives the state machine after the commands of a conversation.
func told(t *testing.T, name string) *talk {
	t.Helper()
	src, err := os.ReadFile(filepath.Join("testdata", name+".txt"))
	if err != nil {
		t.Fatal(err)
	}
	k := newTalk(t)
	for _, block := range strings.Split(string(src), "\n\n") {
		ask, _, asked := strings.Cut(block, "\n----")
		if !asked {
			continue
		}
		for _, line := range strings.Split(ask, "\n") {
			if !strings.HasPrefix(line, "#") {
				k.line(line)
			}
		}
	}
	return k
}

func written(t *testing.T, s *state.State) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, s); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestSnapshotRoundTrip also demands that the same records give the same bytes, and that what
// cannot be seen in the tables survives: requests and the numbers of names.
func TestSnapshotRoundTrip(t *testing.T) {
	for _, name := range []string{"seed", "submit", "gang", "lost", "node", "share", "token", "checkpoint"} {
		t.Run(name, func(t *testing.T) {
			s := told(t, name).fsm.State()
			data := written(t, s)
			got, err := Read(iotest.OneByteReader(bytes.NewReader(data)))
			if err != nil {
				t.Fatal(err)
			}
			if got.Hash() != s.Hash() || got.Index() != s.Index() || got.TimeMS() != s.TimeMS() {
				t.Errorf("index %d, time %d came back as index %d, time %d", s.Index(), s.TimeMS(), got.Index(), got.TimeMS())
			}
			if err := state.Check(got); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(written(t, got), data) {
				t.Error("the snapshot of the restored state is another one")
			}
		})
	}
	k := newTalk(t)
	k.line("submit train req=r1")
	k.line("stop train-1")
	k.line("collect jobs=9999")
	s, err := Read(bytes.NewReader(written(t, k.fsm.State())))
	if err != nil {
		t.Fatal(err)
	}
	k.fsm.Restore(s)
	if got := k.line("submit train req=r1") + k.line("submit train"); got != "ok train-1 repeated\nok train-2\n" {
		t.Errorf("after the restore: %s", got)
	}
}

// TestSnapshotCorruption cuts a snapshot at every byte and flips every bit: each is an error.
func TestSnapshotCorruption(t *testing.T) {
	k := newTalk(t)
	for _, line := range []string{"init c-1", "node n-a cpu=4000 gpus=g0", "submit a gpus=1 req=r1", "plan a-1 1 n-a/g0"} {
		k.line(line)
	}
	data := written(t, k.fsm.State())
	if _, err := Read(bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for n := range data {
		if _, err := Read(bytes.NewReader(data[:n])); err == nil {
			t.Fatalf("cut after %d of %d bytes it is read", n, len(data))
		}
	}
	for bit := range 8 * len(data) {
		flipped := bytes.Clone(data)
		flipped[bit/8] ^= 1 << (bit % 8)
		if _, err := Read(bytes.NewReader(flipped)); err == nil {
			t.Fatalf("with bit %d of byte %d flipped it is read", bit%8, bit/8)
		}
	}
	if _, err := Read(bytes.NewReader(append(bytes.Clone(data), 0))); err == nil {
		t.Error("with a byte behind the trailer it is read")
	}
}

// forge builds a snapshot with a right checksum.
func forge(t *testing.T, header *pb.SnapshotHeader, records ...*pb.SnapshotRecord) []byte {
	t.Helper()
	out := []byte(snapshotMagic)
	frame := func(kind byte, m proto.Message) {
		payload, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		out = binary.BigEndian.AppendUint32(append(out, kind), uint32(len(payload)))
		out = append(out, payload...)
	}
	frame(frameHeader, header)
	for _, r := range records {
		frame(frameRecord, r)
	}
	frame(frameTrailer, &pb.SnapshotTrailer{Records: uint64(len(records)), Crc32C: crc32.Checksum(out, castagnoli)})
	return out
}

func TestSnapshotRefusals(t *testing.T) {
	job := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Job{Job: &pb.Job{Id: "a-1", Spec: &pb.JobSpec{Name: "a"}}}}
	other := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Job{Job: &pb.Job{Id: "b-1", Spec: &pb.JobSpec{Name: "b"}}}}
	nobody := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Job{Job: &pb.Job{}}}
	task := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Task{Task: &pb.Task{Id: "a-1.e1.r0", JobId: "a-1", Epoch: 1}}}
	held := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Allocation{Allocation: &pb.Allocation{TaskId: "a-1.e1.r0"}}}
	wild := &pb.SnapshotRecord{Record: &pb.SnapshotRecord_Allocation{Allocation: &pb.Allocation{TaskId: "a"}}}
	empty := state.New().Hash()
	v1 := &pb.SnapshotHeader{Version: 1, MinReaderVersion: 1, StateHash: empty[:]}
	for _, c := range []struct {
		name string
		data []byte
		want string
	}{
		{"foreign", []byte("PK\x03\x04 something else"), "this is not a snapshot of llmos"},
		{"newer", forge(t, &pb.SnapshotHeader{Version: 9, MinReaderVersion: 4}),
			"the snapshot has format 9, which needs a reader of format 4; this llmos reads up to 3: upgrade it"},
		{"none", forge(t, &pb.SnapshotHeader{}), "a format 0 for readers of 0 cannot be"},
		{"odd", forge(t, &pb.SnapshotHeader{Version: 1, MinReaderVersion: 1, TimeMs: -1}), "the time -1 cannot be"},
		{"hash", forge(t, &pb.SnapshotHeader{Version: 1, MinReaderVersion: 1, StateHash: empty[1:]}), "the state hash is"},
		{"lost record", forge(t, &pb.SnapshotHeader{Version: 1, MinReaderVersion: 1, StateHash: empty[:]}, job), "the state hash is"},
		{"unknown", forge(t, v1, &pb.SnapshotRecord{}), "record 0: a record is of a kind that this version does not know"},
		{"twice", forge(t, v1, job, job), `record 1: record "a-1" of table 2 is there twice`},
		{"one place", forge(t, v1, job, other), "record 1: two jobs were submitted at index 0.0"},
		{"no key", forge(t, v1, nobody), "record 0: a record of table 2 has no key"},
		{"order", forge(t, v1, task), `record 0: task "a-1.e1.r0" belongs to no attempt`},
		{"no task", forge(t, v1, held), `record 0: an allocation is of task "a-1.e1.r0", which does not exist`},
		{"no task ID", forge(t, v1, wild), `record 0: an allocation is of "a", which is no task`},
	} {
		if _, err := Read(bytes.NewReader(c.data)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	later := forge(t, &pb.SnapshotHeader{Version: 4, MinReaderVersion: 3, StateHash: empty[:]})
	if _, err := Read(bytes.NewReader(later)); err != nil {
		t.Errorf("a later format that this reader may read: %v", err)
	}
}

func TestSnapshotWriteFails(t *testing.T) {
	k := told(t, "gang")
	size := len(written(t, k.fsm.State()))
	for _, room := range []int{0, 1, size - 1} {
		if err := Write(&small{room: room}, k.fsm.State()); err == nil {
			t.Errorf("with room for %d of %d bytes it is written", room, size)
		}
	}
}

// small is a disk with little room.
type small struct{ room int }

func (s *small) Write(p []byte) (int, error) {
	if len(p) > s.room {
		return s.room, os.ErrClosed
	}
	s.room -= len(p)
	return len(p), nil
}
