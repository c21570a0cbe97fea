package agent

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"llmos/agent/device"
	"llmos/agent/exec"
	"llmos/agent/fraction"
	"llmos/agent/reconcile"
	pb "llmos/proto/llmos/v1"
)

// How the devices' use is looked at.
const (
	lookEvery   = 2 * time.Second  // between two looks while a task has a part of a device
	restEvery   = 10 * time.Second // between two looks at devices that no task holds
	lookTimeout = 15 * time.Second // for one look
	percentNone = -1               // in a sample: unknown
)

// taskExcess is news to the supervisor's loop: a task is to be ended for what it holds of
// its devices.
type taskExcess struct{ id, reason string }

// exceeded ends a task that holds more of a device than it was granted. It is killed at
// once, without grace: a neighbour may need at any moment what it was promised.
func (v *supervisor) exceeded(n taskExcess) {
	t := v.tasks[n.id]
	if t == nil || t.phase != reconcile.Running || t.handle == nil {
		return
	}
	v.log.Warn("ending task", "task", n.id, "reason", n.reason)
	t.phase, t.stopAt, t.guilty = reconcile.Stopping, v.now(), true
	t.handle.End(n.reason)
}

// deviceUse is what a task holds of its devices at a look.
type deviceUse struct {
	at          time.Time
	memoryBytes int64
	percent     int32 // mean over its whole devices; percentNone: unknown
}

// fractions looks at who uses the devices, tells the samplers and the keeper, and holds tasks
// with a part of a device to their memory. agent/fraction decides who is beyond it.
type fractions struct {
	look    func(context.Context) (device.Use, error)
	owners  func(dirs []string) func(pid int) (dir string, ok bool)
	memory  func(deviceID string) int64 // of the whole device, bytes; 0: unknown
	targets func() []sampleTarget
	dirs    func() []string                                                // of every task that may have processes; nil: those of the targets
	idle    func() bool                                                    // whether there are devices to look at while no task holds one; nil: no
	seen    func(use device.Use, ofTask func(pid int) bool, now time.Time) // nil: nobody asks
	overrun string                                                         // see Config.Overrun
	post    func(any) bool
	log     *slog.Logger

	warned map[string]bool // tasks that are warned
	over   fraction.Over
	looked time.Time
	silent bool // the last look failed

	mu   sync.Mutex
	uses map[string]deviceUse // by task ID, of the newest look
}

// ownersOf asks agent/exec.
func ownersOf(dirs []string) func(pid int) (string, bool) { return exec.OwnersOf(dirs).Of }

// run looks until ctx ends.
func (f *fractions) run(ctx context.Context) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			f.turn(ctx, now)
		}
	}
}

// turn looks when there is something to see: at each turn while a task has a part of a
// device, as often as samples are taken while tasks have whole devices, now and then while
// none has one, and not at all without devices.
func (f *fractions) turn(ctx context.Context, now time.Time) {
	var holders []sampleTarget
	var grants []fraction.Grant
	for _, t := range f.targets() {
		if len(t.grants) > 0 {
			holders = append(holders, t)
		}
		for _, g := range t.grants {
			if isFraction(g, f.memory(g.GetDeviceId())) && f.overrun != OverrunOff {
				grants = append(grants, fraction.Grant{Key: fraction.Key{TaskID: t.id, DeviceID: g.GetDeviceId()}, Bytes: g.GetMemoryBytes()})
			}
		}
	}
	if len(grants) == 0 {
		f.over = nil
	}
	every := lookEvery
	switch {
	case len(holders) == 0:
		f.show(nil)
		if f.idle == nil || !f.idle() {
			return
		}
		every = restEvery
	case len(grants) == 0:
		every = sampleEvery
	}
	if now.Sub(f.looked) < every && every != lookEvery {
		return
	}
	f.looked = now
	timed, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	use, err := f.look(timed)
	if err != nil {
		f.over = nil
		if !f.silent && ctx.Err() == nil {
			f.log.Warn("who uses the devices is not known; no task is held to its part of a device", "error", err)
		}
		f.silent = true
		return
	}
	f.silent = false
	holdings := f.holdings(holders, use.Processes)
	f.show(f.sum(holders, holdings, use.Figures, now))
	f.judge(grants, holdings)
	if f.seen != nil {
		f.seen(use, f.ofTask(use.Processes), now)
	}
}

// judge warns the tasks that are beyond their grants, and ends those that stay so.
func (f *fractions) judge(grants []fraction.Grant, holdings []fraction.Holding) {
	var end []fraction.Excess
	f.over, end = fraction.Judge(f.over, grants, holdings)
	warned := map[string]bool{}
	for _, e := range fraction.Beyond(grants, holdings) {
		warned[e.TaskID] = true
		f.post(taskWarned{id: e.TaskID, text: e.Reason()})
	}
	for id := range f.warned { // unordered: each is told by itself
		if !warned[id] {
			f.post(taskWarned{id: id})
		}
	}
	f.warned = warned
	if f.overrun == OverrunWarn {
		return
	}
	for _, e := range end {
		f.post(taskExcess{id: e.TaskID, reason: e.Reason()})
	}
}

// ofTask says of a process whether it belongs to a task of this node, running or not.
func (f *fractions) ofTask(processes []device.ProcessUse) func(pid int) bool {
	if len(processes) == 0 || f.dirs == nil {
		return func(int) bool { return false }
	}
	owner := f.owners(f.dirs())
	return func(pid int) bool { _, ours := owner(pid); return ours }
}

// holdings gives the processes their tasks; those of nobody are left out.
func (f *fractions) holdings(holders []sampleTarget, processes []device.ProcessUse) []fraction.Holding {
	if len(processes) == 0 {
		return nil
	}
	dirs, ids := make([]string, len(holders)), make(map[string]string, len(holders))
	for i, t := range holders {
		dirs[i], ids[t.dir] = t.dir, t.id
	}
	owner := f.owners(dirs)
	var out []fraction.Holding
	for _, p := range processes {
		if dir, ok := owner(p.PID); ok {
			out = append(out, fraction.Holding{Key: fraction.Key{TaskID: ids[dir], DeviceID: p.DeviceID}, Bytes: p.MemoryBytes})
		}
	}
	return out
}

// sum gives what each task holds over all its devices. How busy a shared device is says
// nothing of one of its tasks, so only whole devices count there.
func (f *fractions) sum(holders []sampleTarget, holdings []fraction.Holding, figures map[string]device.Figure, now time.Time) map[string]deviceUse {
	memory := map[string]int64{}
	for _, h := range holdings {
		memory[h.TaskID] += h.Bytes
	}
	out := make(map[string]deviceUse, len(holders))
	for _, t := range holders {
		out[t.id] = deviceUse{at: now, memoryBytes: memory[t.id], percent: meanPercent(t.grants, figures, f.memory)}
	}
	return out
}

// meanPercent is the mean over devices that are granted whole; percentNone when one of them
// is not known or is shared.
func meanPercent(grants []*pb.DeviceGrant, figures map[string]device.Figure, memory func(string) int64) int32 {
	sum := int32(0)
	for _, g := range grants {
		f, known := figures[g.GetDeviceId()]
		if !known || f.Percent < 0 || isFraction(g, memory(g.GetDeviceId())) {
			return percentNone
		}
		sum += f.Percent
	}
	return sum / int32(len(grants))
}

func (f *fractions) show(uses map[string]deviceUse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.uses = uses
}

// use gives what the newest look saw of a task; false: nothing that is not out of date.
func (f *fractions) use(id string, now time.Time) (deviceUse, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u, ok := f.uses[id]
	return u, ok && now.Sub(u.at) <= 2*sampleEvery
}
