package mpi

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test's program stand for llmos: it runs the hidden verbs.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case TaskVerb, AgentVerb, RankVerb:
			os.Exit(Main(os.Args[1], os.Args[2:]))
		}
	}
	os.Exit(m.Run())
}

// fakeMPIRun does what Open MPI's mpirun does with its remote shell: it starts the program here
// and in every host of the host file but the first, and fails as the first that fails.
const fakeMPIRun = `#!/bin/sh
shift 2 # -np N
for host in $(tail -n +2 "$OMPI_MCA_orte_default_hostfile" | cut -d' ' -f1); do
  $OMPI_MCA_plm_rsh_agent $host "$@" & pids="$pids $!"
done
"$@" & pids="$pids $!"
code=0
for pid in $pids; do wait $pid || code=$?; done
exit $code
`

// gang is an attempt whose tasks run as processes of this test.
type gang struct {
	tasks []*exec.Cmd
	dirs  []string
}

func start(t *testing.T, world int, otherKey int, command ...string) *gang {
	t.Helper()
	root := t.TempDir()
	if err := os.WriteFile(filepath.Join(root, "mpirun"), []byte(fakeMPIRun), 0o755); err != nil {
		t.Fatal(err)
	}
	ports := make([]string, world+1)
	for i := range ports {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, ports[i], _ = net.SplitHostPort(l.Addr().String())
		l.Close()
	}
	peers := make([]string, world)
	for i := range peers {
		peers[i] = "127.0.0.1:" + ports[i]
	}
	g := &gang{}
	for rank := range world {
		dir := filepath.Join(root, "task"+strconv.Itoa(rank))
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		key := bytes.Repeat([]byte{7}, 32)
		if rank == otherKey {
			key[0] = 8
		}
		keyFile := filepath.Join(dir, "key")
		if err := os.WriteFile(keyFile, []byte(hex.EncodeToString(key)), 0o400); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(os.Args[0], append([]string{TaskVerb, "--"}, command...)...)
		cmd.Env = []string{"PATH=" + root + ":/usr/bin:/bin", "TMPDIR=" + dir, "RANK=" + strconv.Itoa(rank), "WORLD_SIZE=" + strconv.Itoa(world),
			"MASTER_ADDR=127.0.0.1", "MASTER_PORT=" + ports[world], "LLMOS_JOB_ID=j-1", "LLMOS_EPOCH=1", "LLMOS_ATTEMPT_KEY_FILE=" + keyFile,
			PeersVariable + "=" + strings.Join(peers, ","), ownVariable + "=" + ports[rank]}
		log, err := os.Create(filepath.Join(dir, "log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		log.Close()
		t.Cleanup(func() { _ = cmd.Process.Kill() })
		g.tasks, g.dirs = append(g.tasks, cmd), append(g.dirs, dir)
	}
	return g
}

// end waits for a task and gives its exit code.
func (g *gang) end(rank int) int {
	_ = g.tasks[rank].Wait()
	return exitOf(g.tasks[rank].ProcessState)
}

func (g *gang) log(rank int) string {
	b, _ := os.ReadFile(filepath.Join(g.dirs[rank], "log"))
	return string(b)
}

// await waits until every rank has written a line.
func (g *gang) await(t *testing.T, line string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for rank := range g.tasks {
		for !strings.Contains(g.log(rank), line) {
			if time.Now().After(deadline) {
				t.Fatalf("rank %d does not say %q: %s", rank, line, g.log(rank))
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}

// program writes a shell script and gives its path.
func program(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEachRankRunsInItsTask(t *testing.T) {
	g := start(t, 3, -1, program(t, "echo rank $RANK of $WORLD_SIZE in $TMPDIR: $1\n"), "word")
	for rank := range g.tasks {
		code := g.end(rank)
		if want := fmt.Sprintf("rank %d of 3 in %s: word\n", rank, g.dirs[rank]); code != 0 || g.log(rank) != want {
			t.Errorf("rank %d: exit %d, says %q, want %q", rank, code, g.log(rank), want)
		}
	}
}

// sleepers runs ranks that say that they are there, and end with 3 on SIGTERM.
func sleepers(t *testing.T) *gang {
	t.Helper()
	g := start(t, 3, -1, program(t, "trap 'exit 3' TERM\necho $$ > $TMPDIR/pid\necho here\nwhile :; do sleep 0.05; done\n"))
	g.await(t, "here")
	return g
}

func TestTheFirstToFailIsNamed(t *testing.T) {
	g := sleepers(t)
	b, err := os.ReadFile(filepath.Join(g.dirs[1], "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code := g.end(1); code != exitKilled {
		t.Errorf("rank 1: exit %d, want %d: %s", code, exitKilled, g.log(1))
	}
	for _, rank := range []int{0, 2} { // as llmos stops the others
		if err := g.tasks[rank].Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("rank %d has ended before it was stopped: %s", rank, g.log(rank))
		}
	}
	for _, rank := range []int{0, 2} {
		g.end(rank)
	}
}

func TestEachRankIsAskedToStop(t *testing.T) {
	g := sleepers(t)
	for _, task := range g.tasks {
		if err := task.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	for rank := range g.tasks {
		if code := g.end(rank); code != 3 {
			t.Errorf("rank %d: exit %d, want the program's own: %s", rank, code, g.log(rank))
		}
	}
}

func TestAnotherAttemptCannotStartAnything(t *testing.T) {
	g := start(t, 2, 1, "true")
	go func() { time.Sleep(2 * time.Second); _ = g.tasks[0].Process.Signal(syscall.SIGTERM) }()
	if code := g.end(0); code == 0 {
		t.Errorf("mpirun started a rank in a task of another key: %s", g.log(0))
	}
	_ = g.tasks[1].Process.Signal(syscall.SIGTERM)
	if code := g.end(1); code != 128+int(syscall.SIGTERM) {
		t.Errorf("the task ended with %d: %s", code, g.log(1))
	}
}

func TestHosts(t *testing.T) {
	if got := hostFile(3); got != "localhost slots=1\nrank1 slots=1\nrank2 slots=1\n" {
		t.Errorf("the host file is %q", got)
	}
	for host, want := range map[string]int{"rank1": 1, "rank2": 2} {
		if got, err := rankOf(host, 3); err != nil || got != want {
			t.Errorf("%s: %d, %v", host, got, err)
		}
	}
	for _, host := range []string{"localhost", "rank0", "rank3", "rank", "rank-1", "gpu-1"} {
		if _, err := rankOf(host, 3); err == nil {
			t.Errorf("%s is taken for a rank", host)
		}
	}
	_, err := rankOf("gpu-1", 3)
	if want := `mpirun asks for host "gpu-1", and the hosts of this job are rank1 to rank2: leave its host file to llmos`; err.Error() != want {
		t.Errorf("got %q, want %q", err, want)
	}
}
