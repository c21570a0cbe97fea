package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// lookEntriesMax bounds the entries of a checkpoint folder that are looked at, lookDepthMax how deep
// a checkpoint's own folders go.
const (
	lookEntriesMax = 10_000
	lookDepthMax   = 64
)

// Look lists the entries of a folder below root, by name; none while the folder is not there. A
// symbolic link to elsewhere in the folder is passed over; one that leads out of root has a fault,
// and so has the whole folder if it is one. What known says of an entry and its Print is left out.
func Look(root *os.Root, dir string, known func(name, print string) bool) ([]Seen, error) {
	names, err := namesIn(root, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case escapes(root, dir, err):
		return nil, refused("%s is a symbolic link out of the working directory", dir)
	case err != nil:
		return nil, fmt.Errorf("look for checkpoints: %w", err)
	}
	var out []Seen
	for _, name := range names {
		if s, ok := see(root, path.Join(dir, name), known); ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func namesIn(root *os.Root, dir string) ([]string, error) {
	d, err := root.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(lookEntriesMax)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	slices.Sort(names)
	return names, err
}

// escapes reports whether opening failed because a symbolic link led out of root.
func escapes(root *os.Root, name string, err error) bool {
	if err == nil {
		return false
	}
	for at := name; at != "." && at != "/"; at = path.Dir(at) {
		if info, lerr := root.Lstat(at); lerr == nil && info.Mode()&fs.ModeSymlink != 0 {
			return !errors.Is(err, fs.ErrNotExist)
		}
	}
	return false
}

func refused(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrRefused}, args...)...)
}

// see looks at one entry; false when there is nothing to say of it.
func see(root *os.Root, name string, known func(name, print string) bool) (Seen, bool) {
	s := Seen{Name: path.Base(name)}
	info, err := root.Lstat(name)
	if err != nil {
		return s, false // gone
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		if _, err := root.Stat(name); escapes(root, name, err) {
			s.Fault = "it is a symbolic link out of the working directory"
			s.Changed, s.Print = changed(info), print(info)
			return s, !known(s.Name, s.Print)
		}
		return s, false
	}
	s.Dir, s.Changed, s.Newest, s.Print = info.IsDir(), changed(info), info.ModTime(), print(info)
	if !s.Dir {
		return s, info.Mode().IsRegular() && !known(s.Name, s.Print)
	}
	if mark, err := root.Lstat(path.Join(name, DoneMarker)); err == nil {
		s.Marked, s.Print = true, s.Print+print(mark)
		return s, !known(s.Name, s.Print)
	}
	if known(s.Name, s.Print) {
		return s, false // what is in it need not be looked at
	}
	left := lookEntriesMax
	s.Newest = newestIn(root, name, s.Newest, lookDepthMax, &left)
	return s, true
}

// newestIn is the last change of anything in a folder.
func newestIn(root *os.Root, dir string, newest time.Time, depth int, left *int) time.Time {
	names, err := namesIn(root, dir)
	if err != nil || depth == 0 {
		return newest
	}
	for _, name := range names {
		if *left--; *left < 0 {
			return newest
		}
		info, err := root.Lstat(path.Join(dir, name))
		if err != nil {
			continue
		}
		if t := info.ModTime(); t.After(newest) {
			newest = t
		}
		if info.IsDir() {
			newest = newestIn(root, path.Join(dir, name), newest, depth-1, left)
		}
	}
	return newest
}

func changed(info fs.FileInfo) time.Time {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return time.Unix(st.Ctim.Unix())
	}
	return info.ModTime()
}

// print tells one state of an entry from another.
func print(info fs.FileInfo) string {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("%d.%d;", info.Size(), info.ModTime().UnixNano())
	}
	return fmt.Sprintf("%d.%d.%d;", st.Ino, info.Size(), changed(info).UnixNano())
}

// Source is where a task has saved a checkpoint.
type Source struct {
	Root  *os.Root // the task's working directory
	Path  string   // of the file or folder, below it
	Owner int      // user ID that all files must be of; negative: any
}

// Take copies a checkpoint of a task into the store, under a key. Nothing of it is there before all
// of it is, on the disk. The error wraps ErrRefused, ErrChanged or ErrNoRoom when it is that.
//
// It copies, and links nothing: a program may write into files again that it has called finished.
func (s *Store) Take(ctx context.Context, src Source, key Key, savedMS int64) (Ref, error) {
	name := path.Base(src.Path)
	if !utf8.ValidString(name) || len(name) > nameBytesMax {
		return Ref{}, refused("its name is not text, or too long")
	}
	tmp, err := os.MkdirTemp(filepath.Join(s.dir, partialFolder), "take-")
	if err != nil {
		return Ref{}, fmt.Errorf("take a checkpoint: %w", err)
	}
	defer os.RemoveAll(tmp)
	t := &taker{ctx: ctx, src: src, tmp: tmp}
	if err := t.list(src.Path, name, lookDepthMax); err != nil {
		return Ref{}, err
	}
	if err := s.room(t.size); err != nil {
		return Ref{}, err
	}
	slices.SortFunc(t.manifest.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	if err := t.copy(); err != nil {
		return Ref{}, err
	}
	if err := t.manifest.check(); err != nil {
		return Ref{}, refused("%v", err)
	}
	ref := Ref{Key: key, Name: name, Digest: t.manifest.Digest(), Size: t.manifest.Size(), Files: t.manifest.Files(), SavedMS: savedMS}
	if err := s.keep(tmp, &t.manifest); err != nil {
		return Ref{}, err
	}
	return ref, s.Link(ref)
}

// taker copies what a task has saved.
type taker struct {
	ctx      context.Context
	src      Source
	tmp      string
	manifest Manifest
	size     int64
}

// list finds what there is, refuses what cannot be part of a checkpoint, and adds up the sizes.
func (t *taker) list(name, as string, depth int) error {
	info, err := t.src.Root.Lstat(name)
	if err == nil && info.Mode()&fs.ModeSymlink != 0 {
		if info, err = t.src.Root.Stat(name); err == nil && info.IsDir() {
			return refused("%s is a symbolic link to a folder; a checkpoint is made of files and folders", as)
		}
	}
	switch {
	case escapes(t.src.Root, name, err):
		return refused("%s is a symbolic link out of the working directory", as)
	case errors.Is(err, fs.ErrNotExist) && as == path.Base(t.src.Path):
		return refused("there is no %s in the working directory", name)
	case err != nil:
		return fmt.Errorf("%w: %s: %w", ErrChanged, as, err)
	case len(t.manifest.Entries) >= EntriesMax:
		return refused("it has more than %d files and folders", EntriesMax)
	case depth == 0:
		return refused("%s is more than %d folders deep", as, lookDepthMax)
	case !info.IsDir() && !info.Mode().IsRegular():
		return refused("%s is neither a file nor a folder", as)
	}
	if !info.IsDir() {
		t.size += info.Size()
		t.manifest.Entries = append(t.manifest.Entries, Entry{Path: as, Mode: info.Mode().Perm(), Size: info.Size()})
		return nil
	}
	t.manifest.Entries = append(t.manifest.Entries, Entry{Path: as, Dir: true, Mode: info.Mode().Perm()})
	names, err := namesIn(t.src.Root, name)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrChanged, as, err)
	}
	if len(names) >= lookEntriesMax {
		return refused("%s has more than %d entries", as, lookEntriesMax)
	}
	for _, n := range names {
		if n == DoneMarker && as == path.Base(t.src.Path) {
			continue // it is a word to us, and no part of what is saved
		}
		if err := t.list(path.Join(name, n), path.Join(as, n), depth-1); err != nil {
			return err
		}
	}
	return nil
}

// copy copies the files under their numbers, and sums them.
func (t *taker) copy() error {
	parent := path.Dir(t.src.Path)
	for i := range t.manifest.Entries {
		if e := &t.manifest.Entries[i]; !e.Dir {
			if err := t.copyFile(path.Join(parent, e.Path), e, numbered(t.tmp, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (t *taker) copyFile(from string, e *Entry, to string) error {
	in, err := t.src.Root.OpenFile(from, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe put there meanwhile must not hold us
	if err != nil {
		if escapes(t.src.Root, from, err) {
			return refused("%s is a symbolic link out of the working directory", e.Path)
		}
		return fmt.Errorf("%w: %s: %w", ErrChanged, e.Path, err)
	}
	defer in.Close()
	before, err := in.Stat()
	if err != nil || !before.Mode().IsRegular() || before.Size() != e.Size {
		return fmt.Errorf("%w: %s has another size", ErrChanged, e.Path)
	}
	if st, ok := before.Sys().(*syscall.Stat_t); ok && t.src.Owner >= 0 && int(st.Uid) != t.src.Owner {
		return refused("%s is not a file of the task's user", e.Path)
	}
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("take %s: %w", e.Path, err)
	}
	n, sum, err := clone(t.ctx, out, in)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return fmt.Errorf("take %s: %w", e.Path, noRoom(err))
	}
	after, err := in.Stat()
	if err != nil || n != e.Size || after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return fmt.Errorf("%w: %s has changed meanwhile", ErrChanged, e.Path)
	}
	e.Sum = sum
	return nil
}

// clone copies a file, sharing its blocks where the file system can, and sums it.
func clone(ctx context.Context, out, in *os.File) (n int64, sum [sha256.Size]byte, err error) {
	h := sha256.New()
	if unix.IoctlFileClone(int(out.Fd()), int(in.Fd())) == nil {
		n, err = io.Copy(h, &watched{ctx, out})
	} else {
		n, err = io.Copy(io.MultiWriter(out, h), &watched{ctx, in})
	}
	copy(sum[:], h.Sum(nil))
	return n, sum, err
}

// watched ends a long copy with its context.
type watched struct {
	ctx context.Context
	r   io.Reader
}

func (w *watched) Read(b []byte) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	return w.r.Read(b)
}

func noRoom(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	}
	return err
}
