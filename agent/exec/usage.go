package exec

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Usage is what a task's processes, living and dead, have used.
type Usage struct {
	CPUNanos    int64 // processor time since the task began, nanoseconds
	MemoryBytes int64 // held now, without the file cache that the kernel would give up
}

// Usage reads what the processes in a task's cgroup use; cgroup is Identity.Cgroup. ok is
// false when the task has no cgroup that tells.
func (d *Driver) Usage(cgroup string) (u Usage, ok bool) {
	if cgroup == "" {
		return Usage{}, false
	}
	g := openGroup(d.h, cgroup)
	cpu, cpuKnown := g.cpuNanos()
	memory, memoryKnown := g.workingSet()
	return Usage{CPUNanos: cpu, MemoryBytes: memory}, cpuKnown && memoryKnown
}

// cpuNanos reads the unified hierarchy's account, which needs no controller, or v1's.
func (g *group) cpuNanos() (int64, bool) {
	if g.v2 != "" {
		if usec, ok := keyedNumber(filepath.Join(g.v2, "cpu.stat"), "usage_usec"); ok {
			return usec * 1000, true
		}
	}
	if dir := g.v1["cpu"]; dir != "" {
		return number(filepath.Join(dir, "cpuacct.usage"))
	}
	return 0, false
}

// workingSet is the memory charged to the group less its inactive file cache.
func (g *group) workingSet() (int64, bool) {
	dir, current, cache := g.v1["memory"], "memory.usage_in_bytes", "total_inactive_file"
	if dir == "" {
		dir, current, cache = g.v2, "memory.current", "inactive_file"
	}
	if dir == "" {
		return 0, false
	}
	held, ok := number(filepath.Join(dir, current))
	if !ok {
		return 0, false
	}
	inactive, _ := keyedNumber(filepath.Join(dir, "memory.stat"), cache)
	return max(0, held-inactive), true
}

func number(path string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n, err == nil
}

// keyedNumber finds the line "key number" in a file of such lines.
func keyedNumber(path, key string) (int64, bool) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	for line := range strings.Lines(string(data)) {
		if value, found := strings.CutPrefix(line, key+" "); found {
			n, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}
