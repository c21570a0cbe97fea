package device

import (
	"cmp"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// HugePages is a pool of pages of one size.
type HugePages struct {
	PageBytes int64
	Pages     int64 // in the pool, free or not
	Free      int64
}

// ProbeHugePages gives the host's pools of huge pages that are not empty, by size.
func ProbeHugePages() []HugePages { return probeHugePages("/") }

func probeHugePages(root string) (pools []HugePages) {
	dirs, err := filepath.Glob(filepath.Join(root, "sys/kernel/mm/hugepages/hugepages-*kB"))
	if err != nil {
		return nil
	}
	for _, dir := range dirs {
		text := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "hugepages-"), "kB")
		kib, err := strconv.ParseInt(text, 10, 64)
		pages, ok := readInt(filepath.Join(dir, "nr_hugepages"))
		if err != nil || !ok || kib <= 0 || kib > 1<<40 || pages <= 0 {
			continue
		}
		free, _ := readInt(filepath.Join(dir, "free_hugepages"))
		pools = append(pools, HugePages{PageBytes: kib << 10, Pages: pages, Free: free})
	}
	slices.SortFunc(pools, func(a, b HugePages) int { return cmp.Compare(a.PageBytes, b.PageBytes) })
	return pools
}

// poolsOnly are pools without what changes all the time.
func poolsOnly(pools []HugePages) []HugePages {
	for i := range pools {
		pools[i].Free = 0
	}
	return pools
}

// MemoryAvailable is the memory that new work on this host could get without swapping, as the
// kernel estimates it; 0 when it does not.
func MemoryAvailable() int64 { return memoryAvailable("/") }

func memoryAvailable(root string) int64 {
	value := fieldOf(filepath.Join(root, "proc/meminfo"), "MemAvailable", ":")
	kib, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil || kib < 0 || kib > 1<<50 {
		return 0
	}
	return kib << 10
}

// Disk is the size of a file system and what of it is free to those who are not root; 0: unknown.
type Disk struct{ Bytes, FreeBytes int64 }

// DiskOf looks at the file system that holds a path.
func DiskOf(path string) Disk {
	if _, err := os.Stat(path); err != nil {
		return Disk{}
	}
	return diskOf(path)
}
