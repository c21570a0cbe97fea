package agent

import (
	"context"
	"io/fs"
	"path/filepath"
	"time"

	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

// How tasks are looked at while they run.
const (
	sampleEvery  = 5 * time.Second // between two samples of a task
	diskEvery    = 6               // samples between two walks through its folder
	diskFilesMax = 20_000          // files counted in one walk; beyond it the sum is left as it was
)

// sampleTarget is a running task as the sampler knows it.
type sampleTarget struct {
	id, cgroup, dir string            // cgroup is empty when it is not known
	grants          []*pb.DeviceGrant // not to be changed
	idleAfter       time.Duration     // it ends when nobody has used it for so long; 0: it does not
}

// sampler measures what running tasks use, beside the supervisor's loop, which a walk
// through a folder must not hold up.
type sampler struct {
	usage   func(cgroup string) (exec.Usage, bool)
	targets func() []sampleTarget
	devices func(id string, now time.Time) (deviceUse, bool) // nil: of none anything is known
	post    func(any) bool
	seen    map[string]*sampleState
	round   int
}

// sampleState is what the next sample of a task is compared with.
type sampleState struct {
	at       time.Time
	cpuNanos int64
	disk     int64
	devices  int64 // memory of devices, bytes
	round    int
}

// taskSampled is news to the supervisor's loop: what a task uses.
type taskSampled struct {
	id     string
	sample *pb.Sample
}

// measure begins to look at what the tasks use, on the host and of its devices.
func (v *supervisor) measure(ctx context.Context) {
	s := sampler{usage: v.runner.driver.Usage, targets: v.targets, post: v.post, seen: map[string]*sampleState{}}
	if v.look != nil {
		f := &fractions{look: v.look, owners: ownersOf, memory: v.runner.site.memoryOf, targets: v.targets, post: v.post, log: v.log,
			dirs: v.taskDirs, overrun: v.overrun}
		if v.keeper != nil {
			f.idle, f.seen = v.keeper.hasDevices, v.keeper.looked
		}
		s.devices = f.use
		v.work.Go(func() { f.run(ctx) })
	}
	v.work.Go(func() { s.run(ctx) })
	v.work.Go(func() { v.endIdle(ctx) })
}

// targets gives the running tasks that can be measured.
func (v *supervisor) targets() []sampleTarget {
	if l := v.sampled.Load(); l != nil {
		return *l
	}
	return nil
}

// taskDirs gives the folders of every task that may have processes.
func (v *supervisor) taskDirs() []string {
	if l := v.dirs.Load(); l != nil {
		return *l
	}
	return nil
}

// run samples until ctx ends.
func (s *sampler) run(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			s.look(now)
		}
	}
}

// look takes one sample of every target.
func (s *sampler) look(now time.Time) {
	s.round++
	for _, target := range s.targets() {
		if sample := s.sample(target, now); sample != nil {
			s.post(taskSampled{id: target.id, sample: sample})
		}
	}
	for id, seen := range s.seen {
		if seen.round != s.round {
			delete(s.seen, id)
		}
	}
}

// sample measures one task; nil the first time, for a rate needs two looks, and for a task
// that cannot be measured.
func (s *sampler) sample(target sampleTarget, now time.Time) *pb.Sample {
	u, ok := s.usage(target.cgroup)
	if !ok {
		return nil
	}
	before := s.seen[target.id]
	if before == nil {
		s.seen[target.id] = &sampleState{at: now, cpuNanos: u.CPUNanos, disk: diskUsage(target.dir, 0), round: s.round}
		return nil
	}
	passed := now.Sub(before.at)
	if passed <= 0 {
		return nil
	}
	if s.round%diskEvery == 0 {
		before.disk = diskUsage(target.dir, before.disk)
	}
	sample := &pb.Sample{TimeMs: now.UnixMilli(), CpuMilli: max(0, u.CPUNanos-before.cpuNanos) * 1000 / passed.Nanoseconds(),
		MemoryBytes: u.MemoryBytes, DiskBytes: before.disk, GpuPercent: percentNone}
	if s.devices != nil {
		// While it is not known the last value stands: none at all would look like a release.
		if d, ok := s.devices(target.id, now); ok {
			before.devices, sample.GpuPercent = d.memoryBytes, d.percent
		}
		sample.GpuMemoryBytes = before.devices
	}
	before.at, before.cpuNanos, before.round = now, u.CPUNanos, s.round
	return sample
}

// diskUsage sums the sizes of the files below a folder, or gives what was known before
// when there are too many to count.
func diskUsage(dir string, before int64) int64 {
	files, sum := 0, int64(0)
	err := filepath.WalkDir(dir, func(_ string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return nil // what vanishes under the walk is not counted
		}
		if files++; files > diskFilesMax {
			return fs.SkipAll
		}
		if info, err := entry.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	if err != nil || files > diskFilesMax {
		return before
	}
	return sum
}
