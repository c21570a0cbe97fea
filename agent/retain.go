package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"llmos/agent/exec"
	pb "llmos/proto/llmos/v1"
)

// endedTasksKept is how many ended tasks keep their log on the node after the servers
// have recorded their end.
const endedTasksKept = 50

// cleaner deletes what ended tasks leave, oldest first. Safe for concurrent use.
type cleaner struct {
	site site
	log  *slog.Logger

	mu   sync.Mutex
	kept []string // task IDs, oldest first
}

func newCleaner(s site, log *slog.Logger) *cleaner { return &cleaner{site: s, log: log} }

// begin finds the tasks that earlier runs of the agent have retired: those with a
// directory and no place in the journal. It gives those among them that have no end.
func (c *cleaner) begin(journaled []*pb.Assignment) (strays []string) {
	live := map[string]bool{}
	for _, a := range journaled {
		live[a.GetTask().GetId()] = true
	}
	entries, err := os.ReadDir(c.site.tasks)
	if err != nil {
		c.log.Warn("the tasks' folder cannot be read", "error", err)
		return nil
	}
	type retired struct {
		id    string
		ended int64
	}
	var found []retired
	for _, e := range entries {
		if live[e.Name()] || !e.IsDir() {
			continue
		}
		exit, err := exec.ReadExit(c.site.dir(e.Name()))
		if err == nil && exit == nil {
			strays = append(strays, e.Name())
			continue
		}
		r := retired{id: e.Name()}
		if exit != nil {
			r.ended = exit.EndedMS
		}
		found = append(found, r)
	}
	sort.Slice(found, func(a, b int) bool {
		if found[a].ended != found[b].ended {
			return found[a].ended < found[b].ended
		}
		return found[a].id < found[b].id
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range found {
		c.kept = append(c.kept, r.id)
	}
	c.trim()
	return strays
}

// retire keeps the log and the end of a task that the servers have forgotten, and deletes
// the oldest such task when there are more than endedTasksKept.
func (c *cleaner) retire(id string) {
	if err := exec.Shrink(c.site.dir(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		c.log.Warn("an ended task's files cannot be deleted", "task", id, "error", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = append(c.kept, id)
	c.trim()
}

// trim deletes the oldest ones; the caller holds the lock.
func (c *cleaner) trim() {
	for len(c.kept) > endedTasksKept {
		if err := exec.Remove(c.site.dir(c.kept[0])); err != nil {
			c.log.Warn("an old task's directory cannot be deleted", "task", c.kept[0], "error", err)
		}
		c.kept = c.kept[1:]
	}
}

// makeDir makes the task's directory when it is absent.
func (s site) makeDir(id string) error {
	if err := os.Mkdir(s.dir(id), 0o711); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make the task's directory: %w", err)
	}
	return nil
}

// recordEnd writes the end of a task that has no shim, making its directory when absent.
func (s site) recordEnd(id string, e exec.Exit) error {
	if err := s.makeDir(id); err != nil {
		return err
	}
	return exec.WriteExit(s.dir(id), e)
}

// taskDirOf gives the directory of a task that is named from outside; false when it names none.
func (s site) taskDirOf(id string) (string, bool) {
	if id == "" || id == "." || id == ".." || id != filepath.Base(id) {
		return "", false
	}
	dir := s.dir(id)
	info, err := os.Stat(dir)
	return dir, err == nil && info.IsDir()
}
