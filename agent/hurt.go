package agent

import (
	"context"
	"time"

	"llmos/agent/exec"
	"llmos/agent/reconcile"
	pb "llmos/proto/llmos/v1"
)

// What errors of devices do to tasks. A task that such an error ends is reported as stopped by
// its node, which costs its job no retry.

// taskJudged is news to the supervisor's loop: whether an error of a device is to blame for a
// task's failure; empty: none is.
type taskJudged struct {
	id     string
	exit   exec.Exit
	excuse string
}

// mayBeExcused says whether the failure of a task can be that of its devices.
func (t *task) mayBeExcused() bool {
	return t.excuse == "" && !t.guilty && !t.judging && t.startedMS > 0 && len(t.assignment.GetAllocation().GetDevices()) > 0
}

// deviceIDs are the devices that the task holds.
func (t *task) deviceIDs() []string {
	var ids []string
	for _, g := range t.assignment.GetAllocation().GetDevices() {
		ids = append(ids, g.GetDeviceId())
	}
	return ids
}

// hurt stops the tasks that hold the devices of the orders, as gently as a stop is.
func (v *supervisor) hurt(n tasksHurt) {
	for _, order := range n.orders {
		for _, id := range sortedIDs(v.tasks) {
			t := v.tasks[id]
			if t.phase != reconcile.Running && t.phase != reconcile.Starting || !holdsAny(t, order.Devices) {
				continue
			}
			v.log.Warn("stopping task, to be started again", "task", id, "reason", order.Reason)
			t.excuse, t.phase, t.stopAt = order.Reason, reconcile.Stopping, v.now()
			if t.handle != nil {
				t.handle.Stop()
			}
		}
	}
}

func holdsAny(t *task, devices map[string]bool) bool {
	for _, id := range t.deviceIDs() {
		if devices[id] {
			return true
		}
	}
	return false
}

// judge asks whether an error of a device ended the task, beside the loop: the driver is asked.
func (v *supervisor) judge(t *task, e exec.Exit) {
	id, held, began := t.id(), t.deviceIDs(), time.UnixMilli(t.startedMS)
	ended := v.now()
	if e.EndedMS > 0 {
		ended = time.UnixMilli(e.EndedMS)
	}
	t.judging = true
	v.work.Go(func() {
		v.post(taskJudged{id: id, exit: e, excuse: v.keeper.blame(context.Background(), held, began, ended)})
	})
}

func (v *supervisor) judged(n taskJudged) {
	t := v.tasks[n.id]
	if t == nil || t.phase == reconcile.Ended {
		return
	}
	if n.excuse != "" {
		t.excuse = n.excuse + ", and it failed: " + n.exit.Reason
	}
	v.conclude(t, n.exit)
}

// reservation asks the supervisor's loop for a task that holds one of the devices; empty: none.
type reservation struct {
	devices map[string]bool
	held    chan string
}

// reserve gives a task that holds one of the devices; empty: none does, and what is refused
// from now on is started no more.
func (v *supervisor) reserve(ctx context.Context, devices map[string]bool) (holder string, err error) {
	r := reservation{devices: devices, held: make(chan string, 1)}
	if !v.post(r) {
		return "", context.Canceled
	}
	select {
	case holder = <-r.held:
		return holder, nil
	case <-v.done:
		return "", context.Canceled
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (v *supervisor) holder(devices map[string]bool) string {
	for _, id := range sortedIDs(v.tasks) {
		if t := v.tasks[id]; t.phase != reconcile.Ended && holdsAny(t, devices) {
			return id
		}
	}
	return ""
}

// taskWarned is news to the supervisor's loop: what is said of a task; empty: nothing any more.
type taskWarned struct{ id, text string }

func (v *supervisor) warned(n taskWarned) {
	t := v.tasks[n.id]
	if t == nil || t.phase == reconcile.Ended || t.said.GetWarning() == n.text {
		return
	}
	if n.text != "" && t.said.GetWarning() == "" { // what it holds changes at each look
		v.log.Warn("task is warned", "task", n.id, "warning", n.text)
	}
	v.tell(t, func(p *pb.Progress) { p.Warning = n.text })
}
