// Package jobs tests that the example job files are ones that llmos takes.
package jobs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/server/jobspec"
)

func TestExamplesAreGoodJobFiles(t *testing.T) {
	paths, err := filepath.Glob("*.yaml")
	if err != nil || len(paths) < 7 {
		t.Fatalf("found %v (%v), want the examples", paths, err)
	}
	for _, path := range paths {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if path == "queues.yaml" {
			if queues, err := jobspec.ParseQueues(path, src); err != nil || len(queues) != 4 {
				t.Errorf("%s: %d queues, %v", path, len(queues), err)
			}
			continue
		}
		absolute, err := filepath.Abs(path)
		if err != nil {
			t.Fatal(err)
		}
		spec, err := jobspec.Parse(absolute, src)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		if path == "charlm.yaml" {
			role := spec.Roles[0]
			root, err := filepath.Abs("../..")
			if err != nil {
				t.Fatal(err)
			}
			if role.Workdir != root || strings.Join(role.Command[:1], " ") != "bin/charlm" || role.Count != 4 || role.Resources.Gpus != 1 || spec.Retries != 3 {
				t.Errorf("%s: %+v", path, spec)
			}
		}
	}
}
