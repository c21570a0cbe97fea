package exec

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ShimMain is the body of the hidden verb `llmos shim`; args are those behind the verb. It
// waits on descriptor 0 for one line with a task's directory, runs that task to its end
// and returns the process's exit status. The end of input before a line ends the shim.
func ShimMain(args []string) int {
	flags := flag.NewFlagSet("shim", flag.ContinueOnError)
	slot := flags.String("cgroup", "", "name of the cgroup to make")
	if err := flags.Parse(args); err != nil {
		return ExitCannotStart
	}
	// The shim is not to be ended by what ends its agent. Signals are caught and not
	// ignored, because a task would inherit that.
	caught := make(chan os.Signal, 1)
	signal.Notify(caught, unix.SIGHUP, unix.SIGINT, unix.SIGTERM, unix.SIGQUIT, unix.SIGPIPE)
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	unix.Umask(0o022)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "shim: become subreaper:", err)
		return ExitCannotStart
	}
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	agent, err := net.FileConn(os.Stdin)
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim: descriptor 0 is no socket:", err)
		return ExitCannotStart
	}
	os.Stdin.Close()
	f := newForker(*slot)
	dir, err := readDir(agent)
	if err != nil {
		f.remove()
		return 0
	}
	s := &shim{dir: dir, forker: f, board: newBoard(), children: children,
		stop: make(chan struct{}, 1), kill: make(chan struct{}, 1), end: make(chan string, 1), now: time.Now}
	return s.run(agent)
}

// readDir waits for the line that makes a warm shim the shim of one task. It reads byte by
// byte, because what follows are orders.
func readDir(r io.Reader) (string, error) {
	var line []byte
	for b := make([]byte, 1); len(line) < dirLineBytesMax; {
		if _, err := io.ReadFull(r, b); err != nil {
			return "", err
		}
		if b[0] == '\n' {
			return string(line), nil
		}
		line = append(line, b[0])
	}
	return "", errors.New("the path of the task's directory is too long")
}

// shim runs one task.
type shim struct {
	dir      string
	spec     Spec
	forker   *forker
	tree     *tree
	board    *board
	log      *logWriter
	pipes    []*os.File
	children <-chan os.Signal
	stop     chan struct{} // holds an order that follow has not seen
	kill     chan struct{}
	end      chan string // the reason of an end
	besides  besides

	container atomic.Pointer[contained] // nil: the task runs in none, or not yet
	now       func() time.Time
}

// run takes the task, runs it and records its end. Whatever happens, the record is
// written before the shim ends, or the claim is left without a lock.
func (s *shim) run(agent net.Conn) int {
	// The socket stands before the claim: who sees the claim locked can connect.
	listener, err := listenIn(s.dir, "unix", socketFile)
	if err != nil {
		return s.refuse(agent, err.Error())
	}
	held, won, err := placeClaim(s.dir, ownClaim())
	if err != nil {
		return s.refuse(agent, err.Error())
	}
	if !won {
		return s.refuse(agent, "another shim or agent has claimed the task")
	}
	defer held.Close()
	s.board.serve(agent, s.obey)
	go s.accept(listener)
	exit := s.execute()
	exit.TaskID = s.spec.TaskID
	if err := writeJSON(s.dir, exitFile, exit, syncAll); err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
	}
	s.board.set(true, func(st *Status) { st.Exit = &exit })
	s.board.close()
	listener.Close()
	_ = os.Remove(filepath.Join(s.dir, socketFile))
	s.forker.remove()
	return 0
}

func ownClaim() claim {
	c := claim{BootID: BootID(), PID: os.Getpid()}
	if stat, err := readStat(c.PID); err == nil {
		c.Ticks = stat.ticks
	}
	return c
}

func (s *shim) refuse(agent net.Conn, why string) int {
	s.board.set(true, func(st *Status) { st.Refused = why })
	s.board.serve(agent, func(order) {})
	s.board.close()
	s.forker.remove()
	return ExitCannotStart
}

func (s *shim) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		if !peerAllowed(c) {
			c.Close()
			continue
		}
		s.board.serve(c, s.obey)
	}
}

// execute starts the task and follows it to its end.
func (s *shim) execute() Exit {
	if found, err := readJSON(s.dir, specFile, &s.spec); err != nil || !found {
		return s.failure(cannot(ExitCannotStart, "the task's description cannot be read: %v", err))
	}
	if s.spec.Image != "" {
		return s.executeContainer()
	}
	if started := s.start(); started != nil {
		return s.failure(started)
	}
	stat, err := readStat(s.tree.pid)
	id := Identity{TaskID: s.spec.TaskID, BootID: BootID(), PID: s.tree.pid, Ticks: stat.ticks, Cgroup: s.spec.Cgroup, StartedMS: s.now().UnixMilli()}
	if err == nil {
		err = writeJSON(s.dir, identityFile, id, syncFile)
	}
	if err != nil {
		// Without an identity the task could not be recognised later: it may not run.
		s.tree.kill()
		s.follow()
		return s.failure(cannot(ExitCannotStart, "the task's identity could not be written on node %s: %v%s", s.spec.NodeName, err, diskHint(err)))
	}
	left := make(chan struct{})
	defer s.openBeside(left)()
	s.board.set(true, func(st *Status) { st.Identity = &id })
	if s.spec.DiskBytes > 0 {
		over := make(chan struct{})
		defer close(over)
		go s.watchDisk(over, []string{HomeDir(s.dir), TempDir(s.dir)}, s.tree.group.members)
	}
	go func() { defer close(left); s.forker.leave() }()
	o := s.follow()
	return s.conclude(id, o, s.endOf(s.tree.status))
}

// openBeside takes commands beside the task once its forking thread has left the group, and
// gives what ends that. The socket stands before anybody is told that the task runs: an early
// caller waits.
func (s *shim) openBeside(left <-chan struct{}) (closed func()) {
	l, err := listenIn(s.dir, "unixpacket", besideSocket) // packets keep each request with its descriptors
	if err != nil {
		fmt.Fprintln(os.Stderr, "shim:", err)
		return func() {}
	}
	go func() {
		<-left
		s.serveBeside(l)
	}()
	return func() {
		l.Close()
		_ = os.Remove(filepath.Join(s.dir, besideSocket))
		s.besides.close()
	}
}

// start opens the log, sets the limits and forks.
func (s *shim) start() *startError {
	if fault := s.openLog(); fault != nil {
		return fault
	}
	l, fault := prepare(s.dir, s.spec)
	if fault != nil {
		return fault
	}
	<-s.forker.ready
	if err := s.forker.group.limit(s.spec); err != nil {
		return cannot(ExitCannotStart, "the task's limits could not be set on node %s: %v", s.spec.NodeName, err)
	}
	stdout, stderr, fault := s.openPipes()
	if fault != nil {
		return fault
	}
	s.tree = &tree{group: s.forker.group}
	var err error
	s.tree.pid, err = s.forker.start(l, stdout, stderr)
	stdout.Close()
	stderr.Close()
	if err != nil {
		s.tree = nil
		return forkFault(err, s.spec, l)
	}
	s.copyOutput()
	return nil
}

func (s *shim) openLog() *startError {
	log, err := newLogWriter(filepath.Join(s.dir, logDir), s.spec.LogMaxBytes, s.now)
	if err != nil {
		return cannot(ExitCannotStart, "the task's log could not be made on node %s: %v%s", s.spec.NodeName, err, diskHint(err))
	}
	s.log = log
	return nil
}

// openPipes makes the pipes of the task's output and gives the ends that are written.
func (s *shim) openPipes() (stdout, stderr *os.File, fault *startError) {
	var ends [4]*os.File // read and write end of stdout, then of stderr
	for i := 0; i < len(ends); i += 2 {
		var fds [2]int
		if err := unix.Pipe2(fds[:], unix.O_CLOEXEC); err != nil {
			return nil, nil, cannot(ExitCannotStart, "a pipe for the task's output could not be made on node %s: %v", s.spec.NodeName, err)
		}
		_ = unix.SetNonblock(fds[0], true)
		ends[i], ends[i+1] = os.NewFile(uintptr(fds[0]), "pipe"), os.NewFile(uintptr(fds[1]), "pipe")
	}
	s.pipes = []*os.File{ends[0], ends[2]}
	return ends[1], ends[3], nil
}

// copyOutput brings what comes through the pipes into the log.
func (s *shim) copyOutput() {
	scanner := &progressScanner{publish: s.progress, told: s.told}
	s.log.copyFrom(s.pipes[0], false, scanner.scan)
	s.log.copyFrom(s.pipes[1], true, nil)
}

func (s *shim) progress(p Progress) {
	p.TimeMS = s.now().UnixMilli()
	s.board.set(false, func(st *Status) { st.Progress, st.LogDropped = &p, s.log.dropped.Load() })
}

// told passes on that the task has finished a checkpoint.
func (s *shim) told(t Told) {
	s.board.set(true, func(st *Status) {
		t.Number = 1
		if n := len(st.Told); n > 0 {
			t.Number = st.Told[n-1].Number + 1
		}
		st.Told = append(slices.Clone(st.Told[max(0, len(st.Told)-toldMax+1):]), t)
	})
}

// failure records a task that did not start, in its log too.
func (s *shim) failure(why *startError) Exit {
	if s.log != nil {
		line := record{stderr: true, timeMS: s.now().UnixMilli(), data: []byte("llmos: " + why.reason + "\n")}
		s.log.put(line)
		s.endLog()
	}
	return Exit{State: Failed, Code: why.code, Reason: why.reason, EndedMS: s.now().UnixMilli()}
}

func (s *shim) endLog() {
	s.log.finish(drainTimeout, func() {
		for _, p := range s.pipes {
			p.Close()
		}
	})
	for _, p := range s.pipes {
		p.Close()
	}
}
