package test

import (
	"fmt"
	"go/ast"
	"go/types"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/go/packages"
)

// purePackages may use no clock, no randomness, no goroutine, no I/O, and no order of a map.
var purePackages = []string{"fsm", "fsm/state", "server/scheduler", "server/scheduler/packing", "server/scheduler/fair", "server/scheduler/victims", "server/scheduler/elastic", "server/scheduler/predict", "server/scheduler/rank", "server/controller", "server/forecast", "server/jobspec", "agent/reconcile", "agent/fraction", "agent/health"}

// bannedImports maps an import that a pure package may not have to what to do instead.
var bannedImports = map[string]string{
	"os": "I/O belongs in the shell", "net": "I/O belongs in the shell", "net/http": "I/O belongs in the shell",
	"log": "return an event", "log/slog": "return an event", "math/rand": "take the value as an argument",
	"math/rand/v2": "take the value as an argument", "crypto/rand": "take the value as an argument",
	"google.golang.org/grpc": "I/O belongs in the shell", "github.com/hashicorp/raft": "I/O belongs in the shell",
	"os/exec": "I/O belongs in the shell", "io/ioutil": "I/O belongs in the shell",
}

// bannedCalls are the functions of package time that read or wait for a clock.
var bannedCalls = map[string]bool{"Now": true, "Since": true, "Until": true, "After": true, "AfterFunc": true,
	"Sleep": true, "NewTimer": true, "NewTicker": true, "Tick": true}

// unorderedMark excuses a range over a map: the comment says why the order cannot be seen.
const unorderedMark = "unordered:"

func TestPurePackages(t *testing.T) {
	patterns := make([]string, len(purePackages))
	for i, p := range purePackages {
		patterns[i] = module + "/" + p
	}
	cfg := &packages.Config{Mode: packages.NeedName | packages.NeedSyntax | packages.NeedTypes | packages.NeedTypesInfo |
		packages.NeedFiles | packages.NeedImports | packages.NeedDeps, Dir: ".."}
	loaded, err := packages.Load(cfg, patterns...)
	if err != nil {
		t.Fatal(err)
	}
	if len(loaded) != len(purePackages) {
		t.Fatalf("loaded %d packages, want %d", len(loaded), len(purePackages))
	}
	for _, p := range loaded {
		for _, e := range p.Errors {
			t.Errorf("%s: %v", p.PkgPath, e)
		}
		for _, f := range p.Syntax {
			for _, complaint := range impurities(p, f) {
				t.Error(complaint)
			}
		}
	}
}

func impurities(p *packages.Package, f *ast.File) []string {
	var out []string
	complain := func(n ast.Node, format string, args ...any) {
		pos := p.Fset.Position(n.Pos())
		out = append(out, fmt.Sprintf("%s/%s:%d: ", p.PkgPath, filepath.Base(pos.Filename), pos.Line)+fmt.Sprintf(format, args...))
	}
	for _, imp := range f.Imports {
		if why, banned := bannedImports[strings.Trim(imp.Path.Value, `"`)]; banned {
			complain(imp, "a pure package imports %s: %s", imp.Path.Value, why)
		}
	}
	excused := map[int]bool{}
	for _, group := range f.Comments {
		for _, c := range group.List {
			if strings.Contains(c.Text, unorderedMark) {
				line := p.Fset.Position(c.Pos()).Line
				excused[line], excused[line+1], excused[p.Fset.Position(group.End()).Line+1] = true, true, true
			}
		}
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			complain(n, "a pure package starts a goroutine")
		case *ast.SelectorExpr:
			if obj := p.TypesInfo.Uses[n.Sel]; obj != nil && obj.Pkg() != nil && obj.Pkg().Path() == "time" && bannedCalls[obj.Name()] {
				if _, isFunc := obj.(*types.Func); isFunc && obj.Parent() == obj.Pkg().Scope() {
					complain(n, "a pure package calls time.%s: take the time as an argument", obj.Name())
				}
			}
		case *ast.RangeStmt:
			if _, isMap := p.TypesInfo.TypeOf(n.X).Underlying().(*types.Map); isMap && !excused[p.Fset.Position(n.Pos()).Line] {
				complain(n, "a range over a map in a pure package: sort the keys, or say `// %s why the order cannot be seen`", unorderedMark)
			}
		}
		return true
	})
	return out
}
