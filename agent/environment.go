package agent

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"

	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

const (
	taskPath       = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	attemptKeyFile = "attempt.key"
	reservedPrefix = "LLMOS_" // of variables that a job cannot set
)

// site is what a task's surroundings need to know of its node.
type site struct {
	nodeID, nodeName string
	tasks            string // folder of the tasks' directories
	sharedDir        string // empty: none
	self             string // path of the llmos program, for the verbs that run beside a task
	taskUser         string // empty: the agent's own

	mps          func() string               // pipe directory of MPS, empty without it; nil: none
	deviceMemory func(deviceID string) int64 // bytes; 0: unknown; nil: of none known
	device       func(id string) *pb.Device  // of this node; nil for one that is not known; nil: of none known
	hasVendor    func(vendor string) bool    // whether the node has devices of a vendor; nil: of none

	allowed []string // patterns of device files that every task may use
	engine  string   // socket of the container engine; empty: where engines listen
	hidden  string   // folder that tasks of other users are kept out of; empty: none
}

// checkTaskUser says whether tasks can run as the user.
func checkTaskUser(name string) error {
	u, err := user.Lookup(name)
	if err != nil {
		if u, err = user.LookupId(name); err != nil {
			return fmt.Errorf("user %q does not exist on this node", name)
		}
	}
	if os.Geteuid() != 0 && u.Uid != strconv.Itoa(os.Geteuid()) {
		return fmt.Errorf("tasks cannot run as user %q: the agent does not run as root", name)
	}
	return nil
}

// taskUser is who runs the task; empty: the agent's own user.
func (s site) taskUserOf(a *pb.Assignment) string {
	if name := a.GetRole().GetUser(); name != "" {
		return name
	}
	return s.taskUser
}

// dir is the task's directory.
func (s site) dir(taskID string) string { return filepath.Join(s.tasks, taskID) }

// jobDir is the job's folder in the shared directory; empty when there is none.
func (s site) jobDir(a *pb.Assignment) string {
	if s.sharedDir == "" {
		return ""
	}
	return filepath.Join(s.sharedDir, a.GetTask().GetJobId())
}

// environment gives the task's whole environment, NAME=value, in a fixed order: nothing
// is inherited. A role may replace what is set here, but for LLMOS_ names and what holds it
// to its part of a device. localWorld is the number of the attempt's tasks on this node.
func (s site) environment(a *pb.Assignment, localWorld int) []string {
	task, allocation, attempt, dir := a.GetTask(), a.GetAllocation(), a.GetAttempt(), s.dir(a.GetTask().GetId())
	env, seen := map[string]string{}, s.visible(allocation.GetDevices())
	order := []string{}
	set := func(name, value string) {
		if _, there := env[name]; !there {
			order = append(order, name)
		}
		env[name] = value
	}
	if !contained(a) { // an image has a path of its own
		set("PATH", taskPath)
	}
	set("HOME", exec.HomeDir(dir))
	set("USER", s.userName(a))
	set("LANG", "C.UTF-8")
	set("TMPDIR", exec.TempDir(dir))
	set("RANK", strconv.Itoa(int(task.GetRank())))
	set("WORLD_SIZE", strconv.Itoa(int(attempt.GetWorldSize())))
	set("LOCAL_RANK", strconv.Itoa(int(task.GetLocalRank())))
	set("LOCAL_WORLD_SIZE", strconv.Itoa(localWorld))
	set("MASTER_ADDR", masterHost(attempt))
	if port := attempt.GetRendezvousPort(); port > 0 {
		set("MASTER_PORT", strconv.Itoa(int(port)))
	}
	for _, v := range seen.variables {
		set(v.name, v.value)
	}
	set("LLMOS_JOB_ID", task.GetJobId())
	set("LLMOS_JOB_NAME", a.GetJobName())
	set("LLMOS_TASK_ID", task.GetId())
	set("LLMOS_EPOCH", strconv.FormatUint(task.GetEpoch(), 10))
	set("LLMOS_ROLE", task.GetRole())
	set("LLMOS_ROLE_INDEX", strconv.Itoa(int(task.GetIndex())))
	setArray(a, set)
	setFramework(a, set)
	set("LLMOS_NODE_ID", s.nodeID)
	set("LLMOS_NODE_NAME", s.nodeName)
	set("LLMOS_DEVICES", strings.Join(seen.ids, ","))
	set("LLMOS_TASK_DIR", dir)
	set("LLMOS_ATTEMPT_KEY_FILE", filepath.Join(dir, attemptKeyFile))
	if jobDir := s.jobDir(a); jobDir != "" {
		set("LLMOS_JOB_DIR", jobDir)
	}
	s.setCheckpoint(a, set)
	setPorts(a, set)
	own := make([]string, 0, len(a.GetRole().GetEnv()))
	for name := range a.GetRole().GetEnv() {
		own = append(own, name)
	}
	sort.Strings(own)
	for _, name := range own {
		if !strings.HasPrefix(name, reservedPrefix) {
			set(name, a.GetRole().GetEnv()[name])
		}
	}
	s.setMPS(a, set)
	out := make([]string, len(order))
	for i, name := range order {
		out[i] = name + "=" + env[name]
	}
	return out
}

// setPorts tells a task the ports that it was given, by their names.
func setPorts(a *pb.Assignment, set func(name, value string)) {
	ports := a.GetAllocation().GetPorts()
	if a.GetAllocation().GetHoldsRendezvous() && len(ports) > 0 {
		ports = ports[1:]
	}
	for i, name := range a.GetRole().GetPorts() {
		if i < len(ports) {
			set("LLMOS_PORT_"+variableName(name), strconv.Itoa(int(ports[i])))
		}
	}
}

// setCheckpoint tells a task where it saves itself.
func (s site) setCheckpoint(a *pb.Assignment, set func(name, value string)) {
	if path := a.GetCheckpoint().GetPath(); path != "" {
		if rel, err := below(s.workdirOf(a), path); err == nil {
			set("LLMOS_CHECKPOINT_DIR", filepath.Join(s.workdirOf(a), filepath.FromSlash(rel)))
		}
	}
}

// setArray tells a copy of an array which one it is.
func setArray(a *pb.Assignment, set func(name, value string)) {
	if count := a.GetArrayCount(); count > 0 {
		set("LLMOS_ARRAY_INDEX", strconv.Itoa(int(a.GetArrayIndex())))
		set("LLMOS_ARRAY_COUNT", strconv.Itoa(int(count)))
	}
}

// masterHost is where rank 0 listens; a task alone is its own master.
func masterHost(attempt *pb.Attempt) string {
	if host := attempt.GetRendezvousHost(); host != "" {
		if h, _, err := net.SplitHostPort(host); err == nil {
			return h
		}
		return host
	}
	return "127.0.0.1"
}

func (s site) userName(a *pb.Assignment) string {
	if name := s.taskUserOf(a); name != "" {
		return name
	}
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Geteuid())
}

// variableName writes a port's name as a variable's: capitals, digits and underscores.
func variableName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}

// makeJobDir makes the folder when it is absent. ours says that it belongs to the agent: it
// has not been given to the task's user yet, by this node or another.
func makeJobDir(path string) (ours bool, err error) {
	if err := os.Mkdir(path, 0o770); err == nil {
		return true, nil
	} else if !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is no folder", path)
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && int(stat.Uid) == os.Geteuid(), nil
}

// prepare makes the task's directory with its key, and the job's folder, and gives the
// spec for its shim.
func (s site) prepare(a *pb.Assignment, localWorld int) (exec.Spec, error) {
	dir, role := s.dir(a.GetTask().GetId()), a.GetRole()
	if err := s.makeDir(a.GetTask().GetId()); err != nil {
		return exec.Spec{}, err
	}
	key := filepath.Join(dir, attemptKeyFile)
	if err := os.WriteFile(key, []byte(hex.EncodeToString(a.GetAttemptKey())), 0o400); err != nil {
		return exec.Spec{}, fmt.Errorf("write the attempt's key: %w", err)
	}
	owned := []string{key}
	if jobDir := s.jobDir(a); jobDir != "" {
		ours, err := makeJobDir(jobDir)
		if err != nil {
			return exec.Spec{}, fmt.Errorf("make the job's folder in the shared directory: %w", err)
		}
		if ours {
			owned = append(owned, jobDir)
		}
	}
	saveDir := ""
	if path := a.GetCheckpoint().GetPath(); path != "" {
		saveDir, _ = below(s.workdirOf(a), path) // what is wrong with it is told by the saver
	}
	res := role.GetResources()
	spec := exec.Spec{
		SaveDir: saveDir,
		TaskID:  a.GetTask().GetId(), NodeName: s.nodeName, Command: s.command(a), Env: s.environment(a, localWorld),
		Workdir: role.GetWorkdir(), User: s.taskUserOf(a), Owned: owned, StopSignal: role.GetStopSignal(), GraceMS: role.GetGraceMs(),
		MemoryBytes: a.GetAllocation().GetMemoryBytes(), CPUMilli: a.GetAllocation().GetCpuMilli(), LogMaxBytes: role.GetLogMaxBytes(),
		DiskBytes: res.GetDiskBytes(), PIDs: int(res.GetPids()), JobDir: s.jobDir(a),
		Devices: s.deviceFiles(a), Allowed: s.allowed, Hidden: s.hidden, NodeID: s.nodeID,
	}
	if contained(a) {
		spec.Image, spec.Engine, spec.DeviceIDs = role.GetImage(), s.engine, deviceIDs(a)
	}
	return spec, nil
}

// deviceIDs gives the devices that the task was granted.
func deviceIDs(a *pb.Assignment) []string {
	grants := a.GetAllocation().GetDevices()
	ids := make([]string, len(grants))
	for i, g := range grants {
		ids[i] = g.GetDeviceId()
	}
	return ids
}

// contained says whether the task runs in a container.
func contained(a *pb.Assignment) bool { return a.GetRole().GetImage() != "" }

// deviceFiles gives the files of the devices that the task was granted.
func (s site) deviceFiles(a *pb.Assignment) (files []string) {
	if s.device == nil {
		return nil
	}
	for _, g := range a.GetAllocation().GetDevices() {
		if f := s.device(g.GetDeviceId()).GetPath(); f != "" {
			files = append(files, f)
		}
	}
	return files
}
