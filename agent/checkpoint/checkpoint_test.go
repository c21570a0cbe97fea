package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestFinished(t *testing.T) {
	base := time.Unix(1_000_000, 0)
	at := func(s int) time.Time { return base.Add(time.Duration(s) * time.Second) }
	for _, c := range []struct {
		name  string
		seen  Seen
		now   int
		ended bool
		want  bool
	}{
		{"told", Seen{Name: ".hidden", Told: true, Changed: at(9), Newest: at(9)}, 9, false, true},
		{"marked", Seen{Name: "step-1", Dir: true, Marked: true, Changed: at(1), Newest: at(9)}, 9, false, true},
		{"a marked temporary", Seen{Name: "step-1.tmp", Dir: true, Marked: true}, 9, true, false},
		{"seen to be renamed", Seen{Name: "step-1.pt", Moved: true, Changed: at(9), Newest: at(9)}, 9, false, true},
		{"being written", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(8)}, 9, false, false},
		{"being written when the task ended", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(8)}, 9, true, false},
		{"renamed before the task ended", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(7)}, 9, true, true},
		{"settled", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(8)}, 18, false, true},
		{"not settled", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(8)}, 17, false, false},
		{"renamed, it seems", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(7)}, 10, false, true},
		{"renamed or copied just now", Seen{Name: "step-1.pt", Changed: at(8), Newest: at(7)}, 9, false, false},
		{"a folder in which something is written", Seen{Name: "step-1", Dir: true, Changed: at(7), Newest: at(8)}, 99, true, false},
	} {
		if got := Finished(c.seen, at(c.now), c.ended); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	for name, want := range map[string]bool{"step-1.pt": false, "step-1.pt.tmp": true, "step-1.tmp.x8f2": true, ".step-1": true, "tmpabc": true,
		"step-1~": true, "step-1_partial": true, "model.part": true, "model-part-1.bin": false, "temperature-5": false, "---": false, "": false} {
		if got := Temporary(name); got != want {
			t.Errorf("%q is temporary: %v, want %v", name, got, want)
		}
	}
	for name, want := range map[string]int64{"step-1200": 1200, "step-000400.e2.ckpt": 400, "epoch=3-step=500.ckpt": 500, "500.tar.gz": 500, "7": 7,
		"best": 42, "llama-7b": 42, "v2-final.pt": 42, "1234567890123456789012": 42} {
		if got := StepOf(name, time.Unix(42, 0)); got != want {
			t.Errorf("the step of %q is %d, want %d", name, got, want)
		}
	}
}

// task is a working directory and a store.
type task struct {
	t     *testing.T
	dir   string
	root  *os.Root
	store *Store
}

func newTask(t *testing.T) *task {
	t.Helper()
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return &task{t: t, dir: dir, root: root, store: newStore(t, t.TempDir())}
}

func newStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	s.Reserve = 0
	return s
}

func (k *task) write(name, content string) {
	k.t.Helper()
	path := filepath.Join(k.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		k.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o640); err != nil {
		k.t.Fatal(err)
	}
}

func (k *task) take(path string) (Ref, error) {
	return k.store.Take(context.Background(), Source{Root: k.root, Path: path, Owner: -1}, Key{Job: "train-1", Epoch: 1, Step: 5}, 77)
}

func (k *task) mustTake(path string) Ref {
	k.t.Helper()
	ref, err := k.take(path)
	if err != nil {
		k.t.Fatal(err)
	}
	return ref
}

// stream opens another store's stream as a fetch wants it.
func stream(s *Store, d Digest) func(context.Context, int64) (io.ReadCloser, error) {
	return func(ctx context.Context, offset int64) (io.ReadCloser, error) {
		var b bytes.Buffer
		err := s.Send(ctx, d, offset, &b)
		return io.NopCloser(&b), err
	}
}

// tree reads a folder as path -> mode and content.
func tree(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		out[rel] = info.Mode().String()
		if !d.IsDir() {
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			out[rel] += " " + string(data)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestThereAndBack takes checkpoints, carries them to another store, and stages them there.
func TestThereAndBack(t *testing.T) {
	k := newTask(t)
	k.write("ckpt/step-5/model.bin", "weights")
	k.write("ckpt/step-5/opt/state", strings.Repeat("m", 3<<20))
	k.write("ckpt/step-5/opt/empty", "")
	k.write("ckpt/step-5/.done", "")
	k.write("ckpt/step-5/odd \"name\"\n", "x")
	k.write("ckpt/six.pt", "file")
	if err := os.Symlink("model.bin", filepath.Join(k.dir, "ckpt/step-5/link")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]map[string]string{
		"ckpt/step-5": {"step-5": "drwxr-xr-x", "step-5/model.bin": "-rw-r----- weights", "step-5/link": "-rw-r----- weights", "step-5/opt": "drwxr-xr-x",
			"step-5/opt/state": "-rw-r----- " + strings.Repeat("m", 3<<20), "step-5/opt/empty": "-rw-r----- ", "step-5/odd \"name\"\n": "-rw-r----- x"},
		"ckpt/six.pt": {"six.pt": "-rw-r----- file"},
	} {
		ref := k.mustTake(path)
		far := newStore(t, t.TempDir())
		if err := far.Fetch(context.Background(), ref.Digest, stream(k.store, ref.Digest)); err != nil {
			t.Fatal(err)
		}
		into := filepath.Join(t.TempDir(), "resume")
		for range 2 { // the second in the place of the first
			got, err := far.Stage(context.Background(), ref.Digest, into, -1, -1)
			if err != nil || got != filepath.Join(into, filepath.Base(path)) {
				t.Fatalf("staged at %s: %v", got, err)
			}
		}
		got := tree(t, into)
		for name, content := range want {
			if got[name] != content {
				t.Errorf("%s: %s came back as %.80q, was %.80q", path, name, got[name], content)
			}
		}
		if len(got) != len(want) {
			t.Errorf("%s: %d entries came back of %d", path, len(got), len(want))
		}
	}
}

func unknown(string, string) bool { return false }

// TestRefused names what cannot be a checkpoint in whole sentences, and leaves nothing of it.
func TestRefused(t *testing.T) {
	k := newTask(t)
	outside := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(outside, []byte("secret"), 0o644); err != nil {
		t.Fatal(err)
	}
	link := func(to, name string) {
		if err := os.MkdirAll(filepath.Join(k.dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(k.dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	k.write("ckpt/a/good", "x")
	link(outside, "ckpt/a/passwd")
	link(outside, "ckpt/b")
	link("..", "ckpt/c/up")
	link(filepath.Dir(outside), "out")
	link("missing", "ckpt/d/dangling")
	for path, want := range map[string]string{
		"ckpt/a":     "a/passwd is a symbolic link out of the working directory",
		"ckpt/b":     "b is a symbolic link out of the working directory",
		"ckpt/c":     "c/up is a symbolic link to a folder; a checkpoint is made of files and folders",
		"out/secret": "secret is a symbolic link out of the working directory",
		"ckpt/none":  "there is no ckpt/none in the working directory",
	} {
		if _, err := k.take(path); !errors.Is(err, ErrRefused) || err.Error() != ErrRefused.Error()+": "+want {
			t.Errorf("%s: %v, want %s", path, err, want)
		}
	}
	if _, err := k.take("ckpt/d"); !errors.Is(err, ErrChanged) {
		t.Errorf("a link to nothing: %v", err)
	}
	if _, err := Look(k.root, "out", unknown); !errors.Is(err, ErrRefused) {
		t.Errorf("the folder leads out: %v", err)
	}
	seen, err := Look(k.root, "ckpt", unknown)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seen {
		if (s.Fault != "") != (s.Name == "b") {
			t.Errorf("%s has fault %q", s.Name, s.Fault)
		}
	}
	if refs, left := k.store.Refs(), tree(t, filepath.Join(k.store.dir)); len(refs) != 0 || len(left) != 3 {
		t.Errorf("left behind: %v %v", refs, left)
	}
	source := Source{Root: k.root, Path: "ckpt/a/good", Owner: os.Getuid() + 1}
	if _, err := k.store.Take(context.Background(), source, Key{}, 1); !errors.Is(err, ErrRefused) {
		t.Errorf("another user's file: %v", err)
	}
	k.store.Reserve = 1 << 60
	if _, err := k.take("ckpt/a/good"); !errors.Is(err, ErrNoRoom) {
		t.Errorf("a full disk: %v", err)
	}
}

// TestBroken truncates and changes what a store holds: whoever reads it is told, and gets nothing.
func TestBroken(t *testing.T) {
	ctx := context.Background()
	for _, damage := range []struct {
		name string
		do   func(path string) error
	}{
		{"truncated", func(p string) error { return os.Truncate(p, 3) }},
		{"changed", func(p string) error { return os.WriteFile(p, []byte("weightz"), 0o600) }},
		{"longer", func(p string) error { return os.WriteFile(p, []byte("weights and more"), 0o600) }},
		{"gone", os.Remove},
	} {
		k := newTask(t)
		k.write("ckpt/step-5/a", "first")
		k.write("ckpt/step-5/b", "weights")
		ref := k.mustTake("ckpt/step-5")
		if err := damage.do(numbered(k.store.object(ref.Digest), 2)); err != nil {
			t.Fatal(err)
		}
		into := filepath.Join(t.TempDir(), "resume")
		if _, err := k.store.Stage(ctx, ref.Digest, into, -1, -1); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: staged: %v", damage.name, err)
		}
		if left := tree(t, filepath.Dir(into)); len(left) != 0 {
			t.Errorf("%s: left behind: %v", damage.name, left)
		}
		var sent bytes.Buffer
		if err := k.store.Send(ctx, ref.Digest, 0, &sent); !errors.Is(err, ErrBroken) {
			t.Errorf("%s: sent: %v", damage.name, err)
		}
		far := newStore(t, t.TempDir())
		err := far.Fetch(ctx, ref.Digest, func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(&sent), nil })
		whole := damage.name == "longer" // what came before the rest is right
		if !whole && !errors.Is(err, ErrBroken) && !errors.Is(err, ErrCut) || far.Has(ref.Digest) != whole {
			t.Errorf("%s: fetched: %v", damage.name, err)
		}
		if lost := k.store.Lose(ref.Digest); len(lost) != 1 || lost[0] != ref || k.store.Has(ref.Digest) || len(k.store.Refs()) != 0 {
			t.Errorf("%s: lost %v", damage.name, lost)
		}
	}
}

// TestFetchGoesOn cuts a stream at every byte: the next try asks for what is missing alone.
func TestFetchGoesOn(t *testing.T) {
	ctx := context.Background()
	k := newTask(t)
	k.write("s-1/a", "aaaa")
	k.write("s-1/b", "bbbbbbbb")
	k.write("s-1/c", "cc")
	ref := k.mustTake("s-1")
	var whole bytes.Buffer
	if err := k.store.Send(ctx, ref.Digest, 0, &whole); err != nil {
		t.Fatal(err)
	}
	for at := range whole.Len() {
		far := newStore(t, t.TempDir())
		cut := func(context.Context, int64) (io.ReadCloser, error) {
			return io.NopCloser(bytes.NewReader(whole.Bytes()[:at])), nil
		}
		if err := far.Fetch(ctx, ref.Digest, cut); !errors.Is(err, ErrCut) {
			t.Fatalf("cut at %d: %v", at, err)
		}
		asked := int64(-1)
		err := far.Fetch(ctx, ref.Digest, func(ctx context.Context, offset int64) (io.ReadCloser, error) {
			asked = offset
			return stream(k.store, ref.Digest)(ctx, offset)
		})
		behind := int64(whole.Len() - at)
		if err != nil || !far.Has(ref.Digest) || behind < 2 && asked != 12 || behind >= 14 && asked != 0 {
			t.Fatalf("cut at %d, asked from %d: %v", at, asked, err)
		}
	}
}

// TestStoreSurvives opens a store again as a crash may leave it.
func TestStoreSurvives(t *testing.T) {
	k := newTask(t)
	k.write("s-1", "one")
	k.write("s-2", "two")
	one := k.mustTake("s-1")
	same := one
	same.Job = "heir-1"
	if err := k.store.Link(same); err != nil {
		t.Fatal(err)
	}
	two, err := k.store.Take(context.Background(), Source{Root: k.root, Path: "s-2", Owner: -1}, Key{Job: "other-1", Epoch: 1, Step: 2}, 5)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(k.store.object(two.Digest)); err != nil { // its ref is of nothing now
		t.Fatal(err)
	}
	stray := Digest{1}
	for _, name := range []string{k.store.object(stray), filepath.Join(k.store.dir, partialFolder, "take-x")} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(k.store.dir, refsFolder, "torn"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := newStore(t, k.store.dir)
	if got := s.Refs(); len(got) != 2 || got[0] != same || got[1] != one {
		t.Errorf("the store holds %v", got)
	}
	if left := tree(t, s.dir); len(left) != 3+2+1+2 { // three folders, two refs, one content of two files
		t.Errorf("left: %v", left)
	}
	s.Drop(one.Key)
	if !s.Has(one.Digest) {
		t.Error("content went that another key names")
	}
	s.Drop(same.Key)
	if s.Has(one.Digest) || len(s.Refs()) != 0 {
		t.Error("content stayed that no key names")
	}
	if err := s.Link(one); !errors.Is(err, ErrAbsent) {
		t.Errorf("named what is not there: %v", err)
	}
}

// TestWatch sees a rename, and that what was renamed is gone or another.
func TestWatch(t *testing.T) {
	k := newTask(t)
	k.write("ckpt/x.tmp", "x")
	w, err := WatchFolder(k.root, "ckpt")
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := os.Rename(filepath.Join(k.dir, "ckpt/x.tmp"), filepath.Join(k.dir, "ckpt/step-1")); err != nil {
		t.Fatal(err)
	}
	wait := func(want bool) {
		t.Helper()
		late := time.After(10 * time.Second)
		for w.Moved()["step-1"] != want {
			select {
			case <-w.News():
			case <-late:
				t.Fatalf("renamed are %v", w.Moved())
			}
		}
	}
	wait(true)
	if err := os.Remove(filepath.Join(k.dir, "ckpt/step-1")); err != nil {
		t.Fatal(err)
	}
	wait(false)
	if _, err := WatchFolder(k.root, "../.."); err == nil {
		t.Error("a folder above the working directory is watched")
	}
}
