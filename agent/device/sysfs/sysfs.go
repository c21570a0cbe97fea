// Package sysfs finds the accelerators that need no library: AMD and Intel GPUs and Google TPUs,
// by the files of the kernel's drivers. A host without them has no devices, which is no error.
// It changes nothing and grants nothing. The agent asks the probers of this package beside that
// of NVML; each fits device.Prober, and AMD's device.Meter too.
package sysfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

const (
	unknown     = -1
	fileMax     = 64 << 10 // of a file that is read
	devicesMax  = 64       // of one vendor on a host
	pciePathMax = 256
)

// tree is the kernel's files below a root, which is / but for tests.
type tree string

func (t tree) path(parts ...string) string {
	return filepath.Join(append([]string{string(t)}, parts...)...)
}

// text reads a small file; empty when it is not there.
func (t tree) text(parts ...string) string {
	f, err := os.Open(t.path(parts...))
	if err != nil {
		return ""
	}
	defer f.Close()
	b := make([]byte, fileMax)
	n, _ := f.Read(b)
	return strings.TrimSpace(string(b[:n]))
}

// number reads a file that holds one number, decimal or with 0x.
func (t tree) number(parts ...string) (int64, bool) {
	n, err := strconv.ParseInt(t.text(parts...), 0, 64)
	return n, err == nil
}

// first reads the first of the files that match a pattern.
func (t tree) first(parts ...string) (int64, bool) {
	files, err := filepath.Glob(t.path(parts...))
	if err != nil || len(files) == 0 {
		return 0, false
	}
	n, err := strconv.ParseInt(strings.TrimSpace(read(files[0])), 0, 64)
	return n, err == nil
}

func read(path string) string {
	b, err := os.ReadFile(path)
	if err != nil || len(b) > fileMax {
		return ""
	}
	return string(b)
}

// names lists a folder.
func (t tree) names(parts ...string) []string {
	entries, err := os.ReadDir(t.path(parts...))
	if err != nil {
		return nil
	}
	names := make([]string, 0, len(entries))
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// base is the last part of the path that a link leads to; empty when there is none.
func (t tree) base(parts ...string) string {
	path, err := filepath.EvalSymlinks(t.path(parts...))
	if err != nil {
		return ""
	}
	return filepath.Base(path)
}

// properties reads the lines `name number` of a file of KFD.
func (t tree) properties(parts ...string) map[string]uint64 {
	out := map[string]uint64{}
	for line := range strings.Lines(t.text(parts...)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " ")
		if n, err := strconv.ParseUint(value, 10, 64); ok && err == nil {
			out[name] = n
		}
	}
	return out
}

const pciDevices = "sys/bus/pci/devices"

// numaNode is the NUMA node of a PCI device; -1 when it is not known.
func (t tree) numaNode(address string) int32 {
	n, ok := t.number(pciDevices, address, "numa_node")
	if !ok || n < 0 || n > 1<<16 {
		return unknown
	}
	return int32(n)
}

// pciePath gives the bridges from the root of the PCI tree down to a device.
func (t tree) pciePath(address string) string {
	path, err := filepath.EvalSymlinks(t.path(pciDevices, address))
	if err != nil {
		return ""
	}
	i := strings.Index(path, "/pci")
	if i < 0 || len(path)-i > pciePathMax {
		return ""
	}
	return filepath.Dir(path[i+1:])
}

// sized puts the memory behind the name of a model, as job files write it.
func sized(model string, bytes int64) string {
	if bytes <= 0 {
		return model
	}
	return fmt.Sprintf("%s-%dGB", model, (bytes+1<<30-1)>>30)
}

// dashed makes a name one word.
func dashed(name string) string {
	return strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '_' || r == '/' }), "-")
}
