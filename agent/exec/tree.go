package exec

import (
	"bytes"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// killVerified sends SIGKILL to the process that pid names while check holds for it.
func killVerified(pid int, check func() bool) { signalVerified(pid, unix.SIGKILL, check) }

// signalVerified sends a signal to the process that pid names while check holds for it. The
// descriptor pins the process before the check, so a reused number is never hit.
func signalVerified(pid int, sig unix.Signal, check func() bool) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return // gone
	}
	defer unix.Close(fd)
	if check() {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// processes lists the numbers of all processes.
func processes() []int {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var pids []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// tree is the process tree of one task, seen by the shim that forked it. The shim is the
// tree's subreaper: whatever loses its parent becomes the shim's child, so the tree has
// gone when the shim has no children. A child's number stays its own until it is reaped,
// and the one goroutine that reaps is the one that signals: it hits the right process.
type tree struct {
	group  *group
	pid    int
	reaped bool
	status unix.WaitStatus

	mu      sync.Mutex                     // held while children are reaped, and while besides are started or signalled
	besides map[int]chan<- unix.WaitStatus // commands beside the task that have not been reaped
	over    bool                           // nothing is left: nobody would reap another one
}

// startBeside forks a command beside the task; its end is sent to ended, which has room for it.
func (t *tree) startBeside(ended chan<- unix.WaitStatus, fork func() (int, error)) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return 0, ErrNoTask
	}
	pid, err := fork()
	if err != nil {
		return 0, err
	}
	if t.besides == nil {
		t.besides = map[int]chan<- unix.WaitStatus{}
	}
	t.besides[pid] = ended
	return pid, nil
}

// signalBeside signals the process group of a command that has not been reaped.
func (t *tree) signalBeside(pid int, sig unix.Signal) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.besides[pid] != nil {
		_ = unix.Kill(-pid, sig)
	}
}

// alone says whether no command runs beside the task.
func (t *tree) alone() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.besides) == 0
}

// reap collects the children that have ended. ended is true once the task's first process
// has, empty when no child is left.
func (t *tree) reap() (ended, empty bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err == unix.ECHILD {
			t.over = true
			return t.reaped, true
		}
		if err != nil || pid == 0 {
			return t.reaped, false
		}
		if !status.Exited() && !status.Signaled() {
			continue
		}
		if pid == t.pid {
			t.reaped, t.status = true, status
		}
		if beside := t.besides[pid]; beside != nil {
			delete(t.besides, pid)
			beside <- status
		}
	}
}

// signal sends sig to the task's process group while its leader has not been reaped.
func (t *tree) signal(sig unix.Signal) {
	if !t.reaped {
		_ = unix.Kill(-t.pid, sig)
	}
}

// kill sends SIGKILL to everything in the tree that can be seen now. It is repeated until
// reap says empty, because what is killed may leave children behind.
func (t *tree) kill() {
	t.group.kill()
	if !t.reaped {
		_ = unix.Kill(-t.pid, unix.SIGKILL)
	}
	self := os.Getpid()
	for _, pid := range processes() {
		if stat, err := readStat(pid); err == nil && stat.ppid == self && stat.state != 'Z' {
			_ = unix.Kill(pid, unix.SIGKILL) // our own unreaped child: the number is its
		}
	}
}

// sweep kills what a dead shim has left of its task: the members of its group, the
// identified first process, and every process that carries the task's directory in its
// environment. It returns when none is left or the deadline has passed (false).
func sweep(dir string, id *Identity, group *group, deadline time.Time) bool {
	const pauseMin, pauseMax = 2 * time.Millisecond, 200 * time.Millisecond
	for pause := pauseMin; ; pause = min(2*pause, pauseMax) {
		left := len(group.members())
		if left > 0 {
			group.kill()
		}
		if id != nil && id.BootID == BootID() && sameProcess(id) {
			left++
			killVerified(id.PID, func() bool { return sameProcess(id) })
		}
		left += killMarked(dir)
		if left == 0 {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(pause)
	}
}

func sameProcess(id *Identity) bool {
	stat, err := readStat(id.PID)
	return err == nil && stat.ticks == id.Ticks && stat.state != 'Z'
}

// marker is the variable by which a task's processes are known when there is no cgroup.
const marker = "LLMOS_TASK_DIR="

// killMarked kills the processes whose environment names the task's directory and says
// how many it saw.
func killMarked(dir string) int {
	seen := 0
	for _, pid := range processes() {
		if pid != os.Getpid() && marked(pid, dir) {
			seen++
			killVerified(pid, func() bool { return marked(pid, dir) })
		}
	}
	return seen
}

func marked(pid int, dir string) bool {
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil || len(env) == 0 {
		return false
	}
	for entry := range bytes.SplitSeq(env, []byte{0}) {
		if value, ok := bytes.CutPrefix(entry, []byte(marker)); ok && string(value) == dir {
			return true
		}
	}
	return false
}
