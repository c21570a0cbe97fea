package exec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// startError is a reason why a task could not be started, with its exit code.
type startError struct {
	code   int
	reason string
}

func (e *startError) Error() string { return e.reason }

func cannot(code int, format string, args ...any) *startError {
	return &startError{code: code, reason: fmt.Sprintf(format, args...)}
}

// launch is everything the fork needs, checked beforehand: after it, the kernel says only
// a number.
type launch struct {
	path       string // of the executable
	argv, env  []string
	workdir    string
	credential *syscall.Credential // nil: the shim's own
	hidden     string              // folder to be kept out of, but for
	open       []string            // these
}

// prepare checks the spec against the node and makes the task's folders.
func prepare(dir string, spec Spec) (launch, *startError) {
	l := launch{argv: spec.Command, env: spec.Env, workdir: spec.Workdir, hidden: spec.Hidden, open: []string{dir}}
	if spec.JobDir != "" {
		l.open = append(l.open, spec.JobDir)
	}
	if len(spec.Command) == 0 || spec.Command[0] == "" {
		return l, cannot(ExitCannotStart, "the task has no command")
	}
	credential, err := findUser(spec)
	if err != nil {
		return l, err
	}
	l.credential = credential
	private := []string{TempDir(dir), HomeDir(dir)}
	if l.workdir == "" {
		l.workdir = HomeDir(dir)
		private = append(private, saveDirs(l.workdir, spec.SaveDir)...)
	}
	if err := makePrivate(private, spec, credential); err != nil {
		return l, err
	}
	if err := checkWorkdir(dir, l.workdir, spec); err != nil {
		return l, err
	}
	path, err := findCommand(spec, l.workdir)
	l.path = path
	return l, err
}

// saveDirs gives the folders on the way to the one in which the task saves itself, the outermost
// first. They are made in the private working directory alone: elsewhere, the shim could make what
// the task's user may not.
func saveDirs(workdir, path string) (dirs []string) {
	if path == "" || !filepath.IsLocal(path) {
		return nil
	}
	for path = filepath.Clean(path); path != "."; path = filepath.Dir(path) {
		dirs = append(dirs, filepath.Join(workdir, path))
	}
	slices.Reverse(dirs)
	return dirs
}

// makePrivate makes the task's folders and gives them, and what else is its own, to its user.
func makePrivate(folders []string, spec Spec, credential *syscall.Credential) *startError {
	for _, p := range folders {
		err := os.Mkdir(p, 0o700)
		if errors.Is(err, fs.ErrExist) {
			var info fs.FileInfo
			if info, err = os.Lstat(p); err == nil && !info.IsDir() {
				return cannot(ExitCannotStart, "%s on node %s is no folder of the task's own", p, spec.NodeName)
			}
		}
		if err != nil {
			return cannot(ExitCannotStart, "a folder for the task could not be made on node %s: %v%s", spec.NodeName, err, diskHint(err))
		}
	}
	if credential == nil {
		return nil
	}
	for _, p := range append(append([]string{}, folders...), spec.Owned...) {
		if err := os.Lchown(p, int(credential.Uid), int(credential.Gid)); err != nil {
			return cannot(ExitCannotStart, "%s could not be given to user %s on node %s: %v", p, spec.User, spec.NodeName, err)
		}
	}
	return nil
}

// checkWorkdir wants a folder that is there, and that no link leads into what is hidden
// from the task: another task's folder, or the agent's.
func checkWorkdir(dir, workdir string, spec Spec) *startError {
	info, err := os.Stat(workdir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return cannot(ExitCannotStart, "working directory %s does not exist on node %s", workdir, spec.NodeName)
	case err != nil:
		return cannot(ExitCannotStart, "working directory %s cannot be entered on node %s: %v", workdir, spec.NodeName, err)
	case !info.IsDir():
		return cannot(ExitCannotStart, "working directory %s on node %s is not a directory", workdir, spec.NodeName)
	case spec.Hidden == "":
		return nil
	}
	real, err := filepath.EvalSymlinks(workdir)
	if err != nil {
		return cannot(ExitCannotStart, "working directory %s cannot be entered on node %s: %v", workdir, spec.NodeName, err)
	}
	for _, own := range []string{dir, spec.JobDir} {
		if own != "" && within(real, own) {
			return nil
		}
	}
	if within(real, spec.Hidden) {
		return cannot(ExitCannotStart, "working directory %s leads to %s on node %s, which is the agent's own", workdir, real, spec.NodeName)
	}
	return nil
}

// within says whether path is folder or lies below it, links followed.
func within(path, folder string) bool {
	if real, err := filepath.EvalSymlinks(folder); err == nil {
		folder = real
	}
	return path == folder || strings.HasPrefix(path, folder+"/")
}

// diskHint says in words what ENOSPC and its kin mean.
func diskHint(err error) string {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return " (free some space in the agent's data directory)"
	}
	return ""
}

// findUser resolves the task's user; nil when the task runs as the shim does.
func findUser(spec Spec) (*syscall.Credential, *startError) {
	if spec.User == "" {
		return nil, nil
	}
	u, err := user.Lookup(spec.User)
	if err != nil {
		if u, err = user.LookupId(spec.User); err != nil {
			return nil, cannot(ExitCannotStart, "user %q does not exist on node %s", spec.User, spec.NodeName)
		}
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if uidErr != nil || gidErr != nil {
		return nil, cannot(ExitCannotStart, "user %q has no usable IDs on node %s", spec.User, spec.NodeName)
	}
	if os.Geteuid() != 0 {
		if int(uid) == os.Geteuid() {
			return nil, nil
		}
		return nil, cannot(ExitCannotStart, "the task cannot run as user %q: the agent of node %s does not run as root", spec.User, spec.NodeName)
	}
	c := &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	groups, err := u.GroupIds()
	if err != nil {
		groups = []string{u.Gid}
	}
	for _, g := range groups {
		if id, err := strconv.ParseUint(g, 10, 32); err == nil {
			c.Groups = append(c.Groups, uint32(id))
		}
	}
	return c, nil
}

// findCommand resolves the command against the task's own PATH and working directory.
func findCommand(spec Spec, workdir string) (string, *startError) {
	name := spec.Command[0]
	candidates := []string{name}
	path := ""
	if !strings.Contains(name, "/") {
		candidates = nil
		path = lookupEnv(spec.Env, "PATH")
		for _, dir := range filepath.SplitList(path) {
			if dir == "" {
				dir = "."
			}
			candidates = append(candidates, filepath.Join(dir, name))
		}
	}
	notExecutable := ""
	for _, c := range candidates {
		absolute := c
		if !filepath.IsAbs(c) {
			absolute = filepath.Join(workdir, c)
		}
		info, err := os.Stat(absolute)
		switch {
		case err != nil:
		case info.IsDir():
			notExecutable = "is a directory"
		case info.Mode()&0o111 == 0:
			notExecutable = "is not executable"
		default:
			return absolute, nil
		}
	}
	if notExecutable != "" {
		return "", cannot(ExitNotExecutable, "command %q %s on node %s", name, notExecutable, spec.NodeName)
	}
	if strings.Contains(name, "/") {
		return "", cannot(ExitNotFound, "command %q was not found on node %s", name, spec.NodeName)
	}
	return "", cannot(ExitNotFound, "command %q was not found on node %s (PATH=%s)", name, spec.NodeName, path)
}

func lookupEnv(env []string, name string) string {
	for _, entry := range slices.Backward(env) {
		if value, ok := strings.CutPrefix(entry, name+"="); ok {
			return value
		}
	}
	return ""
}

// forkFault puts the kernel's number into a sentence.
func forkFault(err error, spec Spec, l launch) *startError {
	name := spec.Command[0]
	switch {
	case errors.Is(err, unix.ENOENT):
		return cannot(ExitNotFound, "command %q on node %s names an interpreter that does not exist (see the first line of %s)", name, spec.NodeName, l.path)
	case errors.Is(err, unix.ENOEXEC):
		return cannot(ExitNotExecutable, "command %q on node %s is not a program for this machine; a script must begin with #!", name, spec.NodeName)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return cannot(ExitNotExecutable, "command %q or working directory %s on node %s may not be used by user %s: %v", name, l.workdir, spec.NodeName, orSelf(spec.User), err)
	case errors.Is(err, unix.E2BIG):
		return cannot(ExitNotExecutable, "command %q with its arguments and environment is longer than the kernel of node %s takes", name, spec.NodeName)
	}
	return cannot(ExitCannotStart, "command %q could not be started on node %s: %v", name, spec.NodeName, err)
}

func orSelf(name string) string {
	if name == "" {
		return "of the agent"
	}
	return name
}

// signals are the stop signals a job may name.
var signals = map[string]unix.Signal{
	"": unix.SIGTERM, "SIGTERM": unix.SIGTERM, "SIGINT": unix.SIGINT, "SIGHUP": unix.SIGHUP, "SIGQUIT": unix.SIGQUIT,
	"SIGUSR1": unix.SIGUSR1, "SIGUSR2": unix.SIGUSR2, "SIGKILL": unix.SIGKILL,
}

// stopSignal gives the signal of that name, with or without SIG; SIGTERM when unknown.
func stopSignal(name string) unix.Signal {
	if sig, ok := signals[name]; ok {
		return sig
	}
	if sig, ok := signals["SIG"+name]; ok {
		return sig
	}
	return unix.SIGTERM
}
