package exec

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// cgroupRoot is the group below which all of llmos's groups lie, in every hierarchy.
const cgroupRoot = "llmos"

const (
	sharesPerCPU = 1024 // cpu.shares of one CPU's worth (v1)
	weightPerCPU = 100  // cpu.weight of one CPU's worth (v2)
)

// hierarchies are the cgroup mounts of this machine: v2 alone, v1 alone, or both (hybrid).
type hierarchies struct {
	unified string            // mount point of v2; empty when there is none
	v1      map[string]string // controller -> mount point
	own     map[string]string // controller -> this process's own group in it
}

// limitControllers are the v1 hierarchies that a task enters, and allControllers without
// v2, which kills and holds to devices as well.
var (
	limitControllers = []string{"cpu", "memory", "pids"}
	allControllers   = append([]string{"freezer", "devices"}, limitControllers...)
)

func findHierarchies() hierarchies {
	h := hierarchies{v1: map[string]string{}, own: map[string]string{}}
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return h
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		before, after, found := strings.Cut(lines.Text(), " - ")
		fields, tail := strings.Fields(before), strings.Fields(after)
		if !found || len(fields) < 5 || len(tail) < 3 {
			continue
		}
		switch tail[0] {
		case "cgroup2":
			h.unified = fields[4]
		case "cgroup":
			for _, option := range strings.Split(tail[2], ",") {
				h.v1[option] = fields[4]
			}
		}
	}
	data, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return h
	}
	for _, line := range strings.Split(string(data), "\n") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) == 3 {
			for _, controller := range strings.Split(parts[1], ",") {
				h.own[controller] = parts[2]
			}
		}
	}
	return h
}

// group is one task's cgroup in every hierarchy that could be written. The zero group, of
// a machine or a user without cgroups, holds nothing and kills nothing.
type group struct {
	name    string // such as llmos/n-0123/slot-7f
	h       hierarchies
	v2      string            // directory in the unified hierarchy; empty: not there
	v1      map[string]string // controller -> directory
	entered []string          // v1 controllers that the forking thread is in
}

// makeGroup creates the group in every hierarchy that lets it. What cannot be had is left
// out: a task without cgroups still runs, tracked by its shim alone.
func makeGroup(h hierarchies, name string) *group {
	g := &group{name: name, h: h, v1: map[string]string{}}
	if name == "" {
		return g
	}
	if h.unified != "" {
		dir, err := makeV2(h.unified, name)
		if errors.Is(err, os.ErrNotExist) {
			dir, err = makeV2(h.unified, name) // another shim has just removed the node's empty group
		}
		if err == nil {
			g.v2 = dir
		}
	}
	controllers := limitControllers
	if g.v2 == "" {
		controllers = allControllers
	}
	for _, c := range controllers {
		mount, ok := h.v1[c]
		if !ok {
			continue
		}
		dir := filepath.Join(mount, name)
		err := os.MkdirAll(dir, 0o755)
		if errors.Is(err, os.ErrNotExist) {
			err = os.MkdirAll(dir, 0o755)
		}
		if err == nil {
			g.v1[c] = dir
			if c == "cpu" {
				raiseShares(mount, name)
			}
		}
	}
	return g
}

// openGroup finds the group again after its maker has died.
func openGroup(h hierarchies, name string) *group {
	g := &group{name: name, h: h, v1: map[string]string{}}
	if name == "" {
		return g
	}
	if dir := filepath.Join(h.unified, name); h.unified != "" && isDir(dir) {
		g.v2 = dir
	}
	for _, c := range allControllers {
		if dir := filepath.Join(h.v1[c], name); h.v1[c] != "" && isDir(dir) {
			g.v1[c] = dir
		}
	}
	return g
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// makeV2 creates the group and hands the controllers down to it where that is allowed.
func makeV2(mount, name string) (string, error) {
	dir := mount
	for _, part := range strings.Split(name, "/") {
		available, _ := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
		for _, c := range strings.Fields(string(available)) {
			if c == "cpu" || c == "memory" || c == "pids" {
				// Refused where processes live in dir itself: then there are no limits, but kill works.
				_ = writeControl(dir, "cgroup.subtree_control", "+"+c)
			}
		}
		dir = filepath.Join(dir, part)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			return "", err
		}
	}
	return dir, nil
}

// raiseShares lets the groups above the tasks weigh as much as the whole machine, so that
// a task competes with other work by its own weight and not by a part of one share.
func raiseShares(mount, name string) {
	const sharesMax = 262144
	n := min(int64(countCPUs())*sharesPerCPU, sharesMax)
	for dir := filepath.Dir(name); dir != "." && dir != "/"; dir = filepath.Dir(dir) {
		_ = writeControl(filepath.Join(mount, dir), "cpu.shares", strconv.FormatInt(n, 10))
	}
}

func countCPUs() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 1
	}
	return max(set.Count(), 1)
}

func writeControl(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(value)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

func exists(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// enterThread moves the calling thread, and so what it forks, into the v1 groups. The
// first move waits for a grace period of the kernel, some 15 ms: warm shims do it ahead.
func (g *group) enterThread() {
	tid := strconv.Itoa(unix.Gettid())
	for _, c := range allControllers {
		if dir, ok := g.v1[c]; ok && writeControl(dir, "tasks", tid) == nil {
			g.entered = append(g.entered, c)
		}
	}
}

// leaveThread moves the calling thread back to where the process came from.
func (g *group) leaveThread() {
	tid := strconv.Itoa(unix.Gettid())
	for _, c := range g.entered {
		if err := writeControl(filepath.Join(g.h.v1[c], g.h.own[c]), "tasks", tid); err != nil {
			_ = writeControl(g.h.v1[c], "tasks", tid)
		}
	}
	g.entered = nil
}

// openV2 opens the unified group for CLONE_INTO_CGROUP; nil when there is none.
func (g *group) openV2() *os.File {
	if g.v2 == "" {
		return nil
	}
	f, err := os.Open(g.v2)
	if err != nil {
		return nil
	}
	return f
}

// kill sends SIGKILL to every process of the group, in one step with v2, else by freezing
// it first so that it cannot fork away. Only members of the group are hit, by whatever ID.
func (g *group) kill() {
	if g.v2 != "" && writeControl(g.v2, "cgroup.kill", "1") == nil {
		return
	}
	freezer := g.v1["freezer"]
	if freezer != "" {
		_ = writeControl(freezer, "freezer.state", "FROZEN")
	}
	for _, pid := range g.members() {
		if pid != os.Getpid() {
			killVerified(pid, func() bool { return slices.Contains(g.members(), pid) })
		}
	}
	if freezer != "" {
		_ = writeControl(freezer, "freezer.state", "THAWED")
	}
}

// members lists the processes of the group.
func (g *group) members() []int {
	dir := g.v2
	if dir == "" {
		dir = g.v1["freezer"]
	}
	if dir == "" {
		return nil
	}
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var pids []int
	for _, field := range strings.Fields(string(data)) {
		if pid, err := strconv.Atoi(field); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// remove deletes the group, whose processes are gone, and the node's when it was the last.
// A group that the kernel still calls busy is tried again for a little while and then left
// to the next Driver's sweep.
func (g *group) remove() {
	const tries, pause = 20, 5 * time.Millisecond
	dirs := []string{}
	if g.v2 != "" {
		dirs = append(dirs, g.v2)
	}
	for _, dir := range g.v1 {
		dirs = append(dirs, dir)
	}
	for _, dir := range dirs {
		for range tries {
			if err := unix.Rmdir(dir); !errors.Is(err, unix.EBUSY) {
				break
			}
			time.Sleep(pause)
		}
		_ = unix.Rmdir(filepath.Dir(dir)) // refused while it holds another group
	}
}
