package exec

// ancestorsMax bounds the walk from a process to its first ancestor.
const ancestorsMax = 256

// Owners tells whose a process is. It is made for one look and knows the tasks of then.
type Owners struct {
	shims map[int]owner // by process number
}

type owner struct {
	dir   string
	ticks uint64
}

// OwnersOf reads who runs the tasks that live in dirs. A task whose shim is not known is
// left out.
func OwnersOf(dirs []string) Owners {
	o := Owners{shims: make(map[int]owner, len(dirs))}
	for _, dir := range dirs {
		var c claim
		if found, err := readJSON(dir, claimFile, &c); err == nil && found && !c.Void && c.BootID == BootID() {
			o.shims[c.PID] = owner{dir: dir, ticks: c.Ticks}
		}
	}
	return o
}

// Of gives the directory of the task to which a process of this host belongs; false: to
// none of them, or it has gone. A task's processes are the descendants of its shim, their
// subreaper, which no process below it can leave. A process's environment is not believed:
// it could name a neighbour.
func (o Owners) Of(pid int) (dir string, ok bool) {
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
