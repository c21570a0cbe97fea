package mpi

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

// state is what a rank tells the task that it runs in, in a file.
type state struct {
	Pid   int  `json:"pid"` // of RankVerb
	Ended bool `json:"ended"`
	Code  int  `json:"code"`
	Told  bool `json:"told"` // it was told to end: its code says nothing about its own fate
}

// readState gives what has been told; without a file nothing.
func readState(path string) (s state) {
	b, err := os.ReadFile(path)
	if err != nil || json.Unmarshal(b, &s) != nil {
		return state{}
	}
	return s
}

// write replaces the file whole.
func (s state) write(path string) error {
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	partial := path + ".new"
	if err := os.WriteFile(partial, b, 0o644); err != nil {
		return err
	}
	return os.Rename(partial, path)
}

// runRank runs one rank as mpirun, or a daemon of it, has started it: its output goes to the
// log of the task in which it runs, and how it ends is told to that task.
func runRank(command []string) (int, error) {
	path := os.Getenv(stateVariable)
	if path == "" {
		return exitSetup, fmt.Errorf("%s is not set: the rank does not run in a task of llmos", stateVariable)
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Stdin = os.Stdin
	cmd.Stdout, cmd.Stderr = stream(1), stream(2)
	asked := make(chan os.Signal, 4)
	signal.Notify(asked, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	s := state{Pid: os.Getpid()}
	if err := s.write(path); err != nil {
		return exitSetup, fmt.Errorf("tell the task that the rank has started: %w", err)
	}
	if err := cmd.Start(); err != nil {
		s.Ended, s.Code = true, exitSetup
		_ = s.write(path)
		return s.Code, fmt.Errorf("start the rank: %w", err)
	}
	done := make(chan struct{})
	go func() { _ = cmd.Wait(); close(done) }()
	for {
		select {
		case sig := <-asked:
			if sig == syscall.SIGTERM || sig == syscall.SIGINT || sig == syscall.SIGHUP {
				s.Told = true
				_ = s.write(path) // now: it may be killed before it ends
			}
			_ = cmd.Process.Signal(sig)
		case <-done:
			s.Ended, s.Code = true, exitOf(cmd.ProcessState)
			return s.Code, s.write(path)
		}
	}
}

// stream opens a standard stream of the task; when that cannot be, mpirun forwards the rank's
// own to rank 0.
func stream(fd int) *os.File {
	if pid := os.Getenv(outVariable); pid != "" {
		f, err := os.OpenFile(filepath.Join("/proc", pid, "fd", fmt.Sprint(fd)), os.O_WRONLY|os.O_APPEND, 0)
		if err == nil {
			return f
		}
	}
	if fd == 1 {
		return os.Stdout
	}
	return os.Stderr
}
