package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How the disk that a task has taken is looked at.
const (
	diskLookMin   = time.Second      // between two looks, and
	diskLookMax   = 10 * time.Second // at most
	diskRate      = 1 << 30          // bytes a second that a task is thought to write at most
	diskLookShare = 20               // a look is followed by a pause of so many times its length
	diskDepthMax  = 512              // folders in each other
	diskLinksMax  = 100_000          // files of several names that are remembered in one look
	blockBytes    = 512              // of st_blocks
)

// errTooDeep says that a task has hidden files where nobody counts them.
var errTooDeep = fmt.Errorf("its private folder is nested more than %d folders deep", diskDepthMax)

// watchDisk ends the task once its private folders hold more than it asked for. It lives in
// the shim: a task is held to its disk while no agent is there.
func (s *shim) watchDisk(over <-chan struct{}, folders []string, members func() []int) {
	limit := s.spec.DiskBytes
	pause := diskLookMin
	for {
		select {
		case <-over:
			return
		case <-time.After(pause):
		}
		began := time.Now()
		used, err := diskTaken(folders, members())
		switch {
		case errors.Is(err, errTooDeep):
			s.obey(order{Op: opEnd, Reason: errTooDeep.Error() + ", where its disk cannot be counted"})
		case used > limit:
			s.obey(order{Op: opEnd, Reason: fmt.Sprintf("used more than the %s of disk it asked for", bytesText(limit))})
		}
		pause = diskPause(limit-used, time.Since(began))
	}
}

// diskPause is the time in which the bytes that are left can hardly be written, but long
// beside what the look took.
func diskPause(left int64, took time.Duration) time.Duration {
	pause := time.Duration(max(0, left)/(diskRate/1000)) * time.Millisecond
	return max(min(max(pause, diskLookMin), diskLookMax), diskLookShare*took)
}

// diskTaken sums the blocks of everything in the folders, and of files that were deleted
// there and are still open in one of the processes. A file of several names counts once;
// other file systems that are mounted there do not count.
func diskTaken(folders []string, pids []int) (int64, error) {
	c := diskCount{links: map[uint64]bool{}}
	var first error
	for _, folder := range folders {
		fd, err := unix.Open(folder, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil {
			c.device = st.Dev
			c.add(&st)
		}
		if err := c.folder(os.NewFile(uintptr(fd), folder), 0); err != nil && first == nil {
			first = err
		}
	}
	for _, pid := range pids {
		c.deleted(pid, folders)
	}
	return c.sum, first
}

// diskCount is one look.
type diskCount struct {
	device uint64
	sum    int64
	links  map[uint64]bool // inodes that have been counted and may be met again
}

func (c *diskCount) add(st *unix.Stat_t) {
	if st.Dev != c.device || c.links[st.Ino] {
		return
	}
	if (st.Nlink > 1 || st.Nlink == 0) && st.Mode&unix.S_IFMT != unix.S_IFDIR && len(c.links) < diskLinksMax {
		c.links[st.Ino] = true
	}
	c.sum += st.Blocks * blockBytes
}

// folder counts what is in an open folder, which it closes. What vanishes meanwhile is not
// counted.
func (c *diskCount) folder(f *os.File, depth int) error {
	defer f.Close()
	if depth > diskDepthMax {
		return errTooDeep
	}
	const batch = 512
	for {
		names, err := f.Readdirnames(batch)
		for _, name := range names {
			var st unix.Stat_t
			if unix.Fstatat(int(f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
				continue
			}
			c.add(&st)
			if st.Mode&unix.S_IFMT != unix.S_IFDIR || st.Dev != c.device {
				continue
			}
			fd, err := unix.Openat(int(f.Fd()), name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			if err := c.folder(os.NewFile(uintptr(fd), name), depth+1); err != nil {
				return err
			}
		}
		if err != nil && !errors.Is(err, io.EOF) || len(names) == 0 {
			return nil
		}
	}
}

// deleted counts the open files of a process that had names in the folders.
func (c *diskCount) deleted(pid int, folders []string) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		target, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil || !strings.HasSuffix(target, " (deleted)") {
			continue
		}
		for _, folder := range folders {
			var st unix.Stat_t
			if strings.HasPrefix(target, folder+"/") && unix.Stat(filepath.Join(dir, e.Name()), &st) == nil && st.Nlink == 0 {
				c.add(&st)
			}
		}
	}
}
