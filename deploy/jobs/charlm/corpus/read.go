package corpus

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// skipped are folders without prose of their own.
var skipped = map[string]bool{"bin": true, "build": true, "testdata": true, "node_modules": true, "vendor": true}

// Read makes the corpus of files, folders and patterns, in order of path, so that every rank
// that sees the same files has the same text.
func Read(sources []string) (*Corpus, error) {
	var paths []string
	for _, source := range sources {
		found, err := expand(source)
		if err != nil {
			return nil, fmt.Errorf("read the corpus %s: %w", source, err)
		}
		paths = append(paths, found...)
	}
	slices.Sort(paths)
	paths = slices.Compact(paths)
	c := &Corpus{}
	for _, path := range paths {
		text, err := prose(path)
		if err != nil {
			return nil, fmt.Errorf("read the corpus: %w", err)
		}
		symbols := encode(text)
		if len(symbols) == 0 {
			continue
		}
		if len(c.Text)+len(symbols) > bytesMax || c.Files == filesMax {
			c.Cut = true
			break
		}
		c.Text = append(append(c.Text, symbols...), 0)
		c.Files++
	}
	return c, c.check()
}

// expand lists the files that a source stands for.
func expand(source string) ([]string, error) {
	matches, err := filepath.Glob(source)
	if err != nil {
		return nil, err
	}
	if len(matches) == 0 {
		return nil, fs.ErrNotExist
	}
	var paths []string
	for _, match := range matches {
		err := filepath.WalkDir(match, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			if d.IsDir() {
				if path != match && (skipped[d.Name()] || strings.HasPrefix(d.Name(), ".")) {
					return filepath.SkipDir
				}
				return nil
			}
			// A file that was named is taken whatever it is called.
			if path == match || d.Type().IsRegular() && wanted(d.Name()) {
				paths = append(paths, filepath.Clean(path))
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return paths, nil
}

func wanted(name string) bool {
	switch filepath.Ext(name) {
	case ".md", ".proto":
		return true
	case ".go":
		return !strings.HasSuffix(name, ".pb.go")
	}
	return false
}

// prose gives the part of a file that people wrote for people.
func prose(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if info.Size() > fileMax {
		return "", nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	switch filepath.Ext(path) {
	case ".go", ".proto":
		return comments(string(text)), nil
	}
	return string(text), nil
}

// comments gives the text of the lines that are comments, with an empty line between groups.
func comments(text string) string {
	var b strings.Builder
	inside := false
	for line := range strings.Lines(text) {
		words, ok := strings.CutPrefix(strings.TrimSpace(line), "//")
		if ok && !strings.HasPrefix(words, "go:") {
			b.WriteString(strings.TrimPrefix(words, " "))
			b.WriteByte('\n')
		} else if inside {
			b.WriteByte('\n')
		}
		inside = ok
	}
	return b.String()
}
