package checkpoint

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path"
	"path/filepath"
	"strconv"
	"strings"
)

// The bounds of a manifest.
const (
	EntriesMax       = 100_000  // files and folders of one checkpoint
	ManifestBytesMax = 32 << 20 // of the encoded manifest
	pathBytesMax     = 4096
	sizeMax          = int64(1) << 56 // of all files together
	manifestHead     = "llmos-checkpoint 1\n"
)

// Manifest lists what a checkpoint consists of: one file, or one folder with all that is in it. It
// is ordered by path, so that a folder comes before its content.
type Manifest struct {
	Entries []Entry
}

// Entry is a file or a folder.
type Entry struct {
	Path string      // with slashes; its first part is the checkpoint's name
	Dir  bool        // a folder has no size and no sum
	Mode fs.FileMode // permissions alone
	Size int64
	Sum  [sha256.Size]byte // SHA-256 of the content
}

// Name is that of the file or folder itself.
func (m *Manifest) Name() string { return m.Entries[0].Path }

// Size is that of all files together.
func (m *Manifest) Size() (n int64) {
	for _, e := range m.Entries {
		n += e.Size
	}
	return n
}

// Files is the number of files.
func (m *Manifest) Files() (n int) {
	for _, e := range m.Entries {
		if !e.Dir {
			n++
		}
	}
	return n
}

// Encode gives the one text of a manifest: a head, then a line for each entry.
func (m *Manifest) Encode() []byte {
	var b bytes.Buffer
	b.WriteString(manifestHead)
	for _, e := range m.Entries {
		if e.Dir {
			fmt.Fprintf(&b, "d %03o %s\n", e.Mode, strconv.Quote(e.Path))
			continue
		}
		fmt.Fprintf(&b, "f %03o %d %x %s\n", e.Mode, e.Size, e.Sum, strconv.Quote(e.Path))
	}
	return b.Bytes()
}

// Digest names the content.
func (m *Manifest) Digest() Digest { return sha256.Sum256(m.Encode()) }

// Decode reads a manifest from elsewhere. What it gives is safe to build: every path stays below the
// first one, is there once, and has its folder before it. It refuses any text but the one that
// Encode gives.
func Decode(data []byte) (*Manifest, error) {
	if len(data) > ManifestBytesMax {
		return nil, fmt.Errorf("the manifest has %d bytes, at most %d", len(data), ManifestBytesMax)
	}
	rest, ok := strings.CutPrefix(string(data), manifestHead)
	if !ok {
		return nil, errors.New("it does not begin as a manifest")
	}
	m := &Manifest{}
	for n := 1; rest != ""; n++ {
		line, after, ended := strings.Cut(rest, "\n")
		if !ended {
			return nil, errors.New("its last line is cut")
		}
		if n > EntriesMax {
			return nil, fmt.Errorf("it has more than %d entries", EntriesMax)
		}
		e, err := decodeLine(line)
		if err != nil {
			return nil, fmt.Errorf("entry %d: %w", n, err)
		}
		m.Entries = append(m.Entries, e)
		rest = after
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if !bytes.Equal(m.Encode(), data) {
		return nil, errors.New("it is not written as manifests are")
	}
	return m, nil
}

func decodeLine(line string) (e Entry, err error) {
	kind, rest, _ := strings.Cut(line, " ")
	e.Dir = kind == "d"
	if !e.Dir && kind != "f" {
		return e, fmt.Errorf("%q is neither a file nor a folder", kind)
	}
	mode, rest, _ := strings.Cut(rest, " ")
	bits, err := strconv.ParseUint(mode, 8, 32)
	if err != nil || bits > uint64(fs.ModePerm) {
		return e, fmt.Errorf("%q are no permissions", mode)
	}
	e.Mode = fs.FileMode(bits)
	if !e.Dir {
		size, after, _ := strings.Cut(rest, " ")
		if e.Size, err = strconv.ParseInt(size, 10, 64); err != nil || e.Size < 0 {
			return e, fmt.Errorf("%q is no size", size)
		}
		sum, quoted, _ := strings.Cut(after, " ")
		if n, err := hex.Decode(e.Sum[:], []byte(sum[:min(len(sum), 2*len(e.Sum))])); err != nil || n != len(e.Sum) || len(sum) != 2*len(e.Sum) {
			return e, fmt.Errorf("%q is no sum", sum)
		}
		rest = quoted
	}
	if e.Path, err = strconv.Unquote(rest); err != nil || !strings.HasPrefix(rest, `"`) {
		return e, fmt.Errorf("%s is no path", rest)
	}
	return e, nil
}

// check says what is wrong with the entries together.
func (m *Manifest) check() error {
	if len(m.Entries) == 0 {
		return errors.New("it lists nothing")
	}
	total := int64(0)
	dirs := map[string]bool{}
	for i, e := range m.Entries {
		switch parent := path.Dir(e.Path); {
		case e.Path == "" || len(e.Path) > pathBytesMax || strings.ContainsRune(e.Path, 0) || path.Clean(e.Path) != e.Path || !filepath.IsLocal(e.Path) || e.Path == ".":
			return fmt.Errorf("entry %d: %q cannot be a path", i+1, e.Path)
		case i == 0 && parent != ".":
			return fmt.Errorf("entry 1: %q is not the checkpoint itself", e.Path)
		case i > 0 && !dirs[parent]:
			return fmt.Errorf("entry %d: %q is in no folder of the checkpoint", i+1, e.Path)
		case i > 0 && e.Path <= m.Entries[i-1].Path:
			return fmt.Errorf("entry %d: %q is out of order", i+1, e.Path)
		case e.Size > sizeMax || total > math.MaxInt64-e.Size || total+e.Size > sizeMax:
			return fmt.Errorf("entry %d: the files have more than %d bytes", i+1, sizeMax)
		}
		total += e.Size
		if e.Dir {
			dirs[e.Path] = true
		}
	}
	return nil
}
