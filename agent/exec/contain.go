package exec

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"llmos/agent/exec/engine"
)

// Labels of a task's container.
const (
	dirLabel  = "llmos.task.dir"
	taskLabel = "llmos.task"
	nodeLabel = "llmos.node"
)

// engineSockets is where container engines listen, in the order in which they are tried.
var engineSockets = []string{"/run/docker.sock", "/var/run/docker.sock", "/run/podman/podman.sock"}

// engineSocket gives the engine's socket; empty: there is none.
func engineSocket(named string) string {
	candidates := engineSockets
	if named != "" {
		candidates = []string{named}
	}
	for _, path := range candidates {
		if info, err := os.Stat(path); err == nil && info.Mode()&fs.ModeSocket != 0 {
			return path
		}
	}
	return ""
}

// engineNames gives in words where an engine was looked for.
func engineNames(named string) string {
	if named != "" {
		return named
	}
	return "neither " + engineSockets[0] + " nor " + engineSockets[len(engineSockets)-1]
}

// configure says how the container is made, once its image is there.
func (k *contained) configure(ctx context.Context) (engine.Config, *startError) {
	s, spec := k.shim, k.shim.spec
	credential, fault := findUser(spec)
	if fault != nil {
		return engine.Config{}, fault
	}
	folders := append([]string{TempDir(s.dir), HomeDir(s.dir)}, saveDirs(HomeDir(s.dir), spec.SaveDir)...)
	if fault := makePrivate(folders, spec, credential); fault != nil {
		return engine.Config{}, fault
	}
	image, fault := k.image(ctx)
	if fault != nil {
		return engine.Config{}, fault
	}
	if len(spec.Command) == 0 && len(image.Config.Cmd) == 0 && len(image.Config.Entrypoint) == 0 {
		return engine.Config{}, cannot(ExitCannotStart, "the task has no command, and image %s names none", spec.Image)
	}
	c := engine.Config{Image: image.ID, Env: spec.Env, WorkingDir: spec.Workdir, Cmd: spec.Command,
		Labels:       map[string]string{dirLabel: s.dir, taskLabel: spec.TaskID, nodeLabel: spec.NodeID},
		AttachStdout: true, AttachStderr: true}
	if len(spec.Command) > 0 {
		c.Entrypoint = []string{""} // the command is run as it is, as on the node itself
	}
	if dir := image.Config.WorkingDir; spec.Workdir == "" && (dir == "" || dir == "/" || spec.SaveDir != "") {
		c.WorkingDir = HomeDir(s.dir)
	}
	k.path = lookupEnv(append(append([]string{}, image.Config.Env...), spec.Env...), "PATH")
	k.user, c.HostConfig.GroupAdd = containerUser(credential)
	c.User = k.user
	h := &c.HostConfig
	h.NetworkMode, h.Init = "host", k.engine.HasInit()
	h.LogConfig.Type, h.RestartPolicy.Name = "none", "no"
	h.SecurityOpt = []string{"no-new-privileges"}
	h.Mounts = mountsOf(s.dir, spec)
	setLimits(h, spec)
	h.Devices = append(filesOf(networkDevices), filesOf(plainDevices(spec.Devices))...)
	requests, env, fault := k.devices(ctx)
	h.DeviceRequests = requests
	c.Env = append(append([]string{}, c.Env...), env...)
	return c, fault
}

// containerUser gives the user of a container's processes, by number: the one a process of
// the task would have, so that its files belong to the same one.
func containerUser(credential *syscall.Credential) (user string, groups []string) {
	if credential == nil {
		return fmt.Sprintf("%d:%d", os.Geteuid(), os.Getegid()), nil
	}
	for _, g := range credential.Groups {
		groups = append(groups, strconv.FormatUint(uint64(g), 10))
	}
	return fmt.Sprintf("%d:%d", credential.Uid, credential.Gid), groups
}

// mountsOf gives what the container sees of its host: the task's own folders and the job's,
// by the paths that its environment names. The folder for temporary files is /tmp as well.
func mountsOf(dir string, spec Spec) []engine.Mount {
	mounts := []engine.Mount{engine.Bind(HomeDir(dir), HomeDir(dir), false),
		engine.Bind(TempDir(dir), TempDir(dir), false), engine.Bind(TempDir(dir), "/tmp", false)}
	for _, p := range spec.Owned {
		if p != spec.JobDir {
			mounts = append(mounts, engine.Bind(p, p, true)) // the attempt's key
		}
	}
	if spec.JobDir != "" {
		mounts = append(mounts, engine.Bind(spec.JobDir, spec.JobDir, false))
	}
	return mounts
}

// setLimits gives the container what a process of the task would have. Its shared memory is
// as large as its memory, of which it is a part.
func setLimits(h *engine.HostConfig, spec Spec) {
	h.Memory, h.MemorySwap = spec.MemoryBytes, spec.MemoryBytes
	h.ShmSize = spec.MemoryBytes
	var info unix.Sysinfo_t
	if h.ShmSize == 0 && unix.Sysinfo(&info) == nil {
		h.ShmSize = int64(info.Totalram) * int64(info.Unit) / 2
	}
	h.CPUShares = max(2, min(262144, spec.CPUMilli*sharesPerCPU/1000))
	h.PidsLimit = int64(pidsOf(spec))
}

// plainDevices gives the device files that a container takes as they are: those of all
// vendors but NVIDIA, whose devices need its libraries beside them.
func plainDevices(granted []string) (files []string) {
	for _, f := range granted {
		if !strings.HasPrefix(f, nvidiaFiles) {
			files = append(files, f)
		}
	}
	if len(files) > 0 {
		files = append(files, "/dev/kfd", "/dev/vfio/vfio")
	}
	return files
}

// filesOf gives the device files of the patterns that are there.
func filesOf(patterns []string) (out []engine.Device) {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, f := range files {
			if _, ok := ruleOf(f); ok {
				out = append(out, engine.Device{PathOnHost: f, PathInContainer: f, CgroupPermissions: "rwm"})
			}
		}
	}
	return out
}

// image finds the task's image, or fetches it.
func (k *contained) image(ctx context.Context) (engine.Image, *startError) {
	spec := k.shim.spec
	image, err := k.engine.Image(ctx, spec.Image)
	if engine.NotFound(err) {
		k.shim.note("fetching image " + spec.Image)
		if err := k.engine.Pull(ctx, spec.Image); err != nil {
			return image, cannot(ExitCannotStart, "image %s is not on node %s and could not be fetched: %v", spec.Image, spec.NodeName, err)
		}
		image, err = k.engine.Image(ctx, spec.Image)
	}
	if err != nil {
		return image, cannot(ExitCannotStart, "image %s cannot be used on node %s: %v", spec.Image, spec.NodeName, err)
	}
	return image, nil
}

// checkCommand looks for the command in the container that was made: where an init starts
// it, the engine would call the start a success. A link is taken as it is.
func (k *contained) checkCommand(ctx context.Context, c engine.Config) *startError {
	spec := k.shim.spec
	if !c.HostConfig.Init || len(spec.Command) == 0 {
		return nil
	}
	name, candidates := spec.Command[0], []string{spec.Command[0]}
	if !strings.Contains(name, "/") {
		candidates = nil
		for _, dir := range filepath.SplitList(k.path) {
			candidates = append(candidates, filepath.Join("/", dir, name))
		}
	} else if !filepath.IsAbs(name) {
		candidates[0] = filepath.Join("/", c.WorkingDir, name)
	}
	unusable := false
	for _, path := range candidates {
		mode, err := k.engine.Stat(ctx, k.id, path)
		switch {
		case err != nil && !engine.NotFound(err):
			return nil // whoever starts it says what is wrong
		case err != nil:
		case mode.IsDir(), mode.IsRegular() && mode&0o111 == 0:
			unusable = true
		default:
			return nil
		}
	}
	if unusable {
		return cannot(ExitNotExecutable, "command %q is not executable in image %s on node %s", name, spec.Image, spec.NodeName)
	}
	return cannot(ExitNotFound, "command %q was not found in image %s on node %s (PATH=%s)", name, spec.Image, spec.NodeName, k.path)
}

// containerFault puts what the engine says of a start that failed into a sentence.
func containerFault(err error, spec Spec) *startError {
	name := ""
	if len(spec.Command) > 0 {
		name = spec.Command[0]
	}
	text := err.Error()
	switch {
	case errors.Is(err, context.Canceled):
		return cannot(ExitCannotStart, "the start was cut off")
	case strings.Contains(text, "executable file not found"), strings.Contains(text, "no such file or directory") && strings.Contains(text, "exec"):
		return cannot(ExitNotFound, "command %q was not found in image %s on node %s, or its interpreter was not", name, spec.Image, spec.NodeName)
	case strings.Contains(text, "permission denied") && strings.Contains(text, "exec"):
		return cannot(ExitNotExecutable, "command %q is not executable in image %s on node %s", name, spec.Image, spec.NodeName)
	}
	return cannot(ExitCannotStart, "the container could not be started on node %s: %s", spec.NodeName, text)
}

// cgroupOf gives the group of a container's first process in the hierarchies that account
// for memory and processors; empty when it is not the container's own.
func cgroupOf(pid int, container string) string {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) == 3 && (parts[1] == "memory" || parts[1] == "") && strings.Contains(parts[2], container) {
			return strings.TrimPrefix(parts[2], "/")
		}
	}
	return ""
}

// removeContainers removes those that have the label with this value, but for those that
// are to be kept, and says how many it removed.
func removeContainers(ctx context.Context, e *engine.Client, label, value string, keep func(engine.Container) bool) (n int, err error) {
	found, err := e.Labelled(ctx, label, value)
	if err != nil {
		return 0, err
	}
	for _, c := range found {
		if keep != nil && keep(c) {
			continue
		}
		if rerr := e.Remove(ctx, c.ID); rerr != nil {
			err = errors.Join(err, rerr)
			continue
		}
		n++
	}
	return n, err
}
