package e2e

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"

	pb "llmos/proto/llmos/v1"
)

// TestExec: a command beside a task, with its input, output and exit code, and what it says
// when it cannot be.
func TestExec(t *testing.T) {
	d := sit(t, 2, "2xH100-80GB")
	id := d.submit(d.job("held", 2, 1))
	d.seeRunning(id)
	cmd := d.c.Command(d.ctx, "exec", id+".1", "--", "sh", "-c", `cat; echo "rank $RANK of $WORLD_SIZE" >&2; exit 5`)
	cmd.Stdin = strings.NewReader("typed\n")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if code := cmd.ProcessState.ExitCode(); code != 5 || out.String() != "typed\n" || errs.String() != "rank 1 of 2\n" {
		t.Errorf("exit code %d (%v), stdout %q, stderr %q", code, err, out.String(), errs.String())
	}
	if first, second := d.ask(id+".0", "CUDA_VISIBLE_DEVICES"), d.ask(id+".1", "CUDA_VISIBLE_DEVICES"); first == "" || second == "" || first == second {
		t.Errorf("devices of rank 0 %q, of rank 1 %q", first, second)
	}
	refused(t, llmos(t, d.c, "exec", id, "--", "no-such-program"), "no-such-program", "was not found on node")
	refused(t, llmos(t, d.c, "exec", id+".7", "--", "true"), "has no rank 7", "ranks are 0 to 1")
	refused(t, llmos(t, d.c, "exec", "nobody", "--", "true"), `there is no job "nobody"`)
	d.end("held")
	d.seeDone(id)
	refused(t, llmos(t, d.c, "exec", id, "--", "true"), "does not run", "succeeded")
}

// ask reads a variable of a task's environment by a command beside it.
func (d *desk) ask(task, variable string) string {
	d.t.Helper()
	return strings.TrimSpace(llmos(d.t, d.c, "exec", task, "--", "printenv", variable).out)
}

// TestExecOnATerminal: keys go to the command, and its terminal has the size of ours.
func TestExecOnATerminal(t *testing.T) {
	d := sit(t, 1, "none")
	id := d.submit(d.job("held", 1, 0))
	d.seeRunning(id)
	cmd := d.c.Command(d.ctx, "exec", id)
	screen, err := pty.StartWithSize(cmd, &pty.Winsize{Rows: 33, Cols: 111})
	if err != nil {
		t.Fatal(err)
	}
	defer screen.Close()
	if _, err := io.WriteString(screen, "stty size; exit 4\n"); err != nil {
		t.Fatal(err)
	}
	shown, _ := io.ReadAll(screen) // ends with EIO when the program has
	err = cmd.Wait()
	if cmd.ProcessState.ExitCode() != 4 || !strings.Contains(string(shown), "33 111") {
		t.Errorf("%v; on the screen:\n%s", err, shown)
	}
}

// TestShellEndsWhenItIsLeft: a shell's job ends with it, one that is kept when nobody uses it.
func TestShellEndsWhenItIsLeft(t *testing.T) {
	d := sit(t, 1, "1xH100-80GB")
	left := llmos(t, d.c, "shell", "--gpus", "1", "--", "sh", "-c", "echo I have $CUDA_VISIBLE_DEVICES; exit 6")
	if left.code != 6 || !regexp.MustCompile(`I have \S+`).MatchString(left.out) {
		t.Errorf("%+v", left)
	}
	kept := llmos(t, d.c, "shell", "--keep", "--idle", "1s", "--name", "kept", "--gpus", "1", "--", "true")
	if kept.code != 0 || !strings.Contains(kept.err, "still runs") {
		t.Fatalf("%+v", kept)
	}
	v := d.see("kept", "ended since nobody uses it", func(v *pb.JobView) bool { return v.Job.State == pb.JobState_JOB_STATE_FAILED })
	if !strings.Contains(v.Job.Reason, "nobody has used it for 1s") {
		t.Errorf("it ended because %q", v.Job.Reason)
	}
}

// server answers on the port that the ledger gave it.
const server = `import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(("hello from rank " + os.environ["RANK"]).encode())
http.server.ThreadingHTTPServer(("127.0.0.1", int(os.environ["LLMOS_PORT_HTTP"])), H).serve_forever()`

// TestForward: a port of a task is reached from here, one of somebody else is not.
func TestForward(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("the test's server is written in Python, and there is none")
	}
	d := sit(t, 1, "none")
	job := d.job("served", 2, 0)
	job.Roles[0].Command, job.Roles[0].Ports = []string{"python3", "-c", server}, []string{"http"}
	id := d.submit(job)
	d.seeRunning(id)
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	cmd := d.c.Command(ctx, "forward", id+".1", "0:"+d.ask(id+".1", "LLMOS_PORT_HTTP"))
	said, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	address := readMatch(t, said, regexp.MustCompile(`http://[0-9.:]+`))
	waitFor(t, "an answer from the task", func() bool {
		answer, err := http.Get(address)
		if err != nil {
			return false
		}
		defer answer.Body.Close()
		body, _ := io.ReadAll(answer.Body)
		return string(body) == "hello from rank 1"
	})
	other := d.c.Command(ctx, "forward", id+".1", "0:"+d.ask(id+".0", "LLMOS_PORT_HTTP"))
	if said, err = other.StderrPipe(); err != nil {
		t.Fatal(err)
	}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Process.Kill(); _ = other.Wait() }()
	address = readMatch(t, said, regexp.MustCompile(`http://[0-9.:]+`))
	if answer, err := http.Get(address); err == nil {
		answer.Body.Close()
		t.Errorf("rank 0's port was reached through rank 1: %s", answer.Status)
	}
	readMatch(t, said, regexp.MustCompile(`no process of task .* listens on port \d+ .*somebody else`))
}

// readMatch reads until what has been read matches.
func readMatch(t *testing.T, from io.Reader, pattern *regexp.Regexp) string {
	t.Helper()
	var text []byte
	for buf := make([]byte, 4096); ; {
		n, err := from.Read(buf)
		text = append(text, buf[:n]...)
		if m := pattern.Find(text); m != nil {
			return string(m)
		}
		if err != nil {
			t.Fatalf("%q does not hold %s", text, pattern)
		}
	}
}
