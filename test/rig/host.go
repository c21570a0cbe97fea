package rig

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// KillHost does to an agent what the loss of its host does: agent, shims and tasks end
// together by SIGKILL. Only processes that belong to this agent's data folder are touched.
func (p *Process) KillHost() {
	p.Kill()
	for range 50 { // a task may fork between two looks
		left := p.Children()
		if len(left) == 0 {
			return
		}
		for _, pid := range left {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// Children lists the live processes that work for this agent: those whose task folder,
// working folder, arguments or open files lie in its data folder. The agent itself is not
// among them.
func (p *Process) Children() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	self, agent := os.Getpid(), p.Pid()
	var out []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == self || pid == agent {
			continue
		}
		if p.owns(filepath.Join("/proc", e.Name())) {
			out = append(out, pid)
		}
	}
	return out
}

func (p *Process) owns(proc string) bool {
	if dead(proc) {
		return false
	}
	inside := p.DataDir + string(filepath.Separator)
	for _, name := range []string{"environ", "cmdline"} {
		if b, err := os.ReadFile(filepath.Join(proc, name)); err == nil && bytes.Contains(b, []byte(inside)) {
			return true
		}
	}
	if cwd, err := os.Readlink(filepath.Join(proc, "cwd")); err == nil && strings.HasPrefix(cwd+"/", inside) {
		return true
	}
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	if err != nil {
		return false
	}
	for _, fd := range fds {
		if target, err := os.Readlink(filepath.Join(proc, "fd", fd.Name())); err == nil && strings.HasPrefix(target, inside) {
			return true
		}
	}
	return false
}

// dead reports a zombie or a process that has gone.
func dead(proc string) bool {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return true
	}
	i := bytes.LastIndexByte(b, ')')
	return i < 0 || i+2 >= len(b) || b[i+2] == 'Z' || b[i+2] == 'X'
}

// MemoryRSS is the resident memory of the process in bytes, from /proc; 0 when it is gone.
func (p *Process) MemoryRSS() int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid()), "statm"))
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(b))
	if len(fields) < 2 {
		return 0
	}
	pages, err := strconv.ParseInt(fields[1], 10, 64)
	if err != nil {
		return 0
	}
	return pages * int64(os.Getpagesize())
}

// CPUTicks is the processor time the process has used, in ticks of 10 ms.
func (p *Process) CPUTicks() int64 {
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Pid()), "stat"))
	if err != nil {
		return 0
	}
	i := bytes.LastIndexByte(b, ')')
	fields := strings.Fields(string(b[i+1:]))
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseInt(fields[11], 10, 64)
	system, _ := strconv.ParseInt(fields[12], 10, 64)
	return user + system
}

// hasTaskID reports whether an environment, as in /proc, is a task's.
func hasTaskID(environ []byte) bool {
	return bytes.HasPrefix(environ, []byte("LLMOS_TASK_ID=")) || bytes.Contains(environ, []byte("\x00LLMOS_TASK_ID="))
}
