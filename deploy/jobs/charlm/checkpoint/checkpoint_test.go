package checkpoint

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func state(step int) State {
	return State{Step: step, Shape: "s", Loss: 1.5, Params: []float32{1, 2, float32(step)}, M: []float32{3, 4, 5}, V: []float32{6, 7, 8}}
}

func mustOpen(t *testing.T, dir string, epoch uint64) *Store {
	t.Helper()
	s, err := Open(dir, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustSave(t *testing.T, s *Store, steps ...int) {
	t.Helper()
	for _, step := range steps {
		if err := s.Save(state(step)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestNewestComesBack(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "job", "x")
	s := mustOpen(t, dir, 4)
	if _, found, notes, err := s.Load("s"); found || notes != nil || err != nil {
		t.Fatalf("an empty folder gives %v %v %v", found, notes, err)
	}
	mustSave(t, s, 10, 20, 30, 40, 1000)
	got, found, notes, err := s.Load("s")
	want := state(1000)
	want.Epoch = 4
	if err != nil || !found || notes != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v %v %v, want %+v", got, found, notes, err, want)
	}
	if names, err := s.names(); err != nil || len(names) != keep {
		t.Errorf("%v are kept (%v), want %d", names, err, keep)
	}
	if _, _, _, err := s.Load("other"); err == nil || !strings.Contains(err.Error(), "is of a model s, this run's is other") {
		t.Errorf("another shape gives %v", err)
	}
}

// TestEveryDamageIsSeen cuts the newest file at every length and flips every byte: the state
// must come from the file before, with a message.
func TestEveryDamageIsSeen(t *testing.T) {
	dir := t.TempDir()
	s := mustOpen(t, dir, 1)
	mustSave(t, s, 10, 20)
	path := filepath.Join(dir, s.name(20))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	check := func(what string, at int, data []byte) {
		t.Helper()
		if err := os.WriteFile(path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		got, found, notes, err := s.Load("s")
		if err != nil || !found || got.Step != 10 || len(notes) != 1 || !strings.HasPrefix(notes[0], "passed over checkpoint step-000000020.e1.ckpt: ") {
			t.Fatalf("%s at %d: %+v %v %v %v, want step 10 and one note", what, at, got, found, notes, err)
		}
	}
	for n := range whole {
		check("cut", n, whole[:n])
		flipped := append([]byte(nil), whole...)
		flipped[n] ^= 0x10
		check("flipped", n, flipped)
	}
}

func TestOlderEpochIsRefused(t *testing.T) {
	dir := t.TempDir()
	old := mustOpen(t, dir, 1)
	mustSave(t, old, 10)
	now := mustOpen(t, dir, 2)
	err := old.Save(state(20))
	if !errors.Is(err, ErrReplaced) || !strings.Contains(err.Error(), "they belong to epoch 2, this is epoch 1") {
		t.Errorf("the older epoch saves: %v", err)
	}
	if _, err := Open(dir, 1); !errors.Is(err, ErrReplaced) {
		t.Errorf("the older epoch opens: %v", err)
	}
	if got, _, _, err := now.Load("s"); err != nil || got.Step != 10 || got.Epoch != 1 {
		t.Errorf("%+v %v", got, err)
	}
}

// TestLateWriteOfAnOlderEpochIsNotGoneOnFrom has a process of epoch 9 look at the fence,
// sleep through the start of epoch 10, and write then: what it leaves must neither be loaded
// in place of what epoch 10 saved, nor push that out.
func TestLateWriteOfAnOlderEpochIsNotGoneOnFrom(t *testing.T) {
	dir := t.TempDir()
	old := mustOpen(t, dir, 9)
	mustSave(t, old, 10, 20, 30)
	now := mustOpen(t, dir, 10)
	mustSave(t, now, 25)
	late := state(40)
	late.Epoch = 9
	data, err := encode(late)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(filepath.Join(dir, old.name(40)), data); err != nil {
		t.Fatal(err)
	}
	mustSave(t, now, 30)
	names, err := now.names()
	if err != nil || len(names) != keep || names[0] != now.name(30) || names[1] != now.name(25) {
		t.Errorf("kept are %v (%v), want the steps 30 and 25 of epoch 10 first", names, err)
	}
	got, found, _, err := mustOpen(t, dir, 11).Load("s")
	if err != nil || !found || got.Step != 30 || got.Epoch != 10 {
		t.Errorf("%+v %v %v, want step 30 of epoch 10", got, found, err)
	}
}

func TestResultOfAnOlderEpochIsRefused(t *testing.T) {
	dir := t.TempDir()
	old := mustOpen(t, dir, 1)
	if err := old.WriteResult("result.json", []byte("1")); err != nil {
		t.Fatal(err)
	}
	now := mustOpen(t, dir, 2)
	if err := now.WriteResult("result.json", []byte("2")); err != nil {
		t.Fatal(err)
	}
	if err := old.WriteResult("result.json", []byte("1")); !errors.Is(err, ErrReplaced) {
		t.Errorf("the older epoch writes its result: %v", err)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "result.json")); err != nil || string(got) != "2" {
		t.Errorf("%q %v", got, err)
	}
}

func FuzzDecode(f *testing.F) {
	good, err := encode(state(3))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		st, err := decode(data)
		if err == nil && (len(st.Params) != len(st.M) || st.Step < 0) {
			t.Fatalf("%+v passes", st)
		}
	})
}
