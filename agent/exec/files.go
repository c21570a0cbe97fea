package exec

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// How much of a file is on the disk when its writing returns. What outlives the kernel is
// looked for with syncAll; what only has to outlive this process needs no sync.
type durability int

const (
	syncNone durability = iota
	syncFile            // the content: a file that is there after a crash of the machine is whole
	syncAll             // its name too
)

// writeAtomic replaces dir/name by data: all of it or none.
func writeAtomic(dir, name string, data []byte, sync durability) error {
	f, err := os.CreateTemp(dir, "."+name+".*")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil && sync >= syncFile {
		err = f.Sync()
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), filepath.Join(dir, name))
	}
	if err == nil && sync >= syncAll {
		err = syncDir(dir)
	}
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

func writeJSON(dir, name string, v any, sync durability) error {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return writeAtomic(dir, name, data, sync)
}

// readJSON reads dir/name; found is false when there is no such file.
func readJSON(dir, name string, v any) (found bool, err error) {
	f, err := os.Open(filepath.Join(dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read %s: %w", name, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, specBytesMax+1))
	if err == nil && len(data) > specBytesMax {
		err = fmt.Errorf("it is longer than %d bytes", specBytesMax)
	}
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return true, fmt.Errorf("read %s: %w", filepath.Join(dir, name), err)
	}
	return true, nil
}

// damaged says that a file holds no JSON. Files come to be whole, so the machine has lost
// its power since: what was not synced may be empty or zeros, and nothing of the task runs.
func damaged(err error) bool {
	var syntax *json.SyntaxError
	return errors.As(err, &syntax)
}

// ReadExit gives the record of the end of the task of dir; nil while there is none.
func ReadExit(dir string) (*Exit, error) {
	var e Exit
	found, err := readJSON(dir, exitFile, &e)
	if err != nil || !found {
		return nil, err
	}
	return &e, nil
}

// WriteExit records durably how the task of dir ended. Agents use it for tasks that have
// no shim; it never replaces a record.
func WriteExit(dir string, e Exit) error {
	if old, err := ReadExit(dir); err == nil && old != nil {
		return nil
	}
	return writeJSON(dir, exitFile, e, syncAll)
}

// BootID identifies this boot of the kernel.
func BootID() string {
	data, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}

// procStat holds the fields of /proc/<pid>/stat that identify a process.
type procStat struct {
	ppid  int
	ticks uint64 // start time since boot
	state byte
}

// readStat reads /proc/<pid>/stat.
func readStat(pid int) (procStat, error) {
	data, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return procStat{}, err
	}
	// The name, in parentheses, may hold anything: fields are counted behind the last one.
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return procStat{}, fmt.Errorf("process %d: stat has no name", pid)
	}
	fields := strings.Fields(string(data[end+1:]))
	const stateField, ppidField, startField = 0, 1, 19
	if len(fields) <= startField {
		return procStat{}, fmt.Errorf("process %d: stat has %d fields", pid, len(fields))
	}
	ppid, err := strconv.Atoi(fields[ppidField])
	if err != nil {
		return procStat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	ticks, err := strconv.ParseUint(fields[startField], 10, 64)
	if err != nil {
		return procStat{}, fmt.Errorf("process %d: %w", pid, err)
	}
	return procStat{ppid: ppid, ticks: ticks, state: fields[stateField][0]}, nil
}

// placeClaim makes the claim of dir exist with its content and, when it stays open, its
// lock, in one step. won is false when another has claimed the task already.
func placeClaim(dir string, c claim) (held *os.File, won bool, err error) {
	data, err := json.Marshal(c)
	if err != nil {
		return nil, false, err
	}
	f, err := os.CreateTemp(dir, "."+claimFile+".*")
	if err != nil {
		return nil, false, fmt.Errorf("claim the task: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err == nil {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = os.Link(f.Name(), filepath.Join(dir, claimFile))
	}
	if err != nil {
		f.Close()
		if errors.Is(err, os.ErrExist) {
			return nil, false, nil
		}
		return nil, false, fmt.Errorf("claim the task: %w", err)
	}
	return f, true, nil
}

// claimHeld reports whether the process that claimed the task of dir lives.
func claimHeld(dir string) (bool, error) {
	f, err := os.Open(filepath.Join(dir, claimFile))
	if err != nil {
		return false, fmt.Errorf("look at the claim: %w", err)
	}
	defer f.Close()
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at the claim: %w", err)
	}
	return false, nil
}
