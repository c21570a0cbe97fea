package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"llmos/agent/exec"
	"llmos/agent/reconcile"
	pb "llmos/proto/llmos/v1"
)

// adoptRetry is the pause between two attempts at finding out what became of a task.
const adoptRetry = 500 * time.Millisecond

// task is the supervisor's record of one task. Only the supervisor's loop touches it; the
// task's goroutine sends news.
type task struct {
	assignment *pb.Assignment
	phase      reconcile.Phase
	stopAt     time.Time
	killed     bool
	unsettled  bool // an earlier run of the agent left its fate open
	unreported bool
	acked      bool
	startedMS  int64
	exit       *exec.Exit
	handle     *exec.Handle
	cgroup     string       // empty: none, or not known yet
	abandon    func()       // ends the staging of what it goes on from; nil: it was adopted
	saving     bool         // its tree has gone, and what it saved is being taken
	excuse     string       // the error of a device that ends it; empty: none
	guilty     bool         // it is ended for what it did itself
	judging    bool         // it has failed, and it is being asked whether an error of a device is to blame
	said       *pb.Progress // what the servers are told of its progress and demand; nil: nothing yet
}

func (t *task) id() string { return t.assignment.GetTask().GetId() }

// report gives what the servers are told of the task.
func (t *task) report() *pb.TaskReport {
	r := &pb.TaskReport{TaskId: t.id(), Epoch: t.assignment.GetTask().GetEpoch(),
		State: pb.TaskState_TASK_STATE_RUNNING, StartedMs: t.startedMS}
	if t.phase != reconcile.Ended || t.exit == nil {
		return r
	}
	e := t.exit
	r.State, r.Reason = endStates[e.State], e.Reason
	r.ExitCode, r.Signal, r.StartedMs, r.EndedMs = int32(e.Code), int32(e.Signal), e.StartedMS, e.EndedMS
	r.ResumeFailed = e.ResumeFailed
	return r
}

var endStates = map[exec.State]pb.TaskState{
	exec.Succeeded: pb.TaskState_TASK_STATE_SUCCEEDED, exec.Failed: pb.TaskState_TASK_STATE_FAILED,
	exec.Stopped: pb.TaskState_TASK_STATE_STOPPED, exec.Lost: pb.TaskState_TASK_STATE_LOST,
}

// observed is the task as reconcile sees it.
func (t *task) observed() reconcile.Observed {
	return reconcile.Observed{Assignment: t.assignment, Phase: t.phase, StopAt: t.stopAt, Killed: t.killed,
		Unreported: t.unreported, Acknowledged: t.acked}
}

// News from a task's goroutine to the supervisor's loop.
type (
	taskAttached struct { // the task has a shim
		id     string
		handle *exec.Handle
	}
	taskStatus struct { // the shim says something
		id     string
		status exec.Status
	}
	taskSaving struct{ id string } // its tree has gone; the end follows when what it saved is recorded
	taskEnded  struct {            // the end, also of a task that never started
		id   string
		exit exec.Exit
	}
)

// runner is what a task's goroutine works with.
type runner struct {
	site   site
	driver *exec.Driver
	vault  *vault // nil: none
	now    func() time.Time
	post   func(any) bool // false: the supervisor has ended
	warn   func(msg string, args ...any)
}

// start runs a new task: it is journaled already, and only here is it ever handed to a shim.
// staging ends when the task is to be stopped before that, or with ctx.
func (r runner) start(ctx, staging context.Context, a *pb.Assignment, localWorld int) {
	id := a.GetTask().GetId()
	spec, err := r.site.prepare(a, localWorld)
	if err == nil && r.vault != nil {
		var resume []string
		resume, err = r.vault.stage(staging, a, r.site)
		spec.Env = append(spec.Env, resume...)
	}
	var h *exec.Handle
	if err == nil {
		h, err = r.driver.Start(r.site.dir(id), spec)
	}
	switch {
	case ctx.Err() != nil && h == nil:
		return // the agent ends: the next one finds that the task never started
	case errors.Is(err, errResume):
		r.end(id, exec.Exit{State: exec.Stopped, ResumeFailed: true, Reason: err.Error()})
		return
	case err != nil && staging.Err() != nil:
		r.end(id, exec.Exit{State: exec.Stopped, Reason: "stopped before it was started"})
		return
	case err != nil:
		r.end(id, exec.Exit{State: exec.Failed, Code: exec.ExitCannotStart,
			Reason: fmt.Sprintf("the task could not be started on node %s: %v", r.site.nodeName, err)})
		return
	}
	r.follow(ctx, a, h, false)
}

// adopt finds out what became of a task that an earlier run of the agent journaled.
func (r runner) adopt(ctx context.Context, a *pb.Assignment) {
	id := a.GetTask().GetId()
	for {
		// Without a directory no shim can have it; the claim that voids it needs one.
		h, err := (*exec.Handle)(nil), r.site.makeDir(id)
		if err == nil {
			h, err = r.driver.Adopt(ctx, r.site.dir(id))
		}
		if err == nil {
			r.follow(ctx, a, h, true)
			return
		}
		if ctx.Err() != nil {
			return
		}
		if exit, final := r.lostExit(err, true); final {
			r.end(id, exit)
			return
		}
		r.warn("a task cannot be adopted yet", "task", id, "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(adoptRetry):
		}
	}
}

// evict kills a task that has a directory and is not in the journal: nobody knows it.
func (r runner) evict(ctx context.Context, id string) {
	h, err := r.driver.Adopt(ctx, r.site.dir(id))
	if err == nil {
		r.warn("killing a task that the journal does not know", "task", id)
		h.Kill()
		defer h.Detach()
		for open := true; open; {
			select {
			case <-ctx.Done():
				return
			case _, open = <-h.Updates():
			}
		}
		return
	}
	if exit, final := r.lostExit(err, true); final {
		exit.TaskID, exit.EndedMS = id, r.now().UnixMilli()
		err = r.site.recordEnd(id, exit)
	}
	if err != nil {
		r.warn("a task that the journal does not know cannot be ended", "task", id, "error", err)
	}
}

// void records that the task will never be started.
func (r runner) void(id, reason string) {
	r.end(id, exec.Exit{State: exec.Stopped, Reason: reason})
}

// lostExit turns the error of a task without a record of its end into its end. adopted
// tells a restart of the agent, after which nothing is known, from the death of a shim
// under the agent's eyes.
func (r runner) lostExit(err error, adopted bool) (exec.Exit, bool) {
	switch {
	case errors.Is(err, exec.ErrNotStarted) && !adopted:
		return exec.Exit{State: exec.Failed, Code: exec.ExitCannotStart,
			Reason: fmt.Sprintf("the task could not be started on node %s: %v", r.site.nodeName, err)}, true
	case errors.Is(err, exec.ErrNotStarted):
		return exec.Exit{State: exec.Lost, Reason: fmt.Sprintf("the agent of node %s ended before the task was started", r.site.nodeName)}, true
	case errors.Is(err, exec.ErrDied) && adopted:
		return exec.Exit{State: exec.Lost, Reason: fmt.Sprintf("node %s lost the task while its agent was away", r.site.nodeName)}, true
	case errors.Is(err, exec.ErrDied):
		return exec.Exit{State: exec.Failed, Code: exec.ExitCannotStart,
			Reason: fmt.Sprintf("the task's shim on node %s was killed; the task was killed with it", r.site.nodeName)}, true
	}
	return exec.Exit{}, false
}

// follow passes on what the shim says until the end, and takes what the task saves; the end is
// passed on when what was saved last is recorded. When the agent ends first, the task is let go of
// and runs on.
func (r runner) follow(ctx context.Context, a *pb.Assignment, h *exec.Handle, adopted bool) {
	id := a.GetTask().GetId()
	defer h.Detach()
	var saves *saver
	defer func() { saves.stop() }()
	if !r.post(taskAttached{id, h}) {
		return
	}
	for {
		select {
		case <-ctx.Done():
			return
		case status, open := <-h.Updates():
			if !open {
				saves = r.saver(ctx, a, saves)
				r.save(id, saves)
				if exit, final := r.lostExit(h.Err(), adopted); final {
					r.end(id, exit)
				} else {
					r.end(id, exec.Exit{State: exec.Lost, Reason: fmt.Sprintf("the end of the task cannot be read on node %s: %v", r.site.nodeName, h.Err())})
				}
				return
			}
			if status.Identity != nil || status.Exit != nil { // its working directory is there
				saves = r.saver(ctx, a, saves)
			}
			saves.tell(status.Told)
			if status.Exit != nil && status.Exit.StartedMS > 0 {
				r.save(id, saves)
			}
			if ctx.Err() != nil || !r.post(taskStatus{id, status}) || status.Exit != nil {
				return
			}
		}
	}
}

// saver gives the task's saver, beginning it when there is none yet; nil when the job wants none.
func (r runner) saver(ctx context.Context, a *pb.Assignment, begun *saver) *saver {
	if begun != nil || r.vault == nil {
		return begun
	}
	return r.vault.newSaver(ctx, a, r.site)
}

// save takes what a task has left at its end.
func (r runner) save(id string, saves *saver) {
	if saves == nil {
		return
	}
	r.post(taskSaving{id})
	saves.finish()
}

// end records the end of a task that has no shim to do it, and tells the loop.
func (r runner) end(id string, e exec.Exit) {
	e.TaskID, e.EndedMS = id, r.now().UnixMilli()
	if err := r.site.recordEnd(id, e); err != nil {
		r.warn("the end of a task could not be recorded", "task", id, "error", err)
	}
	r.post(taskEnded{id, e})
}
