package agent

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"llmos/agent/exec"
)

// TestSampler: rates come from two looks, folders are walked now and then, and tasks that
// have gone are forgotten.
func TestSampler(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	used := exec.Usage{CPUNanos: 7e9, MemoryBytes: 1 << 20}
	targets := []sampleTarget{{id: "job.e1.r0", cgroup: "slot", dir: dir}, {id: "no-cgroup"}}
	var got []taskSampled
	s := sampler{usage: func(cgroup string) (exec.Usage, bool) { return used, cgroup != "" },
		targets: func() []sampleTarget { return targets }, seen: map[string]*sampleState{},
		post: func(n any) bool { got = append(got, n.(taskSampled)); return true }}
	at := time.UnixMilli(1_000_000)
	s.look(at)
	if len(got) != 0 {
		t.Fatalf("one look gave %v", got)
	}
	used = exec.Usage{CPUNanos: 17e9, MemoryBytes: 2 << 20}
	if err := os.WriteFile(filepath.Join(dir, "b"), make([]byte, 500), 0o600); err != nil {
		t.Fatal(err)
	}
	s.look(at.Add(5 * time.Second))
	if len(got) != 1 || got[0].id != "job.e1.r0" || got[0].sample.CpuMilli != 2000 || got[0].sample.MemoryBytes != 2<<20 || got[0].sample.DiskBytes != 1000 {
		t.Fatalf("second look: %v", got)
	}
	for i := 2; i <= diskEvery; i++ {
		s.look(at.Add(time.Duration(5*i) * time.Second))
	}
	if last := got[len(got)-1].sample; last.DiskBytes != 1500 || last.CpuMilli != 0 || last.GpuPercent != -1 || last.GpuMemoryBytes != 0 {
		t.Errorf("after a walk: %v", last)
	}
	s.devices = func(id string, _ time.Time) (deviceUse, bool) {
		return deviceUse{memoryBytes: 5 << 30, percent: 40}, id == "job.e1.r0"
	}
	s.look(at.Add(50 * time.Second))
	if last := got[len(got)-1].sample; last.GpuMemoryBytes != 5<<30 || last.GpuPercent != 40 {
		t.Errorf("with devices: %v", last)
	}
	s.devices = func(string, time.Time) (deviceUse, bool) { return deviceUse{}, false }
	s.look(at.Add(55 * time.Second))
	if last := got[len(got)-1].sample; last.GpuMemoryBytes != 5<<30 || last.GpuPercent != -1 {
		t.Errorf("while the devices' use is not known: %v", last)
	}
	targets = nil
	s.look(at.Add(time.Minute))
	if len(s.seen) != 0 {
		t.Errorf("%d tasks that have gone are remembered", len(s.seen))
	}
}
