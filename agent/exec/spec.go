// Package exec runs tasks as process trees that outlive the agent. The agent's side is
// Driver and Handle; the other side is the shim, a small process of the same binary
// (ShimMain) that starts one task, owns its log and its cgroup, waits for it, kills what
// it leaves behind and writes down how it ended. Everything they share lies in the task's
// directory; DESIGN.md in this folder describes its files and their order.
//
// The package decides nothing about what should run: agent/reconcile does. It is called
// by agent and, for ShimMain, by cmd/llmos.
package exec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Limits of the package.
const (
	DefaultGrace       = 10 * time.Second // between the stop signal and the kill
	DefaultLogMaxBytes = 64 << 20         // kept per task
	logMinBytes        = 512 << 10        // a smaller limit is raised to this
	DefaultPIDs        = 16384            // processes and threads of one task
	lineBytesMax       = 4 << 10          // of a progress line; longer ones are not progress
	specBytesMax       = 4 << 20          // of spec.json
	dirLineBytesMax    = 4 << 10          // of the path handed to a warm shim
	drainTimeout       = 2 * time.Second  // for output after the tree has gone
	hangupTimeout      = 2 * time.Second  // for a peer that does not read its status
)

// Exit codes of tasks that could not be started, as shells use them.
const (
	ExitCannotStart   = 125 // llmos could not prepare the task
	ExitNotExecutable = 126 // the command exists and cannot be executed
	ExitNotFound      = 127 // the command does not exist
)

// Names of the files of a task directory.
const (
	specFile     = "spec.json"
	claimFile    = "claim"
	identityFile = "identity.json"
	exitFile     = "exit.json"
	socketFile   = "control.sock"
	logDir       = "log"
	workDir      = "work"
	tmpDir       = "tmp"
)

// HomeDir is the private folder of the task that lives in dir: its home, and its working
// directory when the job names none.
func HomeDir(dir string) string { return filepath.Join(dir, workDir) }

// TempDir is the private folder for the temporary files of the task that lives in dir.
func TempDir(dir string) string { return filepath.Join(dir, tmpDir) }

// Shrink deletes what the record of an ended task does not need: all but its log, its end
// and the claim that keeps it from being started again.
func Shrink(dir string) error {
	entries, err := os.ReadDir(dir)
	if err == nil {
		err = checkMounts(dir)
	}
	if err != nil {
		return fmt.Errorf("shrink the task: %w", err)
	}
	for _, e := range entries {
		switch e.Name() {
		case logDir, exitFile, claimFile:
		default:
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// Remove deletes the directory of an ended task.
func Remove(dir string) error {
	if err := checkMounts(dir); err != nil {
		return fmt.Errorf("remove the task: %w", err)
	}
	return os.RemoveAll(dir)
}

// Spec says what a shim runs. It is written once, before the shim is told of it.
type Spec struct {
	TaskID      string   `json:"task_id"`
	NodeName    string   `json:"node_name"` // for sentences
	Command     []string `json:"command"`
	Env         []string `json:"env"`          // NAME=value, exactly; nothing is inherited
	Workdir     string   `json:"workdir"`      // absolute; empty: <dir>/work
	User        string   `json:"user"`         // name or number; empty: as the agent
	Owned       []string `json:"owned"`        // paths that are given to User before the start
	StopSignal  string   `json:"stop_signal"`  // empty: SIGTERM
	GraceMS     int64    `json:"grace_ms"`     // 0: DefaultGrace
	MemoryBytes int64    `json:"memory_bytes"` // 0: no limit
	CPUMilli    int64    `json:"cpu_milli"`    // guaranteed under contention; 0: the least
	DiskBytes   int64    `json:"disk_bytes"`   // of the private folders; 0: no limit
	PIDs        int      `json:"pids"`         // 0: DefaultPIDs
	LogMaxBytes int64    `json:"log_max_bytes"`
	SaveDir     string   `json:"save_dir"`   // made below a private working directory; empty: none
	Devices     []string `json:"devices"`    // patterns of the device files that were granted
	Allowed     []string `json:"allowed"`    // and of others that every task of the node may use
	Hidden      string   `json:"hidden"`     // folder that a task of another user is kept out of; empty: none
	JobDir      string   `json:"job_dir"`    // the job's folder, which it may use; empty: none
	Image       string   `json:"image"`      // of the container that it runs in; empty: it runs in none
	Engine      string   `json:"engine"`     // socket of the container engine; empty: where engines listen
	DeviceIDs   []string `json:"device_ids"` // of the devices, for a container
	NodeID      string   `json:"node_id"`    // whose containers they are
	Cgroup      string   `json:"cgroup"`     // chosen by the Driver; names the slot of the shim
}

// Identity names a running task so that no other process can be taken for it.
type Identity struct {
	TaskID    string `json:"task_id"`
	BootID    string `json:"boot_id"`
	PID       int    `json:"pid"`         // leader of the task's session and process group
	Ticks     uint64 `json:"start_ticks"` // start time of PID, in clock ticks since boot
	Cgroup    string `json:"cgroup"`
	Container string `json:"container"` // its ID; empty: it runs in none
	StartedMS int64  `json:"started_ms"`
}

// claim is what a shim leaves, locked for as long as it lives, when it takes a task.
type claim struct {
	Void   bool   `json:"void"` // placed by an agent so that no shim ever starts the task
	BootID string `json:"boot_id"`
	PID    int    `json:"pid"`
	Ticks  uint64 `json:"start_ticks"`
}

// State is how a task ended.
type State string

// The ends of a task.
const (
	Succeeded State = "succeeded" // exit code 0
	Failed    State = "failed"    // another code, a signal, or it could not start
	Stopped   State = "stopped"   // ended after llmos had asked it to
	Lost      State = "lost"      // did not run, or its end was not seen; it does not run now
)

// Exit is the record of a task's end.
type Exit struct {
	TaskID       string `json:"task_id"`
	State        State  `json:"state"`
	Code         int    `json:"exit_code"` // 128+signal for a signal
	Signal       int    `json:"signal"`
	Reason       string `json:"reason"`
	StartedMS    int64  `json:"started_ms"` // 0: it never started
	EndedMS      int64  `json:"ended_ms"`
	LogDropped   int64  `json:"log_dropped_bytes"`
	LeftoverTree bool   `json:"leftover_tree"`           // processes outlived the task's first one and were killed
	ResumeFailed bool   `json:"resume_failed,omitempty"` // it never started: what it goes on from could not be had
}

// Progress is the newest progress line of a task.
type Progress struct {
	Step   int64              `json:"step"`
	Steps  int64              `json:"steps"`
	Values map[string]float64 `json:"values,omitempty"`
	TimeMS int64              `json:"time_ms"`
}

// Told is a line by which a task says that a checkpoint is finished.
type Told struct {
	Number int64  `json:"number"` // counts the task's lines, from 1
	Step   int64  `json:"step"`   // negative: it named none
	Path   string `json:"path"`   // as the task wrote it
}

// Status is what a shim says about its task. Each one replaces the one before it.
type Status struct {
	Refused    string    `json:"refused,omitempty"` // the shim did not take the task, and why
	Identity   *Identity `json:"identity,omitempty"`
	Progress   *Progress `json:"progress,omitempty"`
	Told       []Told    `json:"told,omitempty"` // the newest toldMax, oldest first
	Exit       *Exit     `json:"exit,omitempty"`
	LogDropped int64     `json:"log_dropped_bytes,omitempty"`
}

// ErrNotStarted says that no shim had taken the task and that none will any more.
var ErrNotStarted = errors.New("the task was never started")

// ErrDied says that the shim is gone without a record of the task's end; what was left of
// the task has been killed.
var ErrDied = errors.New("the task's shim is gone and left no record of the end")
