package exec

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The fence is Landlock, which only allows: so that a task reaches everything but the
// agent's data folder, each folder on the way there is opened entry by entry, and the entry
// that leads there is left out. Two rights are special. Reading the names in a folder is
// not fenced, for it would have to be allowed at the root, and so everywhere; the modes of
// the files' own folders guard them. And what is made later in a folder on the way, such as
// a new mount point in /, is reached only by tasks that start after it.

// fenceABIMin is the first version of Landlock that lets a fenced process move files
// between folders.
const fenceABIMin = 2

// fenceRights are handled, by the version of Landlock that knows them; MAKE and REMOVE
// rights are among them so that a task of the same user cannot delete what it cannot read.
func fenceRights(abi int) uint64 {
	rights := uint64(unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
		unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER)
	if abi >= 3 {
		rights |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	return rights
}

// fileRights are those of fenceRights that make sense for what is no folder.
const fileRights = unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_READ_FILE |
	unix.LANDLOCK_ACCESS_FS_TRUNCATE

// landlockABI gives the version that the kernel has; 0: none.
func landlockABI() int {
	n, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if errno != 0 {
		return 0
	}
	return int(n)
}

// fence keeps the calling thread, and what it forks, out of the hidden folder but for the
// open paths. It says whether it did: it does not without Landlock, and where the user
// could make entries in a folder on the way, such as /tmp, and would then miss them. The
// thread must have given up new privileges.
func fence(hidden string, open []string, c *syscall.Credential) (bool, error) {
	abi := landlockABI()
	hidden, err := filepath.EvalSymlinks(hidden)
	if abi < fenceABIMin || c == nil || c.Uid == 0 || err != nil || !filepath.IsAbs(hidden) || writableAbove(hidden, c) {
		return false, nil
	}
	rights := fenceRights(abi)
	attr := unix.LandlockRulesetAttr{Handled_access_fs: rights}
	ruleset, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr.Handled_access_fs), 0)
	if errno != 0 {
		return false, errno
	}
	defer unix.Close(int(ruleset))
	for folder, rest := "/", strings.Split(strings.TrimPrefix(hidden, "/"), "/"); len(rest) > 0; rest = rest[1:] {
		entries, err := os.ReadDir(folder)
		if err != nil {
			return false, err
		}
		for _, e := range entries {
			if e.Name() != rest[0] && e.Type()&os.ModeSymlink == 0 {
				if err := allowPath(int(ruleset), filepath.Join(folder, e.Name()), rights); err != nil {
					return false, err
				}
			}
		}
		folder = filepath.Join(folder, rest[0])
	}
	for _, path := range open {
		if err := allowPath(int(ruleset), path, rights); err != nil {
			return false, err
		}
	}
	if _, _, errno := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0, 0); errno != 0 {
		return false, errno
	}
	return true, nil
}

// allowPath lets the path, and all below it, be used. A path that is not there needs no rule.
func allowPath(ruleset int, path string, rights uint64) error {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		rights &= fileRights
	}
	rule := unix.LandlockPathBeneathAttr{Allowed_access: rights, Parent_fd: int32(fd)}
	_, _, errno := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&rule)), 0, 0, 0)
	if errno == unix.EBADFD { // of a file system that has no paths, such as a namespace's
		return nil
	}
	if errno != 0 {
		return errno
	}
	return nil
}

// writableAbove says whether the user may make entries in a folder above path.
func writableAbove(path string, c *syscall.Credential) bool {
	for path != "/" {
		path = filepath.Dir(path)
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil {
			return true
		}
		switch {
		case st.Mode&0o002 != 0, st.Uid == c.Uid && st.Mode&0o200 != 0:
			return true
		case st.Mode&0o020 != 0 && (st.Gid == c.Gid || slices.Contains(c.Groups, st.Gid)):
			return true
		}
	}
	return false
}
