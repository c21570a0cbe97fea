package checkpoint

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A checkpoint's stream is the length of its manifest (four bytes, big endian), the manifest, and
// the content of its files in its order, from an offset on.

// manifestOf reads and checks the manifest of content that is there.
func (s *Store) manifestOf(d Digest) (*Manifest, error) {
	data, err := os.ReadFile(filepath.Join(s.object(d), manifestFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, ErrAbsent
	}
	if err != nil {
		return nil, err
	}
	return checkedManifest(data, d)
}

func checkedManifest(data []byte, d Digest) (*Manifest, error) {
	if sha256.Sum256(data) != d {
		return nil, fmt.Errorf("%w: its manifest", ErrBroken)
	}
	m, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: its manifest: %w", ErrBroken, err)
	}
	return m, nil
}

// Send writes the stream of content from an offset on. It sums what it reads: the error wraps
// ErrBroken when a file that was sent whole is not what the manifest says.
func (s *Store) Send(ctx context.Context, d Digest, offset int64, w io.Writer) error {
	m, err := s.manifestOf(d)
	if err != nil {
		return fmt.Errorf("send checkpoint %s: %w", d, err)
	}
	text := m.Encode()
	if _, err := w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)); err != nil {
		return err
	}
	for i, e := range m.Entries {
		if offset >= e.Size {
			offset -= e.Size
			continue
		}
		if err := s.sendFile(ctx, d, i, e, offset, w); err != nil {
			return err
		}
		offset = 0
	}
	return nil
}

func (s *Store) sendFile(ctx context.Context, d Digest, i int, e Entry, offset int64, w io.Writer) error {
	f, err := os.Open(numbered(s.object(d), i))
	if err != nil {
		return fmt.Errorf("send %s: %w: %w", e.Path, ErrBroken, err)
	}
	defer f.Close()
	if offset > 0 {
		if _, err := f.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("send %s: %w", e.Path, err)
		}
	}
	h := sha256.New()
	n, err := io.Copy(w, io.TeeReader(&watched{ctx, f}, h))
	if err != nil {
		return fmt.Errorf("send %s: %w", e.Path, err)
	}
	if n != e.Size-offset {
		return fmt.Errorf("send %s: %w: it has %d of %d bytes", e.Path, ErrBroken, n+offset, e.Size)
	}
	if offset == 0 && [sha256.Size]byte(h.Sum(nil)) != e.Sum {
		return fmt.Errorf("send %s: %w", e.Path, ErrBroken)
	}
	return nil
}

// Fetch receives content from a stream into the store; open begins the stream at an offset. What
// another try has received whole is not asked for again. Each file is held against the manifest, and
// the manifest against the digest; the error wraps ErrBroken when they do not fit. The caller then
// names the content with Link; until it does, a new start of the store removes it.
func (s *Store) Fetch(ctx context.Context, d Digest, open func(ctx context.Context, offset int64) (io.ReadCloser, error)) error {
	release, err := s.claim(ctx, d)
	if err != nil {
		return err
	}
	defer release()
	if s.Has(d) {
		return nil
	}
	f := &fetch{store: s, digest: d, dir: filepath.Join(s.dir, partialFolder, d.String())}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("fetch checkpoint %s: %w", d, noRoom(err))
	}
	r, err := open(ctx, f.resume())
	if err != nil {
		return err
	}
	defer r.Close()
	if err := f.receive(&watched{ctx, r}); err != nil {
		if errors.Is(err, ErrBroken) {
			_ = os.RemoveAll(f.dir) // begin anew with the next source
		}
		return fmt.Errorf("fetch checkpoint %s: %w", d, noRoom(err))
	}
	return nil
}

// fetch receives one content.
type fetch struct {
	store    *Store
	digest   Digest
	dir      string
	manifest *Manifest // nil before it is known
	done     int       // entries that are there
}

// resume finds what earlier tries have left, and gives the offset behind it.
func (f *fetch) resume() (offset int64) {
	data, err := os.ReadFile(filepath.Join(f.dir, manifestFile))
	if err != nil {
		return 0
	}
	if f.manifest, err = checkedManifest(data, f.digest); err != nil {
		f.manifest = nil
		return 0
	}
	for f.done < len(f.manifest.Entries) {
		e := f.manifest.Entries[f.done]
		if _, err := os.Stat(numbered(f.dir, f.done)); !e.Dir && err != nil {
			break
		}
		offset += e.Size
		f.done++
	}
	return offset
}

func (f *fetch) receive(r io.Reader) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return cutOff(err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > ManifestBytesMax {
		return fmt.Errorf("%w: its manifest has %d bytes", ErrBroken, size)
	}
	text, err := io.ReadAll(io.LimitReader(r, int64(size))) // in steps: a wrong length must not reserve memory
	if err == nil && len(text) < int(size) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return cutOff(err)
	}
	m, err := checkedManifest(text, f.digest)
	if err != nil {
		return err
	}
	if f.manifest == nil {
		f.manifest = m
		if err := f.store.room(m.Size()); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(f.dir, manifestFile), text, 0o600); err != nil {
			return err
		}
	}
	for ; f.done < len(m.Entries); f.done++ {
		if e := m.Entries[f.done]; !e.Dir {
			if err := f.file(r, e); err != nil {
				return fmt.Errorf("%s: %w", e.Path, err)
			}
		}
	}
	return f.store.keep(f.dir, m)
}

// file receives one file; it gets its number when it is whole, right and on the disk.
func (f *fetch) file(r io.Reader, e Entry) error {
	part := filepath.Join(f.dir, "part")
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(out, h), io.LimitReader(r, e.Size))
	if err == nil && n == e.Size {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n < e.Size {
		return cutOff(io.ErrUnexpectedEOF)
	}
	if [sha256.Size]byte(h.Sum(nil)) != e.Sum {
		return ErrBroken
	}
	return os.Rename(part, numbered(f.dir, f.done))
}

// ErrCut is wrapped when a stream ends before its checkpoint does: another try goes on from there.
var ErrCut = errors.New("the stream ended too early")

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return ErrCut
	}
	return err
}
