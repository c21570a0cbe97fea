package e2e

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"llmos/test/rig"
)

// block is a fenced piece of shell in the README; host is set by ```sh host=ADDRESS.
type block struct {
	line  int
	host  string
	lines []string
}

// readmeBlocks gives the README's shell blocks in order.
func readmeBlocks(t *testing.T, root string) []block {
	t.Helper()
	src, err := os.ReadFile(filepath.Join(root, "README.md"))
	if err != nil {
		t.Fatal(err)
	}
	var out []block
	open, number := false, 0
	for scanner := bufio.NewScanner(bytes.NewReader(src)); scanner.Scan(); {
		number++
		text := scanner.Text()
		switch {
		case !open && strings.HasPrefix(text, "```sh"):
			open = true
			host := strings.TrimPrefix(strings.TrimSpace(strings.TrimPrefix(text, "```sh")), "host=")
			out = append(out, block{line: number, host: host})
		case open && text == "```":
			open = false
		case open && strings.TrimSpace(text) != "":
			last := &out[len(out)-1]
			last.lines = append(last.lines, text)
		}
	}
	if len(out) < 6 {
		t.Fatalf("found only %d shell blocks in README.md", len(out))
	}
	return out
}

// shell runs README commands in one sandbox: a home of its own, and the built program.
type shell struct {
	t    *testing.T
	root string
	env  []string
	back []*exec.Cmd
}

func (s *shell) command(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", "exec "+line)
	cmd.Dir, cmd.Env = s.root, append(os.Environ(), s.env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// run runs a command to its end, which must be good.
func (s *shell) run(line string) string {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := s.command(ctx, line).CombinedOutput()
	s.t.Logf("$ %s\n%s", line, out)
	if err != nil {
		s.t.Fatalf("README: %s: %v", line, err)
	}
	return string(out)
}

// background starts a command that a person would leave running.
func (s *shell) background(line, name string) {
	s.t.Helper()
	log, err := os.Create(filepath.Join(s.t.TempDir(), name+".log"))
	if err != nil {
		s.t.Fatal(err)
	}
	cmd := s.command(context.Background(), line)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.back = append(s.back, cmd)
	s.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		done := make(chan struct{})
		go func() { _ = cmd.Wait(); close(done) }()
		select {
		case <-done:
		case <-time.After(15 * time.Second):
			_ = cmd.Process.Kill()
			s.t.Errorf("%s did not end on SIGTERM", line)
		}
		text, _ := os.ReadFile(log.Name())
		s.t.Logf("%s said:\n%s", line, text)
		_ = log.Close()
	})
}

// until repeats a command until its output holds a word.
func (s *shell) until(line, word string) string {
	s.t.Helper()
	deadline := time.Now().Add(time.Minute)
	var out []byte
	for time.Now().Before(deadline) {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		out, _ = s.command(ctx, line).CombinedOutput()
		cancel()
		if strings.Contains(string(out), word) {
			return string(out)
		}
	}
	s.t.Fatalf("README: %s never said %q:\n%s", line, word, out)
	return ""
}

func newShell(t *testing.T) *shell {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	home := t.TempDir()
	return &shell{t: t, root: root, env: []string{"HOME=" + home, "XDG_CONFIG_HOME=", "XDG_DATA_HOME=", "LLMOS_CLIENT_DIR="}}
}

// TestReadmeFirstMinute runs the commands of "A first job in a minute", each as it is
// printed but for the path of the program.
func TestReadmeFirstMinute(t *testing.T) {
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	s := newShell(t)
	for _, b := range readmeBlocks(t, s.root) {
		if b.host != "" {
			continue
		}
		for _, line := range b.lines {
			local := strings.ReplaceAll(line, "bin/llmos", bin+"/llmos")
			switch {
			case line == "make build":
				s.run("make -n build")
			case strings.HasSuffix(line, "llmos dev"):
				s.background(local, "dev")
				s.until(bin+"/llmos nodes", "ready")
			case strings.Contains(line, " why "):
				s.until(local, "GPU")
			default:
				s.run(local)
			}
		}
	}
}

// TestReadmeThreeHosts runs the three-host page on three loopback addresses.
func TestReadmeThreeHosts(t *testing.T) {
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	third := 10 + os.Getpid()%200
	addresses := strings.NewReplacer("10.0.0.", fmt.Sprintf("127.7.%d.", third))
	shared := t.TempDir()
	s := newShell(t)
	base := s.env
	tokens := map[string]string{}
	for _, b := range readmeBlocks(t, s.root) {
		if b.host == "" {
			continue
		}
		for _, line := range b.lines {
			verb := strings.Fields(line)[1]
			s.env = append(append([]string{}, base...), "LLMOS_DATA_DIR="+filepath.Join(shared, b.host, verb))
			if b.host == "laptop" { // somebody else's, with no credentials yet
				s.env = append(s.env, "HOME="+filepath.Join(shared, "laptop"))
			}
			local := addresses.Replace(strings.Replace(line, "llmos ", bin+"/llmos ", 1))
			local = strings.ReplaceAll(local, "/srv/shared", shared)
			for name, token := range tokens {
				local = strings.ReplaceAll(local, name, token)
			}
			switch {
			case strings.Contains(line, "token create"):
				role := line[strings.LastIndex(line, " ")+1:]
				tokens["$"+strings.ToUpper(role)+"_TOKEN"] = s.token(local)
			case strings.HasPrefix(line, "llmos server") || strings.HasPrefix(line, "llmos agent"):
				s.background(local, b.host)
				if strings.Contains(line, "--bootstrap") {
					s.until(bin+"/llmos status", "leader")
				}
				if strings.Contains(line, "llmos server --listen") { // its token is used; the next server needs its own
					s.until(bin+"/llmos status", strings.Fields(addresses.Replace(strings.TrimPrefix(line, "llmos server --listen ")))[0])
					tokens["$SERVER_TOKEN"] = s.token(bin + "/llmos token create --role server")
				}
			case line == "llmos nodes":
				s.until(local, "ready")
			default:
				s.run(local)
			}
		}
	}
}

// token makes a join token as printed for people, and takes it out of the text.
func (s *shell) token(line string) string {
	s.t.Helper()
	for _, word := range strings.Fields(s.run(line)) {
		if strings.HasPrefix(word, "llmos1.") {
			return word
		}
	}
	s.t.Fatalf("README: %s printed no token", line)
	return ""
}
