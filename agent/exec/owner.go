package exec

import (
	"os"
	"strconv"
)

// ancestorsMax bounds the walk from a process to its first ancestor.
const ancestorsMax = 256

// Owners tells whose a process is. It is made for one look and knows the tasks of then.
type Owners struct {
	shims  map[int]owner     // by process number
	spaces map[string]string // directory by the PID namespace of a task's container
}

type owner struct {
	dir   string
	ticks uint64
}

// OwnersOf reads who runs the tasks that live in dirs. A task whose shim is not known is
// left out.
func OwnersOf(dirs []string) Owners {
	o := Owners{shims: make(map[int]owner, len(dirs)), spaces: map[string]string{}}
	for _, dir := range dirs {
		var c claim
		if found, err := readJSON(dir, claimFile, &c); err == nil && found && !c.Void && c.BootID == BootID() {
			o.shims[c.PID] = owner{dir: dir, ticks: c.Ticks}
		}
		if space := containerSpace(dir); space != "" {
			o.spaces[space] = dir
		}
	}
	return o
}

// containerSpace names the PID namespace of the container of the task of dir; empty: none,
// or it is the agent's own.
func containerSpace(dir string) string {
	var id Identity
	if found, err := readJSON(dir, identityFile, &id); err != nil || !found || id.Container == "" || id.BootID != BootID() || !sameProcess(&id) {
		return ""
	}
	if space := pidSpace(strconv.Itoa(id.PID)); space != pidSpace("self") {
		return space
	}
	return ""
}

func pidSpace(pid string) string {
	name, err := os.Readlink("/proc/" + pid + "/ns/pid")
	if err != nil {
		return ""
	}
	return name
}

// Of gives the directory of the task to which a process of this host belongs; false: to
// none of them, or it has gone. A task's processes are the descendants of its shim, their
// subreaper, which no process below it can leave. A process's environment is not believed:
// it could name a neighbour. Those of a container are told by its PID namespace, which they
// cannot leave either: the engine is the parent of some.
func (o Owners) Of(pid int) (dir string, ok bool) {
	if len(o.spaces) > 0 {
		if dir, ok := o.spaces[pidSpace(strconv.Itoa(pid))]; ok {
			return dir, true
		}
	}
	for range ancestorsMax {
		stat, err := readStat(pid)
		if err != nil || pid <= 1 {
			return "", false
		}
		if own, found := o.shims[pid]; found && own.ticks == stat.ticks {
			return own.dir, true
		}
		pid = stat.ppid
	}
	return "", false
}
