package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"io"
	"path/filepath"
	"strings"
	"testing"
)

var sumText = strings.Repeat("0a", 32)

// FuzzManifest decodes anything: what is taken is safe to build and encodes to the same text.
func FuzzManifest(f *testing.F) {
	for _, text := range []string{"", "d 755 \"s\"\n", "d 755 \"s\"\nf 644 5 " + sumText + " \"s/a\"\n", "f 600 0 " + sumText + " \"s.pt\"\n",
		"d 755 \"s\"\nf 644 5 " + sumText + " \"s/../../etc/passwd\"\n", "f 644 5 " + sumText + " \"/etc/passwd\"\n", "d 1755 \"s\"\n", "f 644 -1 " + sumText + " \"s\"\n",
		"d 755 \"s\"\nf 644 1 " + sumText + " \"t/a\"\n", "d 755 \"s\"\nd 755 \"s\"\n", "f 644 1 " + sumText + " \"s\"\nf 644 1 " + sumText + " \"s/a\"\n"} {
		f.Add([]byte(manifestHead + text))
	}
	f.Add([]byte("llmos"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := Decode(data)
		if err != nil {
			return
		}
		if !bytes.Equal(m.Encode(), data) {
			t.Fatalf("%q was taken and is %q", data, m.Encode())
		}
		if m.Size() < 0 || m.Files() > len(m.Entries) || strings.ContainsRune(m.Name(), '/') {
			t.Fatalf("%q has %d bytes in %d files", data, m.Size(), m.Files())
		}
		for _, e := range m.Entries {
			if !filepath.IsLocal(e.Path) || e.Path != m.Name() && !strings.HasPrefix(e.Path, m.Name()+"/") {
				t.Fatalf("%q is outside", e.Path)
			}
		}
	})
}

// FuzzFetch receives anything as a stream: nothing that does not fit its digest gets into the store.
func FuzzFetch(f *testing.F) {
	m := &Manifest{Entries: []Entry{{Path: "s", Mode: 0o644, Size: 3, Sum: sha256.Sum256([]byte("abc"))}}}
	text := m.Encode()
	head := []byte{0, 0, 0, byte(len(text))}
	good := append(append(bytes.Clone(head), text...), "abc"...)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(append(bytes.Clone(good[:len(good)-1]), 'd'))
	f.Add([]byte{255, 255, 255, 255})
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newStore(t, dir) // empty: what it fetched before has no name
		err := s.Fetch(context.Background(), m.Digest(), func(context.Context, int64) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil })
		if fits := bytes.HasPrefix(data, good); fits != (err == nil) || fits != s.Has(m.Digest()) {
			t.Fatalf("%q: %v", data, err)
		}
	})
}
