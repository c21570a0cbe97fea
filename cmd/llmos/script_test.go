package main

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

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
		Cmds:                map[string]func(ts *testscript.TestScript, neg bool, args []string){"eventually": eventually},
		UpdateScripts:       *rewrite,
		RequireExplicitExec: true,
	})
}

const (
	eventuallyMost  = 30 * time.Second
	eventuallyEvery = 50 * time.Millisecond
)

// eventually runs a command until it succeeds; `eventually grep PATTERN COMMAND...` until
// its output matches as well.
func eventually(ts *testscript.TestScript, neg bool, args []string) {
	pattern := regexp.MustCompile("")
	if len(args) > 2 && args[0] == "grep" {
		pattern, args = regexp.MustCompile(args[1]), args[2:]
	}
	if neg || len(args) == 0 {
		ts.Fatalf("usage: eventually [grep PATTERN] COMMAND [ARGUMENT...]")
	}
	tick := time.NewTicker(eventuallyEvery)
	defer tick.Stop()
	for deadline := time.Now().Add(eventuallyMost); ; <-tick.C {
		err := ts.Exec(args[0], args[1:]...)
		if err == nil && pattern.MatchString(ts.ReadFile("stdout")) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q did not come true: %v", args, err)
		}
	}
}
