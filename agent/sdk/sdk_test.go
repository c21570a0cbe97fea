// Package sdk holds what tasks import to speak to llmos. Its tests run those of the Python
// package, which need Python alone.
package sdk

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// python gives a Python that the package supports, or skips.
func python(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	if err := exec.Command(path, "-c", "import sys; sys.exit(sys.version_info < (3, 9))").Run(); err != nil {
		t.Skipf("%s is older than 3.9, or does not run: %v", path, err)
	}
	return path
}

func TestPython(t *testing.T) {
	source, err := filepath.Abs("python/src")
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python(t), "-m", "unittest", "discover", "-s", "tests")
	cmd.Dir = "python"
	cmd.Env = append(os.Environ(), "PYTHONPATH="+source, "PYTHONDONTWRITEBYTECODE=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "\nOK") {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestTypes holds the package to mypy's strict mode, where mypy is: in the environment that
// make frameworks makes, or beside the Python in PATH.
func TestTypes(t *testing.T) {
	path := "../../bin/frameworks/wheels/bin/python"
	if _, err := os.Stat(path); err != nil {
		path = python(t)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := exec.Command(path, "-c", "import mypy").Run(); err != nil {
		t.Skip("mypy is not installed; make frameworks installs it")
	}
	cmd := exec.Command(path, "-m", "mypy", "--cache-dir", t.TempDir())
	cmd.Dir = "python"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
