package corpus

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func write(t *testing.T, dir, name, text string) {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestReadTakesProse(t *testing.T) {
	dir := t.TempDir()
	long := strings.Repeat("The quick brown fox. ", SymbolMin/20)
	write(t, dir, "a.md", "# Title\n\n\n\nIt\u2019s \u201cprose\u201d\n"+long)
	write(t, dir, "b/b.go", "package b\n\n// B is documented.\nfunc B() {\n\tx := 1 // not this\n\t// but this\n}\n//go:build no\n")
	write(t, dir, "b/b.pb.go", "// generated\n")
	write(t, dir, "b/c.txt", "not read")
	write(t, dir, "bin/d.md", "not read")
	write(t, dir, ".git/e.md", "not read")
	c, err := Read([]string{dir})
	if err != nil {
		t.Fatal(err)
	}
	text := Decode(c.Text)
	if !strings.HasPrefix(text, "# Title\n\nIt's \"prose\"\nThe quick") || !strings.HasSuffix(text, "B is documented.\n\nbut this\n\n\n") && !strings.HasSuffix(text, "B is documented.\n\nbut this\n\n") {
		t.Errorf("text %.60q ... %q", text, text[len(text)-60:])
	}
	if c.Files != 2 || strings.Contains(text, "not read") || strings.Contains(text, "generated") || strings.Contains(text, "go:build") {
		t.Errorf("%d files", c.Files)
	}
	again, err := Read([]string{filepath.Join(dir, "b"), filepath.Join(dir, "*.md")})
	if err != nil || again.Digest() != c.Digest() {
		t.Errorf("the same files in another order: %v, %v", again, err)
	}
	named, err := Read([]string{filepath.Join(dir, "a.md"), filepath.Join(dir, "b", "c.txt")})
	if err != nil || !strings.Contains(Decode(named.Text), "not read") {
		t.Errorf("a file that was named is not taken: %v", err)
	}
}

func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, "a.md", "too short")
	for source, want := range map[string]string{
		dir:                      "the corpus has 10 characters in 1 files, at least 20480 are needed to learn from",
		filepath.Join(dir, "no"): "file does not exist",
	} {
		if _, err := Read([]string{source}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
}

func TestSamplesDependOnSeedAndStepAlone(t *testing.T) {
	c := &Corpus{Text: slices.Repeat(encode("abcdefghij klmnop\nqrstuvw. "), 4000)}
	starts := map[string]int{}
	for step := range 40 {
		for i := range 50 {
			window, next := c.Sample(1, step, i, 16)
			again, same := c.Sample(1, step, i, 16)
			if &window[0] != &again[0] || next != same {
				t.Fatal("the same sample is another one the second time")
			}
			at := cap(c.Text) - cap(window) + len(window) // the window is a part of the text
			if heldOut(at) {
				t.Fatalf("sample %d of step %d is in the part that is held out", i, step)
			}
			starts[string(rune(at))]++
		}
	}
	if len(starts) < 1900 {
		t.Errorf("2000 samples from only %d places", len(starts))
	}
	window, _ := c.HeldOut(1, 3, 16)
	if at := cap(c.Text) - cap(window) + len(window); !heldOut(at) {
		t.Errorf("a sample of the evaluation is at %d, where training is too", at)
	}
}
