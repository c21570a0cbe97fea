package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"llmos/test/rig"
)

// TestDemo runs what `make demo` runs after its build, and looks at the story that it tells.
func TestDemo(t *testing.T) {
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	// The job file starts bin/charlm of the repository, as a reader of the README has built it.
	if _, err := os.Stat(filepath.Join(root, "bin", "charlm")); err != nil {
		t.Skip("bin/charlm is not built; make test builds it first")
	}
	began := time.Now()
	cmd := exec.Command(filepath.Join(bin, "demo"), "-bin", bin)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the demo failed: %v\n%s", err, out)
	}
	t.Logf("%.0f s\n%s", time.Since(began).Seconds(), out)
	for _, word := range []string{"kill -9 the leader", "leads after", "the ranks never stopped", "a sample of what was learned",
		"every invariant holds", "nothing is left running"} {
		if !strings.Contains(string(out), word) {
			t.Errorf("the demo does not tell of %q", word)
		}
	}
}
