package device

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

// Host is what a node has besides devices.
type Host struct {
	CPUMilli    int64       // millicores that this process may use: its affinity and its cgroup's quota
	MemoryBytes int64       // of the machine, or the cgroup's limit when that is less
	NUMANodes   int         // at least 1
	CPUModel    string      // as the kernel names it; empty when it does not
	OS          string      // distribution and kernel architecture
	HugePages   []HugePages // by size; what of them is free is not told here
	Interfaces  []Interface // by name
}

// equal says whether nothing of the host has changed.
func (h Host) equal(o Host) bool {
	return h.CPUMilli == o.CPUMilli && h.MemoryBytes == o.MemoryBytes && h.NUMANodes == o.NUMANodes && h.CPUModel == o.CPUModel && h.OS == o.OS &&
		slices.Equal(h.HugePages, o.HugePages) && slices.Equal(h.Interfaces, o.Interfaces)
}

// memoryBytesMin is the least memory that is believed; less means /proc was misread.
const memoryBytesMin = 16 << 20

// ProbeHost reads CPUs, memory and NUMA nodes of this host, within the limits of the
// process's affinity and cgroups. It fails when the kernel's files cannot be read.
func ProbeHost() (Host, error) { return probeHost("/", runtime.NumCPU()) }

// probeHost reads the files below root; cpus is the number of CPUs in the affinity mask.
func probeHost(root string, cpus int) (Host, error) {
	h := Host{CPUMilli: int64(cpus) * 1000, NUMANodes: 1, OS: osName(root)}
	total, err := memTotal(filepath.Join(root, "proc/meminfo"))
	if err != nil {
		return Host{}, err
	}
	h.MemoryBytes = total
	for _, dir := range cgroupDirs(root, "memory") {
		for _, name := range []string{"memory.max", "memory.limit_in_bytes"} {
			if limit, ok := readInt(filepath.Join(dir, name)); ok && limit >= memoryBytesMin {
				h.MemoryBytes = min(h.MemoryBytes, limit)
			}
		}
	}
	for _, dir := range cgroupDirs(root, "cpu") {
		if milli, ok := cpuQuota(dir); ok {
			h.CPUMilli = min(h.CPUMilli, milli)
		}
	}
	if nodes, err := filepath.Glob(filepath.Join(root, "sys/devices/system/node/node[0-9]*")); err == nil && len(nodes) > 0 {
		h.NUMANodes = len(nodes)
	}
	h.HugePages, h.Interfaces = poolsOnly(probeHugePages(root)), probeInterfaces(root)
	h.CPUModel = fieldOf(filepath.Join(root, "proc/cpuinfo"), "model name", ":")
	return h, nil
}

func memTotal(path string) (int64, error) {
	value := fieldOf(path, "MemTotal", ":")
	kib, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil || kib > math.MaxInt64>>10 || kib<<10 < memoryBytesMin {
		return 0, fmt.Errorf("read the memory of this host from %s: MemTotal is %q", path, value)
	}
	return kib << 10, nil
}

// fieldOf gives the value of the first line `name<sep>value` of a small text file.
func fieldOf(path, name, sep string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if key, value, ok := strings.Cut(line, sep); ok && strings.TrimSpace(key) == name {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}

func osName(root string) string {
	name := fieldOf(filepath.Join(root, "etc/os-release"), "PRETTY_NAME", "=")
	if name == "" {
		name = runtime.GOOS
	}
	return name + " " + runtime.GOARCH
}

// cgroupDirs lists the folders that can limit this process in one controller, from its own
// cgroup up to the root, for both hierarchies. Those that do not exist are simply not read.
func cgroupDirs(root, controller string) []string {
	text, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil
	}
	var dirs []string
	for line := range strings.Lines(string(text)) {
		part := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(part) != 3 {
			continue
		}
		var bases []string
		if part[0] == "0" && part[1] == "" {
			bases = []string{"sys/fs/cgroup", "sys/fs/cgroup/unified"}
		} else if containsWord(part[1], controller) {
			bases = []string{"sys/fs/cgroup/" + part[1], "sys/fs/cgroup/" + controller}
		}
		for _, base := range bases {
			for path := filepath.Clean("/" + part[2]); ; path = filepath.Dir(path) {
				dirs = append(dirs, filepath.Join(root, base, path))
				if path == "/" {
					break
				}
			}
		}
	}
	return dirs
}

func containsWord(list, word string) bool {
	for w := range strings.SplitSeq(list, ",") {
		if w == word {
			return true
		}
	}
	return false
}

// cpuQuota reads the quota of one cgroup folder in millicores, of either hierarchy.
func cpuQuota(dir string) (int64, bool) {
	if text, err := os.ReadFile(filepath.Join(dir, "cpu.max")); err == nil {
		quota, period, ok := strings.Cut(strings.TrimSpace(string(text)), " ")
		q, err1 := strconv.ParseInt(quota, 10, 64)
		p, err2 := strconv.ParseInt(period, 10, 64)
		if !ok || err1 != nil || err2 != nil { // quota is the word max: no limit
			return 0, false
		}
		return milliOf(q, p)
	}
	q, ok1 := readInt(filepath.Join(dir, "cpu.cfs_quota_us"))
	p, ok2 := readInt(filepath.Join(dir, "cpu.cfs_period_us"))
	if !ok1 || !ok2 {
		return 0, false
	}
	return milliOf(q, p)
}

func milliOf(quotaUS, periodUS int64) (int64, bool) {
	if quotaUS <= 0 || periodUS <= 0 || quotaUS > math.MaxInt64/1000 {
		return 0, false
	}
	return max(quotaUS*1000/periodUS, 1), true
}

func readInt(path string) (int64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n, err == nil
}
