package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"llmos/deploy/jobs/charlm/train"
)

// playVar makes the test program be charlm.
const playVar = "CHARLM_TEST_PLAY"

func TestMain(m *testing.M) {
	if os.Getenv(playVar) != "" {
		os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

// rank is one process of a gang.
type rank struct {
	cmd    *exec.Cmd
	out    *bufio.Reader
	errors bytes.Buffer
}

// gang starts a world of processes that learn from this folder's text.
func gang(t *testing.T, world int, epoch int, args ...string) []*rank {
	t.Helper()
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte(strings.Repeat("07", 32)), 0o400); err != nil {
		t.Fatal(err)
	}
	corpus := filepath.Join(dir, "text.md")
	if err := os.WriteFile(corpus, []byte(strings.Repeat("The quick brown fox jumps over the lazy dog. ", 1000)), 0o644); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ranks := make([]*rank, world)
	for i := range ranks {
		r := &rank{cmd: exec.Command(self, append([]string{"-corpus", corpus, "-hidden", "16", "-batch", "32"}, args...)...)}
		r.cmd.Env = []string{playVar + "=1", fmt.Sprintf("RANK=%d", i), fmt.Sprintf("WORLD_SIZE=%d", world), "MASTER_ADDR=127.0.0.1",
			fmt.Sprintf("MASTER_PORT=%d", port), "LLMOS_JOB_ID=charlm-1", fmt.Sprintf("LLMOS_EPOCH=%d", epoch), "LLMOS_ATTEMPT_KEY_FILE=" + key}
		r.cmd.Stderr = &r.errors
		pipe, err := r.cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		r.out = bufio.NewReader(pipe)
		if err := r.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { r.cmd.Process.Kill() })
		ranks[i] = r
	}
	return ranks
}

// until reads a rank's output up to a line that contains the words.
func (r *rank) until(t *testing.T, words string) string {
	t.Helper()
	for {
		line, err := r.out.ReadString('\n')
		if strings.Contains(line, words) {
			return line
		}
		if err != nil {
			t.Fatalf("the output ends without %q (%v): %s", words, err, r.errors.String())
		}
	}
}

// end reads the rest and gives the exit code.
func (r *rank) end(t *testing.T) (code int, rest string) {
	t.Helper()
	text, err := io.ReadAll(r.out)
	if err != nil {
		t.Fatal(err)
	}
	r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode(), string(text)
}

var progressForm = regexp.MustCompile(`^@llmos step=\d+ steps=\d+ loss=\d+\.\d+ tokens_per_s=\d+\n$`)

// TestGangEndsAndGoesOn runs three attempts of one job as processes: the first is asked to
// end, the second loses a rank, the third finishes.
func TestGangEndsAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	csv := filepath.Join(dir, "loss.csv")
	args := []string{"-checkpoint", dir, "-loss-log", csv, "-sample", "40", "-steps"}

	ranks := gang(t, 3, 1, append(args, "1000000")...)
	if line := ranks[0].until(t, "@llmos step=20 "); !progressForm.MatchString(line) {
		t.Errorf("progress line %q", line)
	}
	for _, r := range ranks {
		r.cmd.Process.Signal(syscall.SIGTERM)
	}
	for i, r := range ranks {
		if code, _ := r.end(t); code != 143 {
			t.Errorf("rank %d exits with %d, want 143: %s", i, code, r.errors.String())
		}
	}

	ranks = gang(t, 3, 2, append(args, "1000000")...)
	ranks[0].until(t, "resumed from the checkpoint of step ")
	ranks[0].until(t, "@llmos ")
	ranks[2].cmd.Process.Kill()
	for i, r := range ranks[:2] {
		code, _ := r.end(t)
		if code != exitPeer || !strings.Contains(r.errors.String(), "rank 2 of job charlm-1 (epoch 2) closed its connection during ") {
			t.Errorf("rank %d exits with %d, want %d and the name of rank 2: %s", i, code, exitPeer, r.errors.String())
		}
	}

	names, err := filepath.Glob(filepath.Join(dir, "*.ckpt"))
	if err != nil || len(names) == 0 {
		t.Fatalf("checkpoints %v (%v)", names, err)
	}
	var step int
	if _, err := fmt.Sscanf(filepath.Base(names[len(names)-1]), "step-%d.e", &step); err != nil {
		t.Fatal(err)
	}
	ranks = gang(t, 2, 3, append(args, fmt.Sprint(step+25))...)
	code, rest := ranks[0].end(t)
	if code != 0 || !strings.Contains(rest, "a sample of what was learned:\n# The ") {
		t.Fatalf("exit %d: %s%s", code, rest, ranks[0].errors.String())
	}
	if code, rest := ranks[1].end(t); code != 0 || strings.Contains(rest, "@llmos") {
		t.Errorf("rank 1 exits with %d and says %s", code, rest)
	}
	var res train.Result
	text, err := os.ReadFile(filepath.Join(dir, "result.json"))
	if err != nil || json.Unmarshal(text, &res) != nil || res.ResumedFrom != step || res.Steps != step+25 || res.World != 2 || res.Epoch != 3 || res.Loss <= 0 {
		t.Errorf("result.json %s (%v), want it resumed from %d", text, err, step)
	}
	if lines, err := os.ReadFile(csv); err != nil || !strings.Contains(string(lines), fmt.Sprintf("\n%d,", step+25)) {
		t.Errorf("the loss log has no step %d (%v)", step+25, err)
	}
}

func TestWrongUsage(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"-steps", "0"}, exitUsage, "charlm: 0 steps, want 1 to 1,000,000,000\n"},
		{[]string{"more"}, exitUsage, "charlm: unexpected argument \"more\"\n"},
		{[]string{"-nothing"}, exitUsage, "flag provided but not defined: -nothing"},
		{[]string{"-corpus", "/does/not/exist"}, exitFailed, "charlm: read the corpus /does/not/exist: file does not exist\n"},
	} {
		t.Setenv("RANK", "")
		t.Setenv("WORLD_SIZE", "")
		var out, errs bytes.Buffer
		if code := run(c.args, &out, &errs); code != c.code || !strings.HasPrefix(errs.String(), c.want) {
			t.Errorf("%v: exit %d, %q, want %d, %q", c.args, code, errs.String(), c.code, c.want)
		}
	}
}
