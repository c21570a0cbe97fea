package main

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

var rewrite = flag.Bool("rewrite", false, "write what the program says into testdata")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"llmos": main})
}

// TestScripts runs llmos as a process: testdata/script reads as prose.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("HOME", filepath.Join(env.WorkDir, "home"))
			env.Setenv("NO_COLOR", "1")
			return os.MkdirAll(filepath.Join(env.WorkDir, "home"), 0o700)
		},
		UpdateScripts:       *rewrite,
		RequireExplicitExec: true,
	})
}
