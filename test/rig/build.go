package rig

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
)

// binEnv names a folder with programs that are built already, as `make test` sets it.
const binEnv = "LLMOS_TEST_BIN"

var buildOnce = sync.OnceValues(func() (string, error) {
	root, err := Root()
	if err != nil {
		return "", err
	}
	if dir := os.Getenv(binEnv); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.MkdirTemp("", "llmos-bin-")
	if err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-o", dir+"/", "./cmd/llmos", "./deploy/jobs/charlm", "./test/chaos", "./test/demo")
	cmd.Dir = root
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w: %s", err, out)
	}
	return dir, nil
})

// Programs is a folder that holds the built programs: the one that LLMOS_TEST_BIN names, or
// a fresh build, made once in this process.
func Programs() (string, error) { return buildOnce() }

// Root is the repository's root: the nearest folder above this one with go.mod.
func Root() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", fmt.Errorf("no go.mod above the working folder")
		}
		dir = parent
	}
}
