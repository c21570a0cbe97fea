package exec

import (
	"fmt"
	"math"
	"path/filepath"
	"strconv"
)

// limit sets the task's limits. CPU is a weight and no ceiling: what a neighbour leaves
// idle may be used, and under contention each task gets what it asked for.
func (g *group) limit(spec Spec) error {
	type control struct{ dir, name, value string }
	var set []control
	pids := strconv.Itoa(pidsOf(spec))
	memory := strconv.FormatInt(spec.MemoryBytes, 10)
	if dir, ok := g.v1["memory"]; ok && spec.MemoryBytes > 0 {
		set = append(set, control{dir, "memory.limit_in_bytes", memory})
		if exists(dir, "memory.memsw.limit_in_bytes") {
			set = append(set, control{dir, "memory.memsw.limit_in_bytes", memory})
		}
	} else if g.v2 != "" && spec.MemoryBytes > 0 && exists(g.v2, "memory.max") {
		set = append(set, control{g.v2, "memory.max", memory}, control{g.v2, "memory.oom.group", "1"})
		if exists(g.v2, "memory.swap.max") {
			set = append(set, control{g.v2, "memory.swap.max", "0"})
		}
	}
	cpus := float64(spec.CPUMilli) / 1000
	if dir, ok := g.v1["cpu"]; ok {
		shares := math.Max(2, math.Min(262144, cpus*sharesPerCPU))
		set = append(set, control{dir, "cpu.shares", strconv.Itoa(int(shares))})
	} else if g.v2 != "" && exists(g.v2, "cpu.weight") {
		weight := math.Max(1, math.Min(10000, cpus*weightPerCPU))
		set = append(set, control{g.v2, "cpu.weight", strconv.Itoa(int(weight))})
	}
	if dir, ok := g.v1["pids"]; ok {
		set = append(set, control{dir, "pids.max", pids})
	} else if g.v2 != "" && exists(g.v2, "pids.max") {
		set = append(set, control{g.v2, "pids.max", pids})
	}
	for _, c := range set {
		if err := writeControl(c.dir, c.name, c.value); err != nil {
			return fmt.Errorf("set %s to %s: %w", c.name, c.value, err)
		}
	}
	if err := g.limitDevices(deviceRules(spec.Devices, spec.Allowed)); err != nil {
		return fmt.Errorf("hold it to its devices: %w", err)
	}
	return nil
}

// pidsOf is how many processes and threads the task may have.
func pidsOf(spec Spec) int {
	if spec.PIDs > 0 {
		return spec.PIDs
	}
	return DefaultPIDs
}

// oomKills counts the processes of the group that the kernel killed for memory.
func (g *group) oomKills() int64 {
	if dir := g.v1["memory"]; dir != "" {
		n, _ := keyedNumber(filepath.Join(dir, "memory.oom_control"), "oom_kill")
		return n
	}
	n, _ := keyedNumber(filepath.Join(g.v2, "memory.events"), "oom_kill")
	return n
}

// pidsRefused counts the processes and threads that the group was refused at its limit.
func (g *group) pidsRefused() int64 {
	dir := g.v1["pids"]
	if dir == "" {
		dir = g.v2
	}
	n, _ := keyedNumber(filepath.Join(dir, "pids.events"), "max")
	return n
}

// blame names the limit that a task met which has failed; how is what its end looked like.
// Empty: none.
func (g *group) blame(spec Spec, how string) string {
	switch {
	case g.oomKills() > 0:
		return oomText(spec)
	case g.pidsRefused() > 0:
		return fmt.Sprintf("met its limit of %d processes and threads (%s)", pidsOf(spec), how)
	}
	return ""
}

// oomText says what a task met that the kernel killed for memory.
func oomText(spec Spec) string {
	if spec.MemoryBytes > 0 {
		return fmt.Sprintf("OOM killed: %s limit", bytesText(spec.MemoryBytes))
	}
	return fmt.Sprintf("OOM killed: node %s ran out of memory, and the task has no limit of its own", spec.NodeName)
}

// bytesText writes a size as people do.
func bytesText(n int64) string {
	unit, name := int64(1)<<20, "MiB"
	if n >= 1<<30 {
		unit, name = 1<<30, "GiB"
	}
	return strconv.FormatFloat(math.Round(float64(n)/float64(unit)*10)/10, 'f', -1, 64) + " " + name
}
