// Package test holds the rules of the house as tests: which room may import which, what
// pure packages may not do, and how long files and functions may be. The folders below it
// hold the tests that span rooms: cluster, chaos, bench, demo and e2e.
package test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const (
	fileLinesMax = 500
	funcLinesMax = 70
	module       = "llmos"
)

// source is one Go file of the repository, parsed.
type source struct {
	path  string // relative to the root, with slashes
	dir   string
	lines int
	text  []string
	file  *ast.File
	test  bool
}

// generated reports whether the file is written by a program.
func (s source) generated() bool { return strings.HasSuffix(s.path, ".pb.go") }

var fset = token.NewFileSet()

func sources(t *testing.T) []source {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	var out []source
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata" || d.Name() == "node_modules") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		rel = filepath.ToSlash(rel)
		text := strings.Split(string(src), "\n")
		out = append(out, source{path: rel, dir: filepath.ToSlash(filepath.Dir(rel)), lines: len(text) - 1, text: text,
			file: f, test: strings.HasSuffix(rel, "_test.go")})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("found only %d Go files below %s; the walk is broken", len(out), root)
	}
	return out
}

func TestTopLevelFolders(t *testing.T) {
	allowed := map[string]bool{"cmd": true, "server": true, "agent": true, "fsm": true, "transport": true,
		"proto": true, "deploy": true, "test": true, "bin": true}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() && !strings.HasPrefix(e.Name(), ".") && !allowed[e.Name()] {
			t.Errorf("%s: no such room; the top-level folders are fixed", e.Name())
		}
	}
}

// TestLengths keeps the tail short: what parts loved code from unloved is the longest file.
func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		if s.generated() {
			continue
		}
		if s.lines > fileLinesMax {
			t.Errorf("%s has %d lines, at most %d: divide it by concept", s.path, s.lines, fileLinesMax)
		}
		if s.test {
			continue
		}
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			lines := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if lines > funcLinesMax {
				t.Errorf("%s: func %s has %d lines, at most %d", s.path, fn.Name.Name, lines, funcLinesMax)
			}
		}
	}
}

func TestPackageDocs(t *testing.T) {
	docs := map[string]bool{}
	for _, s := range sources(t) {
		if s.generated() || (s.test && s.dir != "test") {
			continue
		}
		docs[s.dir] = docs[s.dir] || s.file.Doc != nil
	}
	for dir, documented := range docs {
		if !documented {
			t.Errorf("%s: the package has no doc comment (purpose, what it does not do, who calls it)", dir)
		}
		for _, vague := range []string{"util", "utils", "helper", "helpers", "common", "misc"} {
			if filepath.Base(dir) == vague {
				t.Errorf("%s: name a package by what it gives", dir)
			}
		}
	}
}

func TestExportedDocs(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.generated() || s.file.Name.Name == "main" {
			continue
		}
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && d.Doc == nil && !methodOfUnexported(d) && !wellKnown[d.Name.Name] {
					t.Errorf("%s: func %s has no doc comment", s.path, d.Name.Name)
				}
			case *ast.GenDecl:
				undocumentedSpecs(t, s, d)
			}
		}
	}
}

// wellKnown are methods whose contract is a standard interface's.
var wellKnown = map[string]bool{"String": true, "Error": true, "Unwrap": true, "Len": true, "Less": true, "Swap": true,
	"Close": true, "Read": true, "Write": true, "Addr": true, "MarshalJSON": true, "UnmarshalJSON": true}

func methodOfUnexported(d *ast.FuncDecl) bool {
	if d.Recv == nil || len(d.Recv.List) == 0 {
		return false
	}
	typ := d.Recv.List[0].Type
	if star, ok := typ.(*ast.StarExpr); ok {
		typ = star.X
	}
	if index, ok := typ.(*ast.IndexExpr); ok {
		typ = index.X
	}
	id, ok := typ.(*ast.Ident)
	return ok && !id.IsExported()
}

func undocumentedSpecs(t *testing.T, s source, d *ast.GenDecl) {
	for _, spec := range d.Specs {
		switch sp := spec.(type) {
		case *ast.TypeSpec:
			if sp.Name.IsExported() && d.Doc == nil && sp.Doc == nil && sp.Comment == nil {
				t.Errorf("%s: type %s has no doc comment", s.path, sp.Name.Name)
			}
		case *ast.ValueSpec:
			for _, name := range sp.Names {
				if name.IsExported() && d.Doc == nil && sp.Doc == nil && sp.Comment == nil {
					t.Errorf("%s: %s has no doc comment", s.path, name.Name)
				}
			}
		}
	}
}

// layers says for each room which rooms of ours its packages may import; the longest
// matching prefix of the importer counts. Tests of a room may use more.
var layers = map[string][]string{
	"proto":                {},
	"proto/llmos":          {},
	"proto/gen":            {},
	"proto/fault":          {"proto/llmos"},
	"proto/client":         {"proto/llmos", "proto/fault"},
	"fsm/state":            {"proto/llmos"},
	"fsm":                  {"proto/llmos", "fsm/state"},
	"transport":            {"proto"},
	"transport/gossip":     {"proto", "transport"},
	"transport/collective": {"proto"},
	"server/scheduler":     {},
	"server/forecast":      {},
	"server/telemetry":     {"proto/llmos", "fsm/state"},
	"server/metrics":       {"proto/llmos", "fsm/state"},
	"server/plot":          {"proto/fault", "proto/llmos"},
	"server/trace":         {"proto/fault", "proto/llmos"},
	"server/simulate":      {"proto", "fsm", "server/controller", "server/plot", "server/scheduler", "server/trace"},
	"server/jobspec":       {"proto"},
	"server/ca":            {"proto", "transport"},
	"server/controller":    {"proto/llmos", "fsm/state", "server/scheduler", "server/forecast"},
	"server/api":           {"proto", "fsm/state", "server/jobspec", "server/scheduler", "transport"},
	"server":               {"proto", "fsm", "server", "transport"},
	"agent/reconcile":      {"proto/llmos"},
	"agent/fraction":       {},
	"agent/device":         {"proto"},
	"agent/device/sysfs":   {"proto/llmos", "agent/device"},
	"agent/health":         {"proto/llmos", "agent/device"},
	"agent/exec":           {"proto", "agent/exec/engine"},
	"agent/exec/engine":    {},
	"agent":                {"proto", "agent", "transport"},
	"deploy/jobs":          {"deploy/jobs", "transport/collective"},
	"cmd":                  {"proto", "server", "agent", "transport"},
	"test":                 {"proto", "server", "agent", "transport", "fsm", "cmd", "test", "deploy"},
}

func below(path, room string) bool { return path == room || strings.HasPrefix(path, room+"/") }

func longestRoom(dir string) (string, bool) {
	best, found := "", false
	for room := range layers {
		if below(dir, room) && len(room) > len(best) {
			best, found = room, true
		}
	}
	return best, found
}

func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		if s.test {
			continue
		}
		room, ok := longestRoom(s.dir)
		if !ok {
			t.Errorf("%s: no layer is written for this room", s.path)
			continue
		}
		for _, imp := range s.file.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			if !strings.HasPrefix(path, module+"/") {
				continue
			}
			path = strings.TrimPrefix(path, module+"/")
			if !mayImport(s.dir, room, path) {
				t.Errorf("%s: %s may not import %s (allowed: %v)", s.path, room, path, layers[room])
			}
		}
	}
}

func mayImport(dir, room, path string) bool {
	if below(path, dir) || path == dir {
		return true
	}
	for _, allowed := range layers[room] {
		if below(path, allowed) {
			return true
		}
	}
	return false
}
