package checkpoint

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Stage puts content into a folder, which is made, for the task that goes on from it: whole and
// checked, or not at all. Everything is given to the user (negative: left as it is). It gives the
// path of the file or folder. The error wraps ErrBroken when the content is not what its digest says.
func (s *Store) Stage(ctx context.Context, d Digest, into string, uid, gid int) (string, error) {
	m, err := s.manifestOf(d)
	if err != nil {
		return "", fmt.Errorf("stage checkpoint %s: %w", d, err)
	}
	tmp := into + ".staging"
	if err := errors.Join(os.RemoveAll(tmp), os.RemoveAll(into)); err != nil {
		return "", fmt.Errorf("stage checkpoint %s: %w", d, err)
	}
	if err = s.build(ctx, m, d, tmp); err == nil {
		err = own(tmp, m, uid, gid)
	}
	if err == nil {
		err = os.Rename(tmp, into)
	}
	if err != nil {
		return "", errors.Join(fmt.Errorf("stage checkpoint %s: %w", d, noRoom(err)), os.RemoveAll(tmp))
	}
	return filepath.Join(into, m.Name()), nil
}

// build writes all entries below a folder, nobody's yet but the agent's.
func (s *Store) build(ctx context.Context, m *Manifest, d Digest, tmp string) error {
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return err
	}
	for i, e := range m.Entries {
		path := filepath.Join(tmp, filepath.FromSlash(e.Path))
		if e.Dir {
			if err := os.Mkdir(path, 0o700); err != nil {
				return err
			}
			continue
		}
		if err := s.buildFile(ctx, numbered(s.object(d), i), path, e); err != nil {
			return fmt.Errorf("%s: %w", e.Path, err)
		}
	}
	return nil
}

func (s *Store) buildFile(ctx context.Context, from, to string, e Entry) error {
	in, err := os.Open(from)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: it is gone", ErrBroken)
		}
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	n, sum, err := clone(ctx, out, in)
	if err = errors.Join(err, out.Close()); err != nil {
		return err
	}
	if n != e.Size {
		return fmt.Errorf("%w: it has %d of %d bytes", ErrBroken, n, e.Size)
	}
	if sum != [sha256.Size]byte(e.Sum) {
		return ErrBroken
	}
	return nil
}

// own gives everything its permissions and to its user, the innermost first.
func own(tmp string, m *Manifest, uid, gid int) error {
	give := func(path string, mode fs.FileMode) error {
		if err := os.Chmod(path, mode); err != nil {
			return err
		}
		if uid < 0 {
			return nil
		}
		return os.Lchown(path, uid, gid)
	}
	for i := len(m.Entries) - 1; i >= 0; i-- {
		if err := give(filepath.Join(tmp, filepath.FromSlash(m.Entries[i].Path)), m.Entries[i].Mode); err != nil {
			return err
		}
	}
	return give(tmp, 0o755)
}
