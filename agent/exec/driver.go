package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"llmos/agent/exec/engine"
)

// sweepTimeout bounds the killing of what a dead shim has left, per attempt at it.
const sweepTimeout = 10 * time.Second

// errLogMax is the size at which the shims' own log begins anew with the next Driver.
const errLogMax = 1 << 20

// DriverConfig says how a Driver makes shims.
type DriverConfig struct {
	Self   string   // path of the binary whose verb is ShimMain
	Args   []string // its arguments, such as "shim"; flags follow
	Env    []string // of the shims; tasks never see it
	NodeID string   // names the node's cgroup; empty: no cgroups are used
	ErrLog string   // file for what shims say when they fail; empty: nowhere
	Warm   int      // shims kept ready; 0: each start waits for a new one
	Engine string   // socket of the container engine; empty: where engines listen
	Log    *slog.Logger
}

// Driver starts tasks in shims and finds them again. Safe for concurrent use.
type Driver struct {
	cfg    DriverConfig
	h      hierarchies
	slots  atomic.Uint64
	errLog *os.File // nil: nowhere
	run    string   // distinguishes this driver's slots from an earlier one's

	mu      sync.Mutex
	warm    []*warmShim
	filling int
	closed  bool
	wait    sync.WaitGroup
}

// warmShim is a shim that waits for its task.
type warmShim struct {
	conn *net.UnixConn
	slot string
}

// NewDriver makes a Driver and its first warm shims.
func NewDriver(cfg DriverConfig) *Driver {
	d := &Driver{cfg: cfg, h: findHierarchies(), run: strconv.FormatInt(time.Now().UnixNano(), 36)}
	if cfg.ErrLog != "" {
		f, err := os.OpenFile(cfg.ErrLog, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err == nil {
			if info, serr := f.Stat(); serr == nil && info.Size() > errLogMax {
				err = f.Truncate(0)
			}
			d.errLog = f
		}
		if err != nil {
			cfg.Log.Warn("the shims' own log is not there", "error", err)
		}
	}
	d.fill()
	return d
}

// Close lets go of the warm shims, which end. Running tasks are not touched. Handles stay
// valid.
func (d *Driver) Close() {
	d.mu.Lock()
	d.closed = true
	warm := d.warm
	d.warm = nil
	d.mu.Unlock()
	for _, w := range warm {
		w.conn.Close()
	}
	d.wait.Wait()
	if d.errLog != nil {
		d.errLog.Close()
	}
}

// fill starts shims in the background until enough are warm.
func (d *Driver) fill() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for !d.closed && len(d.warm)+d.filling < d.cfg.Warm {
		d.filling++
		d.wait.Go(func() {
			w, err := d.spawn()
			d.mu.Lock()
			defer d.mu.Unlock()
			d.filling--
			switch {
			case err != nil:
				d.cfg.Log.Warn("no shim could be made ready", "error", err)
			case d.closed:
				w.conn.Close()
			default:
				d.warm = append(d.warm, w)
			}
		})
	}
}

// take gives a warm shim, or a new one.
func (d *Driver) take() (*warmShim, error) {
	d.mu.Lock()
	if n := len(d.warm); n > 0 {
		w := d.warm[0]
		d.warm = d.warm[1:]
		d.mu.Unlock()
		return w, nil
	}
	d.mu.Unlock()
	return d.spawn()
}

// spawn starts a shim: a session of its own, one end of a socket pair as descriptor 0,
// nothing else inherited.
func (d *Driver) spawn() (*warmShim, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("start a shim: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "shim"), os.NewFile(uintptr(fds[1]), "agent")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	ours.Close()
	if err != nil {
		return nil, fmt.Errorf("start a shim: %w", err)
	}
	slot := ""
	if d.cfg.NodeID != "" {
		slot = fmt.Sprintf("%s/%s/%s-%d", cgroupRoot, d.cfg.NodeID, d.run, d.slots.Add(1))
	}
	args := append(append([]string{}, d.cfg.Args...), "--cgroup="+slot)
	cmd := osexec.Command(d.cfg.Self, args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH")}, d.cfg.Env...)
	cmd.Dir = "/"
	cmd.Stdin = theirs
	if d.errLog != nil {
		cmd.Stderr = d.errLog
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("start a shim: %w", err)
	}
	go func() { _ = cmd.Wait() }() // outlives the driver where the task does
	return &warmShim{conn: conn.(*net.UnixConn), slot: slot}, nil
}

// Start hands the task to a shim and returns at once; how it goes comes by the Handle. dir
// must exist and be the task's alone. An error means that no shim has the task.
func (d *Driver) Start(dir string, spec Spec) (*Handle, error) {
	defer d.fill()
	for {
		w, err := d.take()
		if err != nil {
			return nil, err
		}
		spec.Cgroup = w.slot
		if err := writeJSON(dir, specFile, spec, syncNone); err != nil {
			w.conn.Close()
			return nil, err
		}
		if _, err := w.conn.Write([]byte(dir + "\n")); err != nil {
			w.conn.Close()
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
				continue // it died while it was warm and has read nothing
			}
			return nil, fmt.Errorf("hand the task to its shim: %w", err)
		}
		return d.follow(dir, w.conn), nil
	}
}

// Adopt finds the task of dir again after a restart of the agent. A task that has ended
// gives a Handle with its end. ErrNotStarted: it never ran and now never will. ErrDied:
// its shim is gone and everything that was left of it has been killed. Any other error:
// nothing is known yet, or something could not be killed; try again.
func (d *Driver) Adopt(ctx context.Context, dir string) (*Handle, error) {
	for {
		conn, err := d.reach(ctx, dir)
		if err == nil && conn == nil {
			exit, err := ReadExit(dir)
			if err != nil {
				return nil, err
			}
			return endedHandle(dir, *exit), nil
		}
		if err == nil {
			return d.follow(dir, conn), nil
		}
		if !errors.Is(err, errShimBetween) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(reachPause):
		}
	}
}

// reachPause is how long to wait for a shim that is alive and does not take connections:
// it is between its last words and its end.
const reachPause = 5 * time.Millisecond

// reachRetry is the pause after an error that has nothing to do with the shim.
const reachRetry = 200 * time.Millisecond

// errShimBetween says that the shim is alive and its socket is closed.
var errShimBetween = errors.New("the shim is about to end")

// reach looks once at the task of dir. nil, nil: it has ended and its record is there.
func (d *Driver) reach(ctx context.Context, dir string) (*net.UnixConn, error) {
	if exit, err := ReadExit(dir); err != nil || exit != nil {
		return nil, err
	}
	held, won, err := placeClaim(dir, claim{Void: true, BootID: BootID(), PID: os.Getpid()})
	if err != nil {
		return nil, err
	}
	if won {
		held.Close()
		return nil, ErrNotStarted
	}
	var c claim
	if _, err := readJSON(dir, claimFile, &c); err != nil && !damaged(err) {
		return nil, err
	}
	if c.Void {
		return nil, ErrNotStarted
	}
	alive, err := claimHeld(dir)
	if err != nil {
		return nil, err
	}
	if alive && c.BootID == BootID() {
		conn, err := dialIn(dir, "unix", socketFile)
		if err != nil {
			return nil, errShimBetween
		}
		return conn, nil
	}
	// The record is looked for again: it may have been written before the lock was let go.
	if exit, err := ReadExit(dir); err != nil || exit != nil {
		return nil, err
	}
	if err := d.bury(dir); err != nil {
		return nil, err
	}
	return nil, ErrDied
}

// bury kills what a dead shim has left of its task.
func (d *Driver) bury(dir string) error {
	var spec Spec
	if _, err := readJSON(dir, specFile, &spec); err != nil && !damaged(err) {
		return err
	}
	var id *Identity
	if found, err := readJSON(dir, identityFile, &id); err != nil || !found {
		id = nil
	}
	if spec.Image != "" {
		d.buryContainer(dir, spec)
	}
	g := openGroup(d.h, spec.Cgroup)
	if !sweep(dir, id, g, time.Now().Add(sweepTimeout)) {
		return fmt.Errorf("processes of task %s could not be killed within %s", spec.TaskID, sweepTimeout)
	}
	g.remove()
	return nil
}

// buryContainer removes the container of a dead shim. An engine that cannot be reached has
// ended its containers, or their processes are found by their environment as others are;
// what it keeps of them is removed by RemoveStale.
func (d *Driver) buryContainer(dir string, spec Spec) {
	err := withEngine(spec.Engine, func(ctx context.Context, e *engine.Client) error {
		_, err := removeContainers(ctx, e, dirLabel, dir, nil)
		return err
	})
	if err != nil {
		d.cfg.Log.Warn("the container of a task whose shim is gone could not be removed", "task", spec.TaskID, "error", err)
	}
}

// removeStaleContainers removes this node's containers whose shims are gone.
func (d *Driver) removeStaleContainers() {
	err := withEngine(d.cfg.Engine, func(ctx context.Context, e *engine.Client) error {
		n, err := removeContainers(ctx, e, nodeLabel, d.cfg.NodeID, func(c engine.Container) bool {
			held, err := claimHeld(c.Labels[dirLabel])
			return held || err != nil && !errors.Is(err, os.ErrNotExist)
		})
		if n > 0 {
			d.cfg.Log.Info("removed containers that dead shims had left", "count", n)
		}
		return err
	})
	if err != nil {
		d.cfg.Log.Warn("containers that dead shims have left could not be looked for", "error", err)
	}
}

// withEngine calls f with the engine of this node, if there is one.
func withEngine(named string, f func(context.Context, *engine.Client) error) error {
	socket := engineSocket(named)
	if socket == "" {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), engineTimeout)
	defer cancel()
	e, err := engine.Dial(ctx, socket)
	if err != nil {
		return err
	}
	defer e.Close()
	return f(ctx, e)
}

// RemoveStale deletes the empty cgroups of the node that shims of earlier drivers left
// when they were killed, and in the background their containers. Groups that hold processes
// are left alone.
func (d *Driver) RemoveStale() {
	if d.cfg.NodeID == "" {
		return
	}
	d.wait.Go(d.removeStaleContainers)
	mounts := []string{d.h.unified}
	for _, m := range d.h.v1 {
		mounts = append(mounts, m)
	}
	for _, m := range mounts {
		if m == "" {
			continue
		}
		node := filepath.Join(m, cgroupRoot, d.cfg.NodeID)
		entries, err := os.ReadDir(node)
		if err != nil {
			continue
		}
		for _, e := range entries {
			if e.IsDir() && !ownSlot(e.Name(), d.run) {
				_ = unix.Rmdir(filepath.Join(node, e.Name()))
			}
		}
	}
}

func ownSlot(name, run string) bool {
	return len(name) > len(run) && name[:len(run)+1] == run+"-"
}
