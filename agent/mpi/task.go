package mpi

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"llmos/transport/collective"
)

// order is what rank 0 asks of another task; answer what it says when that has ended.
type order struct {
	Command string `json:"command"` // for /bin/sh
}

type answer struct {
	Code int `json:"code"`
}

// runTask is what every task of the job runs.
func runTask(command []string) (int, error) {
	p, err := readPlace()
	if err != nil {
		return exitSetup, fmt.Errorf("the task cannot run as an MPI rank: %w", err)
	}
	t := &taskRun{place: p, state: filepath.Join(os.TempDir(), "mpi-rank.json"), asked: make(chan os.Signal, 4)}
	if err := os.RemoveAll(t.state); err != nil {
		return exitSetup, err
	}
	signal.Notify(t.asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	if p.Rank == 0 {
		return t.master(command)
	}
	return t.member()
}

// taskRun is one task's part in the job.
type taskRun struct {
	place
	state string         // file of the rank that runs here
	asked chan os.Signal // by the agent
	told  bool           // a signal has come
}

// environment is that of mpirun and of Open MPI's daemons.
func (t *taskRun) environment(more ...string) []string {
	env := append(os.Environ(), stateVariable+"="+t.state, fmt.Sprintf("%s=%d", outVariable, os.Getpid()))
	return append(env, more...)
}

// master runs mpirun, or what the job's command makes of it.
func (t *taskRun) master(command []string) (int, error) {
	self, err := os.Executable()
	if err != nil {
		return exitSetup, err
	}
	hosts := filepath.Join(os.TempDir(), "mpi-hosts")
	if err := os.WriteFile(hosts, []byte(hostFile(t.World)), 0o644); err != nil {
		return exitSetup, fmt.Errorf("write the host file: %w", err)
	}
	env := t.environment("OMPI_MCA_plm_rsh_agent="+self+" "+AgentVerb, "OMPI_MCA_plm_rsh_no_tree_spawn=1",
		"OMPI_MCA_orte_leave_session_attached=1", "OMPI_MCA_orte_default_hostfile="+hosts, "OMPI_MCA_hwloc_base_binding_policy=none",
		"PRTE_MCA_plm_ssh_agent="+self+" "+AgentVerb, "PRTE_MCA_plm_ssh_no_tree_spawn=1", "PRTE_MCA_prte_leave_session_attached=1",
		"PRTE_MCA_prte_default_hostfile="+hosts)
	if t.loopback() {
		env = append(env, "OMPI_MCA_btl_tcp_if_include=lo", "OMPI_MCA_oob_tcp_if_include=lo", "OMPI_MCA_btl=tcp,self", "PRTE_MCA_oob_tcp_if_include=lo")
	}
	if os.Geteuid() == 0 {
		env = append(env, "OMPI_ALLOW_RUN_AS_ROOT=1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1", "PRTE_ALLOW_RUN_AS_ROOT=1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM=1")
	}
	if !isMPIRun(command[0]) {
		command = append([]string{"mpirun", "-np", fmt.Sprint(t.World), self, RankVerb, "--"}, command...)
	}
	path, err := exec.LookPath(command[0])
	if err != nil {
		return exitSetup, fmt.Errorf("%s is not in PATH (%s) on this node: install Open MPI (openmpi-bin) on every node", command[0], os.Getenv("PATH"))
	}
	cmd := exec.Command(path, command[1:]...)
	cmd.Env = env
	code, err := t.run(cmd, nil)
	return t.end(code), err
}

func isMPIRun(program string) bool {
	switch filepath.Base(program) {
	case "mpirun", "mpiexec", "orterun", "prterun":
		return true
	}
	return false
}

// run starts a command in a process group of its own, so that signals reach it through relay
// alone, and gives its exit code. lost ends when there is nobody left to run it for.
func (t *taskRun) run(cmd *exec.Cmd, lost <-chan struct{}) (int, error) {
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return exitSetup, err
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	var kill <-chan time.Time
	for {
		select {
		case <-done:
			return exitOf(cmd.ProcessState), nil
		case sig := <-t.asked:
			t.told = true
			t.relay(cmd.Process.Pid, sig.(syscall.Signal))
		case <-lost:
			lost = nil
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM)
			kill = time.After(stopGrace)
		case <-kill:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
}

// relay hands a signal of the agent to the rank that runs here. Every task gets it from its own
// agent: mpirun and its daemons see nothing of it, and end when their ranks have. Before the
// rank has started, and of one that mpirun starts without RankVerb, it goes to the group.
func (t *taskRun) relay(group int, sig syscall.Signal) {
	if s := readState(t.state); s.Pid > 0 && !s.Ended {
		_ = syscall.Kill(s.Pid, sig)
		return
	}
	_ = syscall.Kill(-group, sig)
}

// end gives the task's exit code. A rank that failed by itself speaks for its task, at once. A
// task that was ended by another's failure waits a little, so that the other is heard first.
func (t *taskRun) end(code int) int {
	s := readState(t.state)
	switch {
	case s.Pid > 0 && !s.Ended && !s.Told:
		return exitKilled // it was killed, and could not say so
	case s.Ended && s.Code != 0 && !s.Told:
		return s.Code
	case code == 0 || t.told:
		return code
	}
	select {
	case <-time.After(lingerFailure):
	case <-t.asked:
	}
	return code
}

// member waits for rank 0's order and carries it out.
func (t *taskRun) member() (int, error) {
	conf, err := collective.TLS(t.Config)
	if err != nil {
		return exitSetup, err
	}
	listener, err := net.Listen("tcp", ":"+os.Getenv(ownVariable))
	if err != nil {
		return exitSetup, fmt.Errorf("listen for rank 0: %w", err)
	}
	defer listener.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	orders := make(chan *received)
	go accept(ctx, tls.NewListener(listener, conf), orders)
	select {
	case r := <-orders:
		return t.carryOut(r)
	case sig := <-t.asked:
		return 128 + int(sig.(syscall.Signal)), nil
	}
}

// received is an order with the connection that it came by.
type received struct {
	order
	conn net.Conn
}

// accept hands over the first order of a rank that proves to hold the attempt's key. What
// does not is hung up on.
func accept(ctx context.Context, listener net.Listener, orders chan<- *received) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(dialRetry)
			continue
		}
		go func() {
			r := &received{conn: conn}
			_ = conn.SetDeadline(time.Now().Add(handshakeWithin))
			if err := json.NewDecoder(conn).Decode(&r.order); err != nil || r.Command == "" {
				conn.Close()
				return
			}
			_ = conn.SetDeadline(time.Time{})
			select {
			case orders <- r:
			case <-ctx.Done():
				conn.Close()
			}
		}()
	}
}

// carryOut runs Open MPI's daemon until it ends, or rank 0 has gone.
func (t *taskRun) carryOut(r *received) (int, error) {
	defer r.conn.Close()
	lost := make(chan struct{})
	go func() {
		var one [1]byte
		_, _ = r.conn.Read(one[:]) // nothing comes any more but the end
		close(lost)
	}()
	cmd := exec.Command("/bin/sh", "-c", r.Command)
	cmd.Env = t.environment()
	code, err := t.run(cmd, lost)
	if err == nil {
		_ = r.conn.SetWriteDeadline(time.Now().Add(handshakeWithin))
		_ = json.NewEncoder(r.conn).Encode(answer{Code: code})
	}
	return t.end(code), err
}

// exitOf gives an exit code as a shell does: 128 and the signal of what a signal ended.
func exitOf(s *os.ProcessState) int {
	if status, ok := s.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return 128 + int(status.Signal())
	}
	return s.ExitCode()
}
