package checkpoint

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// The folders of a store.
const (
	objectsFolder = "objects" // a folder for each content, called by its digest
	refsFolder    = "refs"    // a file for each Ref
	partialFolder = "partial" // what is not whole yet; emptied at the start
	manifestFile  = "manifest"
	nameBytesMax  = 255
	refBytesMax   = 64 << 10
	reserveBytes  = 256 << 20 // left free on the disk
)

// Store is a folder with the checkpoints that a node holds. Content lies in files that are called by
// their number in the manifest. Safe for concurrent use.
type Store struct {
	dir string
	// Reserve is what is left free on the disk, in bytes.
	Reserve int64

	mu   sync.Mutex
	refs map[Key]Ref
	busy map[Digest]chan struct{} // closed when the fetch of it ends
}

// refFile is a Ref as it lies on the disk.
type refFile struct {
	Ref
	Digest string `json:"digest"`
}

// OpenStore makes the folder when it is absent, reads what it holds, and clears away what an earlier
// run has left half done.
func OpenStore(dir string) (*Store, error) {
	s := &Store{dir: dir, Reserve: reserveBytes, refs: map[Key]Ref{}, busy: map[Digest]chan struct{}{}}
	if err := os.RemoveAll(filepath.Join(dir, partialFolder)); err != nil {
		return nil, fmt.Errorf("open the store of checkpoints: %w", err)
	}
	for _, name := range []string{objectsFolder, refsFolder, partialFolder} {
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			return nil, fmt.Errorf("open the store of checkpoints: %w", err)
		}
	}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("open the store of checkpoints: %w", err)
	}
	return s, nil
}

// load reads the refs, and removes those that are damaged or of nothing, and content without any.
func (s *Store) load() error {
	files, err := os.ReadDir(filepath.Join(s.dir, refsFolder))
	if err != nil {
		return err
	}
	used := map[string]bool{}
	for _, f := range files {
		path := filepath.Join(s.dir, refsFolder, f.Name())
		ref, err := readRef(path)
		if err == nil && s.Has(ref.Digest) {
			s.refs[ref.Key], used[ref.Digest.String()] = ref, true
			continue
		}
		_ = os.Remove(path)
	}
	objects, err := os.ReadDir(filepath.Join(s.dir, objectsFolder))
	if err != nil {
		return err
	}
	for _, o := range objects {
		if !used[o.Name()] {
			_ = os.RemoveAll(filepath.Join(s.dir, objectsFolder, o.Name()))
		}
	}
	return nil
}

func readRef(path string) (Ref, error) {
	data, err := os.ReadFile(path)
	if err != nil || len(data) > refBytesMax {
		return Ref{}, errors.New("unreadable")
	}
	var f refFile
	if err := json.Unmarshal(data, &f); err != nil {
		return Ref{}, err
	}
	raw, err := hex.DecodeString(f.Digest)
	if err != nil {
		return Ref{}, err
	}
	f.Ref.Digest, err = DigestOf(raw)
	return f.Ref, err
}

func (s *Store) object(d Digest) string { return filepath.Join(s.dir, objectsFolder, d.String()) }

func numbered(dir string, i int) string { return filepath.Join(dir, strconv.Itoa(i)) }

// Has reports whether the content of a digest is there. Whether it is good shows when it is read.
func (s *Store) Has(d Digest) bool {
	_, err := os.Stat(filepath.Join(s.object(d), manifestFile))
	return err == nil
}

// Refs lists what the store holds, by job, epoch, step and rank.
func (s *Store) Refs() []Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Ref, 0, len(s.refs))
	for _, r := range s.refs {
		out = append(out, r)
	}
	sort.Slice(out, func(i, k int) bool {
		a, b := out[i].Key, out[k].Key
		switch {
		case a.Job != b.Job:
			return a.Job < b.Job
		case a.Epoch != b.Epoch:
			return a.Epoch < b.Epoch
		case a.Step != b.Step:
			return a.Step < b.Step
		}
		return a.Rank < b.Rank
	})
	return out
}

// Ref gives what the store holds of a key.
func (s *Store) Ref(k Key) (Ref, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.refs[k]
	return r, ok
}

// Link names content that is there, in the place of what the key named before.
func (s *Store) Link(r Ref) error {
	if !s.Has(r.Digest) {
		return fmt.Errorf("keep %s: %w", r.Key, ErrAbsent)
	}
	data, err := json.Marshal(refFile{Ref: r, Digest: r.Digest.String()})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := writeSynced(s.refPath(r.Key), data); err != nil {
		return fmt.Errorf("keep %s: %w", r.Key, noRoom(err))
	}
	old, had := s.refs[r.Key]
	s.refs[r.Key] = r
	if had && old.Digest != r.Digest {
		s.sweep(old.Digest)
	}
	return nil
}

func (s *Store) refPath(k Key) string {
	return filepath.Join(s.dir, refsFolder, fmt.Sprintf("%s.e%d.s%d.r%d", url.PathEscape(k.Job), k.Epoch, k.Step, k.Rank))
}

// Drop forgets a key, and its content when no other key names it.
func (s *Store) Drop(k Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r, ok := s.refs[k]
	if !ok {
		return
	}
	delete(s.refs, k)
	_ = os.Remove(s.refPath(k))
	s.sweep(r.Digest)
}

// Lose removes content that was found broken, and gives what named it.
func (s *Store) Lose(d Digest) (lost []Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for k, r := range s.refs {
		if r.Digest == d {
			lost = append(lost, r)
			delete(s.refs, k)
			_ = os.Remove(s.refPath(k))
		}
	}
	s.sweep(d)
	return lost
}

// sweep removes content that nothing names; the caller holds the lock.
func (s *Store) sweep(d Digest) {
	for _, r := range s.refs {
		if r.Digest == d {
			return
		}
	}
	_ = os.RemoveAll(s.object(d))
}

// keep moves a folder of numbered, synced files into its place, with its manifest.
func (s *Store) keep(tmp string, m *Manifest) error {
	d := m.Digest()
	err := writeSynced(filepath.Join(tmp, manifestFile), m.Encode())
	if err == nil {
		err = syncFolder(tmp)
	}
	if err == nil {
		if s.Has(d) {
			return nil // the same content, from elsewhere
		}
		err = os.Rename(tmp, s.object(d))
		if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
			return nil
		}
	}
	if err == nil {
		err = syncFolder(filepath.Join(s.dir, objectsFolder))
	}
	if err != nil {
		return fmt.Errorf("keep a checkpoint: %w", noRoom(err))
	}
	return nil
}

// claim waits until nobody else fetches a content and gives what ends the claim.
func (s *Store) claim(ctx context.Context, d Digest) (release func(), err error) {
	for {
		s.mu.Lock()
		other, taken := s.busy[d]
		if !taken {
			mine := make(chan struct{})
			s.busy[d] = mine
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				delete(s.busy, d)
				close(mine)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// room says whether so many bytes more may be written.
func (s *Store) room(need int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return nil // it will show
	}
	if free := int64(st.Bavail) * st.Bsize; free < need+s.Reserve {
		return fmt.Errorf("%w: a checkpoint of %d bytes, %d free", ErrNoRoom, need, free)
	}
	return nil
}

// writeSynced writes a file so that its name holds all of it or what it held before, also after a
// crash.
func writeSynced(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncFolder(filepath.Dir(path))
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
