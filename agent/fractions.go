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
	t.phase, t.stopAt = reconcile.Stopping, v.now()
	t.handle.End(n.reason)
}

// deviceUse is what a task holds of its devices at a look.
type deviceUse struct {
	at          time.Time
	memoryBytes int64
	percent     int32 // mean over its whole devices; percentNone: unknown
}

// fractions looks at who uses the devices, tells the samplers, and holds tasks with a part
// of a device to their memory. agent/fraction decides who is beyond it.
type fractions struct {
	look    func(context.Context) (device.Use, error)
	owners  func(dirs []string) func(pid int) (dir string, ok bool)
	memory  func(deviceID string) int64 // of the whole device, bytes; 0: unknown
	targets func() []sampleTarget
	post    func(any) bool
	log     *slog.Logger

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
// device, as often as samples are taken while tasks have whole devices, else not at all.
func (f *fractions) turn(ctx context.Context, now time.Time) {
	var holders []sampleTarget
	var grants []fraction.Grant
	for _, t := range f.targets() {
		if len(t.grants) > 0 {
			holders = append(holders, t)
		}
		for _, g := range t.grants {
			if isFraction(g, f.memory(g.GetDeviceId())) {
				grants = append(grants, fraction.Grant{Key: fraction.Key{TaskID: t.id, DeviceID: g.GetDeviceId()}, Bytes: g.GetMemoryBytes()})
			}
		}
	}
	if len(holders) == 0 {
		f.over = nil
		f.show(nil)
		return
	}
	if len(grants) == 0 {
		f.over = nil
		if now.Sub(f.looked) < sampleEvery {
			return
		}
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
	f.show(f.sum(holders, holdings, use.Percent, now))
	var end []fraction.Excess
	f.over, end = fraction.Judge(f.over, grants, holdings)
	for _, e := range end {
		f.post(taskExcess{id: e.TaskID, reason: e.Reason()})
	}
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
func (f *fractions) sum(holders []sampleTarget, holdings []fraction.Holding, percent map[string]int32, now time.Time) map[string]deviceUse {
	memory := map[string]int64{}
	for _, h := range holdings {
		memory[h.TaskID] += h.Bytes
	}
	out := make(map[string]deviceUse, len(holders))
	for _, t := range holders {
		out[t.id] = deviceUse{at: now, memoryBytes: memory[t.id], percent: meanPercent(t.grants, percent, f.memory)}
	}
	return out
}

// meanPercent is the mean over devices that are granted whole; percentNone when one of them
// is not known or is shared.
func meanPercent(grants []*pb.DeviceGrant, percent map[string]int32, memory func(string) int64) int32 {
	sum := int32(0)
	for _, g := range grants {
		busy, known := percent[g.GetDeviceId()]
		if !known || isFraction(g, memory(g.GetDeviceId())) {
			return percentNone
		}
		sum += busy
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
