package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

func numbered(n int) *pb.Assignment {
	return &pb.Assignment{Task: &pb.Task{Id: fmt.Sprintf("j-%d.e1.r0", n), JobId: fmt.Sprintf("j-%d", n), Epoch: 1}}
}

// written gives the bytes of a journal with a few of every kind of record, and how many
// bytes each step has reached.
func written(t testing.TB) (data []byte, steps []int64) {
	t.Helper()
	dir := t.TempDir()
	j, err := openJournal(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i, step := range []func() error{
		func() error { return j.assign(5, []*pb.Assignment{numbered(1), numbered(2)}) },
		func() error { return j.assign(6, []*pb.Assignment{numbered(3)}) },
		func() error { return j.clean([]string{numbered(1).Task.Id}) },
		func() error { return j.assign(9, []*pb.Assignment{numbered(4)}) },
	} {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		steps = append(steps, j.size)
	}
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	if data, err = os.ReadFile(filepath.Join(dir, journalFile)); err != nil {
		t.Fatal(err)
	}
	return data, steps
}

func reopen(t testing.TB, data []byte) (*journal, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, journalFile), data, 0o600); err != nil {
		t.Fatal(err)
	}
	return openJournal(dir)
}

func names(j *journal) string {
	known, index := j.known()
	var out []string
	for _, a := range known {
		out = append(out, a.GetTask().GetJobId())
	}
	return fmt.Sprintf("%s @%d", strings.Join(out, " "), index)
}

// TestJournalSurvivesEveryTornEnd cuts the journal at every byte: what was synced before
// the cut is there, the torn rest is gone, and the journal can be written again.
func TestJournalSurvivesEveryTornEnd(t *testing.T) {
	data, steps := written(t)
	want := []string{"j-1 j-2 @5", "j-1 j-2 j-3 @6", "j-2 j-3 @6", "j-2 j-3 j-4 @9"}
	for cut := range len(data) + 1 {
		j, err := reopen(t, data[:cut])
		if err != nil {
			t.Fatalf("cut at %d of %d: %v", cut, len(data), err)
		}
		for i, reached := range steps {
			if int64(cut) == reached && names(j) != want[i] {
				t.Fatalf("cut at %d: %s, want %s", cut, names(j), want[i])
			}
		}
		if err := j.assign(20, []*pb.Assignment{numbered(8)}); err != nil {
			t.Fatalf("cut at %d: %v", cut, err)
		}
		before := names(j)
		if err := j.close(); err != nil {
			t.Fatal(err)
		}
		again, err := openJournal(filepath.Dir(j.path))
		if err != nil || names(again) != before {
			t.Fatalf("cut at %d, written and read again: %v, %s, want %s", cut, err, names(again), before)
		}
		again.close()
	}
}

func TestJournalRefusesDamageBeforeTheEnd(t *testing.T) {
	data, steps := written(t)
	damaged := bytes.Clone(data)
	damaged[steps[0]/2] ^= 0x10
	_, err := reopen(t, damaged)
	if err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Fatalf("got %v", err)
	}
}

func TestJournalZeroTailIsTorn(t *testing.T) {
	data, _ := written(t)
	j, err := reopen(t, append(bytes.Clone(data), make([]byte, 500)...))
	if err != nil || names(j) != "j-2 j-3 j-4 @9" {
		t.Fatalf("%v", err)
	}
	j.close()
}

func TestJournalIsCompacted(t *testing.T) {
	j, err := openJournal(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer j.close()
	big := numbered(1)
	big.JobName = strings.Repeat("x", 200<<10)
	for range 12 {
		if err := j.assign(3, []*pb.Assignment{big}); err != nil {
			t.Fatal(err)
		}
		if err := j.clean([]string{big.Task.Id}); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.assign(4, []*pb.Assignment{numbered(2)}); err != nil {
		t.Fatal(err)
	}
	if j.size > 2*compactAtBytes {
		t.Errorf("the journal has grown to %d bytes", j.size)
	}
	again, err := openJournal(filepath.Dir(j.path))
	if err != nil {
		t.Fatal(err)
	}
	defer again.close()
	if names(again) != "j-2 @4" {
		t.Errorf("compacted to %s", names(again))
	}
}

// FuzzJournal: whatever the file holds, opening it either refuses it or gives a journal
// that reads back as it was after a write.
func FuzzJournal(f *testing.F) {
	data, _ := written(f)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		j, err := reopen(t, data)
		if err != nil {
			return
		}
		if err := j.assign(1, []*pb.Assignment{numbered(7)}); err != nil {
			t.Fatal(err)
		}
		before := names(j)
		j.close()
		again, err := openJournal(filepath.Dir(j.path))
		if err != nil || names(again) != before {
			t.Fatalf("read again: %v", err)
		}
		again.close()
	})
}
