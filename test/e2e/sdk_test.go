package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"llmos/test/rig"
)

// submitter is a person's program: it submits a job of two ranks, reads what they say and how
// they end, and then one that is refused.
const submitter = `
import sys
import llmos

job = llmos.run([sys.executable, "-c", sys.argv[1]], tasks=2, framework="pytorch", retries=1, env={"PYTHONPATH": sys.argv[2]}, name="sdk")
lines = list(job.follow())
result = job.wait(60)
print(result.ok, result.state, result.attempts, job.logs().count("again from 10"), any("step=10 steps=20 loss=1.5" in line for line in lines))
bad = llmos.run([sys.executable, "-c", "raise SystemExit(7)"]).wait(60)
print(bad.ok, bad.exit_code, bad.reason)
try:
    llmos.run(["x"], framework="torch")
except llmos.LlmosError as e:
    print(e.code, str(e).splitlines()[0])
`

// rank is a program of a task: rank 1 fails once, when rank 0 has saved.
const rank = `
import os, time
import llmos
llmos.init()
if llmos.epoch() > 1:
    print("again from", llmos.resume_step(), os.environ["PET_NODE_RANK"], os.environ["LOCAL_RANK"])
    raise SystemExit(0)
if llmos.rank() == 0:
    with llmos.saving(10) as path:
        path.write_text("saved")
    llmos.report(step=10, steps=20, loss=1.5)
    while not llmos.should_stop():
        time.sleep(0.02)
    raise SystemExit(0)
while not llmos.resume_path():
    time.sleep(0.02)
raise SystemExit(3)
`

// TestSDK submits from Python, on a real cluster: the ranks report, save, are asked to stop when
// one fails, and go on from what was saved.
func TestSDK(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no python3")
	}
	ctx, c := start(t, 1, 1, "")
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	source := filepath.Join(root, "agent", "sdk", "python", "src")
	cmd := exec.CommandContext(ctx, python, "-c", submitter, rank, source)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "LLMOS_CLIENT_DIR="+c.ClientDir(), "LLMOS_PROGRAM="+c.LLMOS(), "PYTHONPATH="+source)
	out, err := cmd.CombinedOutput()
	want := fmt.Sprintf("True succeeded 2 2 True\nFalse 7 rank 0: exit 7\n2 --framework: %q is not a framework; did you mean pytorch?\n", "torch")
	if err != nil || string(out) != want {
		logs, _ := c.Command(ctx, "why", "-v", "sdk").CombinedOutput()
		t.Fatalf("%v: got\n%s\nwant\n%s\n%s", err, strings.TrimSpace(string(out)), want, logs)
	}
}
