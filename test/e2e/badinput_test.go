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

// clear demands what every user's error must be: a non-zero exit, a sentence that holds
// the wanted words, a hint on a line of its own, and no stack trace.
func clear(t *testing.T, s said, words ...string) {
	t.Helper()
	refused(t, s, append(words, "\nhint: ")...)
}

// refused is clear for faults of a job file, which carry their hints in the line.
func refused(t *testing.T, s said, words ...string) {
	t.Helper()
	if s.code == 0 {
		t.Errorf("exit code 0, want a failure\n%s%s", s.out, s.err)
	}
	for _, w := range words {
		if !strings.Contains(s.err, w) {
			t.Errorf("the error does not say %q:\n%s", w, s.err)
		}
	}
	for _, w := range []string{"panic", "goroutine ", "runtime error"} {
		if strings.Contains(s.err, w) {
			t.Errorf("the error is a crash:\n%s", s.err)
		}
	}
}

func TestBadSubmits(t *testing.T) {
	_, c := start(t, 1, 2, "4xH100-80GB")
	file := func(text string) string {
		path := filepath.Join(t.TempDir(), "job.yaml")
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tc := range []struct{ name, text, line, fault, hint string }{
		{"unknown field", "name: x\ncommand: [true]\nreplcas: 3\n", "job.yaml:3: replcas: ", "unknown field", "did you mean"},
		{"wrong unit", "name: x\ncommand: [true]\nresources: {memory: 10 GBs}\n", "job.yaml:3: resources.memory: ", `no unit "GBs"`, "write 10GB"},
		{"negative", "name: x\ncommand: [true]\nresources: {gpus: -1}\n", "job.yaml:3: resources.gpus: ", "-1 is negative", "use a number from"},
		{"duplicate role", "name: x\nroles:\n- {name: a, command: [true]}\n- {name: a, command: [true]}\n", "job.yaml:4: roles[1].name: ", "is taken by roles[0]", "another name"},
	} {
		t.Run(tc.name, func(t *testing.T) { refused(t, llmos(t, c, "run", file(tc.text)), tc.line, tc.fault, tc.hint) })
	}
	cases := []struct {
		name  string
		args  []string
		words []string
	}{
		{"no such file", []string{"run", "nowhere.yaml"}, []string{"nowhere.yaml"}},
		{"impossible for a node", []string{"run", "--gpus", "16", "--", "true"}, []string{"asks 16 GPUs", "the largest node has 4", "the cluster 8"}},
		{"no such job", []string{"why", "nothing"}, []string{"nothing"}},
		{"no such verb", []string{"rnu"}, []string{"rnu"}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) { clear(t, llmos(t, c, tc.args...), tc.words...) })
	}
	if s := llmos(t, c, "ps", "-a", "-o", "json"); strings.Contains(s.out, `"id"`) {
		t.Errorf("a refused submit left a job behind:\n%s", s.out)
	}
}

// TestJobsThatCannotStart: what only the node can know is told by the job's end.
func TestJobsThatCannotStart(t *testing.T) {
	_, c := start(t, 1, 1, "")
	for _, tc := range []struct {
		name  string
		args  []string
		words []string
	}{
		{"command", []string{"run", "--wait", "--", "pyhton", "train.py"}, []string{"pyhton", "not found"}},
		{"folder", []string{"run", "--wait", "--workdir", "/no/such/folder", "--", "true"}, []string{"/no/such/folder", "does not exist"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := llmos(t, c, tc.args...)
			if s.code == 0 {
				t.Errorf("exit code 0, want the job's failure")
			}
			for _, w := range tc.words {
				if !strings.Contains(s.out+s.err, w) {
					t.Errorf("the end does not say %q:\n%s%s", w, s.out, s.err)
				}
			}
		})
	}
	if s := llmos(t, c, "run", "--wait", "--", "sh", "-c", "exit 42"); s.code != 42 {
		t.Errorf("run --wait of a job that exits with 42 exits with %d\n%s", s.code, s.err)
	}
}

func TestDuplicateName(t *testing.T) {
	_, c := start(t, 1, 1, "")
	if s := llmos(t, c, "run", "--name", "solo", "--", "sleep", "60"); s.code != 0 {
		t.Fatalf("first submit: %s", s.err)
	}
	clear(t, llmos(t, c, "run", "--name", "solo", "--", "sleep", "60"), "solo")
	if s := llmos(t, c, "stop", "solo"); s.code != 0 {
		t.Fatalf("stop: %s", s.err)
	}
}

func TestJoining(t *testing.T) {
	ctx, c := start(t, 1, 0, "")
	agent := func(dir string, args ...string) said {
		return call(t, nil, c.LLMOS(), append([]string{"agent", "--listen", "127.0.0.1:0", "--data-dir", dir}, args...)...)
	}
	t.Run("token used twice", func(t *testing.T) {
		token, err := c.Token(ctx, "server")
		if err != nil {
			t.Fatal(err)
		}
		first := call(t, []string{"LLMOS_CLIENT_DIR=" + filepath.Join(t.TempDir(), "client")}, c.LLMOS(),
			"login", token, "--server", c.Servers[0].Addr)
		clear(t, first, "role")
		user, err := c.Token(ctx, "user")
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "client")
		if s := call(t, []string{"LLMOS_CLIENT_DIR=" + dir}, c.LLMOS(), "login", user, "--server", c.Servers[0].Addr); s.code != 0 {
			t.Fatalf("login with a fresh token: %s", s.err)
		}
		clear(t, call(t, []string{"LLMOS_CLIENT_DIR=" + filepath.Join(t.TempDir(), "other")}, c.LLMOS(),
			"login", user, "--server", c.Servers[0].Addr), "used")
	})
	t.Run("wrong authority", func(t *testing.T) {
		_, other := start(t, 1, 0, "")
		token, err := other.Token(ctx, "agent")
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "agent")
		clear(t, agent(dir, "--join", c.Servers[0].Addr, "--token", token), "certificate authority")
		if _, err := os.Stat(filepath.Join(dir, "identity.json")); err == nil {
			t.Error("a refused join left an identity behind")
		}
	})
	t.Run("not a token", func(t *testing.T) {
		clear(t, agent(filepath.Join(t.TempDir(), "agent"), "--join", c.Servers[0].Addr, "--token", "secret"), "token")
	})
	t.Run("no token", func(t *testing.T) {
		clear(t, agent(filepath.Join(t.TempDir(), "agent"), "--join", c.Servers[0].Addr), "token")
	})
}

func TestDataFolders(t *testing.T) {
	ctx, c := start(t, 1, 1, "")
	server := func(dir string, args ...string) said {
		return call(t, []string{"LLMOS_CLIENT_DIR=" + filepath.Join(t.TempDir(), "client")}, c.LLMOS(),
			append([]string{"server", "--listen", "127.0.0.1:0", "--data-dir", dir}, args...)...)
	}
	t.Run("started twice", func(t *testing.T) {
		clear(t, server(c.Servers[0].DataDir), "another llmos is running on")
	})
	t.Run("an agent's", func(t *testing.T) {
		c.Agents[0].Kill()
		clear(t, server(c.Agents[0].DataDir), "agent")
	})
	t.Run("neither bootstrapped nor joined", func(t *testing.T) {
		clear(t, server(filepath.Join(t.TempDir(), "new")), "--bootstrap")
	})
	t.Run("port taken", func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "new")
		clear(t, call(t, nil, c.LLMOS(), "server", "--bootstrap", "--listen", c.Servers[0].Addr, "--data-dir", dir), c.Servers[0].Addr)
		if _, err := os.Stat(filepath.Join(dir, "identity.json")); err == nil {
			t.Error("a cluster was made for a port that is taken")
		}
	})
	t.Run("another cluster's", func(t *testing.T) {
		_, other := start(t, 1, 0, "")
		token, err := other.Token(ctx, "server")
		if err != nil {
			t.Fatal(err)
		}
		c.Servers[0].Stop(5 * time.Second)
		clear(t, server(c.Servers[0].DataDir, "--join", other.Servers[0].Addr, "--token", token), "cluster")
	})
}

// TestDamagedServer: each damaged file of a stopped server ends its start in one sentence.
func TestDamagedServer(t *testing.T) {
	ctx, c := start(t, 1, 0, "")
	for range 5 {
		if s := llmos(t, c, "token", "create", "--role", "user"); s.code != 0 {
			t.Fatal(s.err)
		}
	}
	p := c.Servers[0]
	p.Stop(10 * time.Second)
	var files []string
	err := filepath.Walk(filepath.Join(p.DataDir, "raft"), func(path string, info os.FileInfo, err error) error {
		if err == nil && info.Mode().IsRegular() && info.Size() > 0 {
			files = append(files, path)
		}
		return err
	})
	if err != nil || len(files) == 0 {
		t.Fatalf("no files below %s/raft: %v", p.DataDir, err)
	}
	for _, path := range files {
		t.Run(filepath.Base(path), func(t *testing.T) {
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := os.WriteFile(path, whole, 0o600); err != nil {
					t.Fatal(err)
				}
			}()
			broken := append([]byte{}, whole...)
			for i := range min(len(broken), 16<<10) {
				broken[i] ^= 0x5a
			}
			if err := os.WriteFile(path, broken, 0o600); err != nil {
				t.Fatal(err)
			}
			clear(t, call(t, nil, c.LLMOS(), "server", "--listen", "127.0.0.1:0", "--data-dir", p.DataDir), p.DataDir)
		})
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitLeader(ctx); err != nil {
		t.Errorf("with its files restored the server does not start: %v", err)
	}
}

// TestFullDisk runs a server on a small file system and fills it.
func TestFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount the small file system that this test fills")
	}
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("tmpfs cannot be mounted here: %v: %s", err, out)
	}
	defer exec.Command("umount", "-l", dir).Run()
	cfg := rig.Config{Bin: bin, Dir: filepath.Join(dir, "cluster"), Servers: 1, Timing: "fast"}
	ctx := t.Context()
	c, err := rig.Start(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := fill(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for c.Servers[0].Pid() != 0 && time.Now().Before(deadline) {
		call(t, []string{"LLMOS_CLIENT_DIR=" + c.ClientDir()}, "timeout", "3", c.LLMOS(), "token", "create", "--role", "user")
	}
	if c.Servers[0].Pid() != 0 {
		t.Fatal("the server runs on with a full disk")
	}
	if err := os.Remove(filepath.Join(dir, "ballast")); err != nil {
		t.Fatal(err)
	}
	log, err := os.ReadFile(c.Servers[0].LogFile)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(log), "no space left") || !strings.Contains(string(log), "hint:") {
		t.Errorf("the server's last words do not name the full disk:\n%s", log)
	}
	if err := c.Servers[0].Start(); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitLeader(ctx); err != nil {
		t.Errorf("with space again the server does not come back: %v", err)
	}
}

// fill writes a file until the disk has no more room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := 1 << 20; size >= 1; size /= 4 {
		block := make([]byte, size)
		for {
			if _, err := f.Write(block); err != nil {
				break
			}
		}
	}
	return nil
}
