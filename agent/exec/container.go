package exec

import (
	"context"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"llmos/agent/exec/engine"
)

// How the engine is asked.
const (
	engineTimeout  = 30 * time.Second // for a call that should be answered at once
	engineRetryMin = 20 * time.Millisecond
	engineRetryMax = 5 * time.Second
)

// contained is a task's container, seen by the shim that made it. The engine runs it, and
// the shim does the rest as it does for a process: log, stop, limits that the engine does
// not know, the record of the end. The shim can die without the container, which is then
// found by its labels.
type contained struct {
	shim   *shim
	engine *engine.Client // nil: it was not reached
	id     string         // empty: not made
	user   string
	path   string // in which its image looks for commands
	upper  string // folder of the host with what the container has changed of its image; empty: not known
	pid    int    // of its first process, on this host
	cgroup string
	over   chan struct{} // closed when it does not run any more
	end    ended
}

// executeContainer runs the task in a container and follows it to its end.
func (s *shim) executeContainer() Exit {
	if fault := s.openLog(); fault != nil {
		return s.failure(fault)
	}
	k := &contained{shim: s, over: make(chan struct{})}
	defer k.close()
	o, fault := k.setUp()
	if fault != nil {
		exit := s.failure(fault)
		if o.asked {
			exit.State, exit.Code, exit.Reason = Stopped, 0, "stopped before it ran"
		} else if o.blame != "" {
			exit.Reason = o.blame
		}
		return exit
	}
	id, err := k.identify()
	if err != nil {
		return s.failure(cannot(ExitCannotStart, "the task's identity could not be written on node %s: %v%s", s.spec.NodeName, err, diskHint(err)))
	}
	s.container.Store(k)
	left := make(chan struct{})
	close(left) // no process is forked here, so none can be in the wrong group
	defer s.openBeside(left)()
	s.board.set(true, func(st *Status) { st.Identity = &id })
	if s.spec.DiskBytes > 0 {
		folders := []string{HomeDir(s.dir), TempDir(s.dir)}
		if k.upper != "" {
			folders = append(folders, k.upper)
		}
		go s.watchDisk(k.over, folders, func() []int { return nil })
	}
	go k.await()
	o = k.follow(o)
	return s.conclude(id, o, k.end)
}

// setUp makes and starts the container. An order to end the task ends that, too, however
// long its image takes to come.
func (k *contained) setUp() (o outcome, fault *startError) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ready := make(chan *startError, 1)
	go func() { ready <- k.start(ctx) }()
	s := k.shim
	for {
		select {
		case fault := <-ready:
			if fault == nil && (o.asked || o.blame != "") {
				fault = cannot(ExitCannotStart, "the task was ended before it ran")
			}
			return o, fault
		case <-s.stop:
			o.asked = o.asked || o.blame == ""
		case <-s.kill:
			o.asked = o.asked || o.blame == ""
		case reason := <-s.end:
			if !o.asked {
				o.blame = reason
			}
		}
		cancel()
	}
}

// start does what it takes until the container runs. What it leaves half done is close's.
func (k *contained) start(ctx context.Context) *startError {
	s, spec := k.shim, k.shim.spec
	socket := engineSocket(spec.Engine)
	if socket == "" {
		return cannot(ExitCannotStart, "node %s has no container engine: %s is not there (start Docker or Podman, or name its socket with `llmos agent --engine`)",
			spec.NodeName, engineNames(spec.Engine))
	}
	e, err := engine.Dial(ctx, socket)
	if err != nil {
		return cannot(ExitCannotStart, "the container engine of node %s cannot be used: %v", spec.NodeName, err)
	}
	k.engine = e
	config, fault := k.configure(ctx)
	if fault != nil {
		return fault
	}
	if k.id, err = e.Create(ctx, "llmos-"+spec.NodeID+"-"+spec.TaskID, config); err != nil {
		return containerFault(err, spec)
	}
	if fault := k.checkCommand(ctx, config); fault != nil {
		return fault
	}
	stdout, stderr, fault := s.openPipes()
	if fault != nil {
		return fault
	}
	s.copyOutput()
	output, err := e.Attach(ctx, k.id)
	if err != nil {
		stdout.Close()
		stderr.Close()
		return containerFault(err, spec)
	}
	go k.copyOutput(output, stdout, stderr)
	if err := e.Start(ctx, k.id); err != nil {
		output.Close()
		close(k.over)
		return containerFault(err, spec)
	}
	return nil
}

// copyOutput brings what the container says to the log, over as many streams as it takes:
// one ends early when the engine is started anew under a running container.
func (k *contained) copyOutput(output *engine.Stream, stdout, stderr *os.File) {
	defer stdout.Close()
	defer stderr.Close()
	for output != nil {
		_ = output.Split(stdout, stderr)
		output.Close()
		output = k.attachAgain()
	}
}

// attachAgain gives a new stream when the container still runs; else nil.
func (k *contained) attachAgain() *engine.Stream {
	for pause := engineRetryMin; ; pause = min(2*pause, engineRetryMax) {
		ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
		c, err := k.engine.Inspect(ctx, k.id)
		if engine.NotFound(err) || err == nil && !c.State.Running {
			cancel()
			return nil
		}
		if err == nil {
			output, aerr := k.engine.Attach(ctx, k.id)
			if aerr == nil {
				cancel()
				k.shim.note("the container engine has let go of the task's output; what it said meanwhile is lost")
				return output
			}
		}
		cancel()
		select {
		case <-k.over:
			return nil
		case <-time.After(pause):
		}
	}
}

// note writes a line of our own into the task's log.
func (s *shim) note(text string) {
	s.log.put(record{stderr: true, timeMS: s.now().UnixMilli(), data: []byte("llmos: " + text + "\n")})
}

// warn says in the shims' own log what could not be done.
func (s *shim) warn(what string, err error) {
	fmt.Fprintf(os.Stderr, "shim: task %s: %s: %v\n", s.spec.TaskID, what, err)
}

// identify looks at the running container and writes down who it is.
func (k *contained) identify() (Identity, error) {
	s := k.shim
	id := Identity{TaskID: s.spec.TaskID, BootID: BootID(), Container: k.id, StartedMS: s.now().UnixMilli()}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if c, err := k.engine.Inspect(ctx, k.id); err == nil {
		k.upper = c.GraphDriver.Data.UpperDir
		if stat, err := readStat(c.State.PID); err == nil && c.State.PID > 0 {
			k.pid, k.cgroup = c.State.PID, cgroupOf(c.State.PID, k.id)
			id.PID, id.Ticks, id.Cgroup = k.pid, stat.ticks, k.cgroup
		}
	}
	return id, writeJSON(s.dir, identityFile, id, syncFile)
}

// follow waits until the container has ended, and passes on what is asked of it.
func (k *contained) follow(o outcome) outcome {
	s := k.shim
	var again, deadline <-chan time.Time
	killing, retry := false, 100*time.Millisecond
	for {
		if killing {
			go k.signal(unix.SIGKILL) // an engine that does not answer is asked again
			again = time.After(retry)
			retry = min(2*retry, engineRetryMax)
		}
		select {
		case <-k.over:
			return o
		case <-again:
		case <-deadline:
			killing = true
		case <-s.stop:
			o.asked = o.asked || o.blame == ""
			if deadline == nil {
				go k.signal(stopSignal(s.spec.StopSignal))
				deadline = time.After(grace(s.spec))
			}
		case <-s.kill:
			o.asked = o.asked || o.blame == ""
			killing = true
		case reason := <-s.end:
			if !o.asked {
				o.blame = reason
			}
			killing = true
		}
	}
}

// signal sends a signal to the container's first process. With SIGKILL all of it ends.
func (k *contained) signal(sig unix.Signal) {
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if err := k.engine.Kill(ctx, k.id, unix.SignalName(sig)); err != nil && !engine.NotFound(err) && !engine.Conflict(err) {
		k.shim.warn("signal the container", err)
	}
}

// await waits for the end of the container, however often the engine goes away meanwhile.
func (k *contained) await() {
	defer close(k.over)
	for pause := engineRetryMin; ; pause = min(2*pause, engineRetryMax) {
		code, err := k.engine.Wait(context.Background(), k.id)
		if err == nil {
			k.end = k.ended(code)
			return
		}
		if engine.NotFound(err) {
			k.end = ended{code: 137, signal: int(unix.SIGKILL), how: "somebody removed the task's container"}
			return
		}
		time.Sleep(pause)
	}
}

// ended puts the container's exit code into words. The engine tells no signal from a code.
func (k *contained) ended(code int) ended {
	e := ended{code: code, how: fmt.Sprintf("exit %d", code)}
	if name := unix.SignalName(unix.Signal(code - 128)); code > 128 && name != "" {
		e.signal = code - 128
		e.how = fmt.Sprintf("ended by signal %s", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	c, err := k.engine.Inspect(ctx, k.id)
	if err == nil && c.State.OOMKilled && code != 0 {
		e.limit = oomText(k.shim.spec)
	}
	return e
}

// close removes what there is of the container.
func (k *contained) close() {
	if k.engine == nil {
		return
	}
	defer k.engine.Close()
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	if _, err := removeContainers(ctx, k.engine, dirLabel, k.shim.dir, nil); err != nil {
		k.shim.warn("remove the container", err)
	}
}
