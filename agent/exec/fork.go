package exec

import (
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// forker forks the task from a thread of its own that lives as long as the shim. That
// thread alone is moved into the v1 groups, gives up new privileges, and is the one whose
// death, with the shim's, makes the kernel kill the task.
type forker struct {
	group *group
	work  chan func()
	ready chan struct{}
}

// newForker makes the group called name and moves the forking thread into it, in the
// background; what it needs is waited for by start.
func newForker(name string) *forker {
	f := &forker{work: make(chan func()), ready: make(chan struct{})}
	go offMainThread(func() {
		f.group = makeGroup(findHierarchies(), name)
		f.group.enterThread()
		_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		close(f.ready)
		for fn := range f.work {
			fn()
		}
	})
	return f
}

// offMainThread runs f on a locked thread that is not the process's first: the memory of
// the shim is accounted to the group of its first thread.
func offMainThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != os.Getpid() {
		f()
		return
	}
	done := make(chan struct{})
	go func() { defer close(done); offMainThread(f) }()
	<-done
}

// do runs fn on the forking thread and waits for it.
func (f *forker) do(fn func()) {
	done := make(chan struct{})
	f.work <- func() { fn(); close(done) }
	<-done
}

// start forks the task into its group, in a session of its own. From then on the forking
// thread is fenced as the task is, and so is what it starts beside it.
func (f *forker) start(l launch, stdout, stderr *os.File) (pid int, err error) {
	<-f.ready
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	f.do(func() {
		if l.hidden != "" {
			if _, err = fence(l.hidden, l.open, l.credential); err != nil {
				err = fmt.Errorf("keep it out of %s: %w", l.hidden, err)
				return
			}
		}
		pid, err = f.fork(l, []*os.File{null, stdout, stderr}, false)
	})
	return pid, err
}

// startBeside forks a command beside the task, whose thread has left the group since. The
// first of its files is a terminal or it has none.
func (f *forker) startBeside(l launch, files []*os.File, terminal bool) (pid int, err error) {
	f.do(func() {
		f.group.enterThread()
		defer f.group.leaveThread()
		pid, err = f.fork(l, files, terminal)
	})
	return pid, err
}

// fork runs on the forking thread.
func (f *forker) fork(l launch, files []*os.File, terminal bool) (pid int, err error) {
	attr := &syscall.SysProcAttr{Setsid: true, Setctty: terminal, Credential: l.credential, Pdeathsig: syscall.SIGKILL}
	if dir := f.group.openV2(); dir != nil {
		defer dir.Close()
		attr.UseCgroupFD, attr.CgroupFD = true, int(dir.Fd())
	}
	return syscall.ForkExec(l.path, l.argv, &syscall.ProcAttr{Dir: l.workdir, Env: l.env,
		Files: []uintptr{files[0].Fd(), files[1].Fd(), files[2].Fd()}, Sys: attr})
}

// leave takes the forking thread out of the groups again, so that they can be removed and
// hold the task alone.
func (f *forker) leave() {
	<-f.ready
	f.do(f.group.leaveThread)
}

// remove deletes the group.
func (f *forker) remove() {
	f.leave()
	f.group.remove()
}
