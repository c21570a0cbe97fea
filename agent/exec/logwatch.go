package exec

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watchFallback is how often a watcher looks when the kernel gives it no inotify instance.
const watchFallback = 200 * time.Millisecond

// LogWatch wakes a follower when a task's log grows or the task ends.
type LogWatch struct {
	inotify *os.File // nil: by time
	changed chan struct{}
	done    chan struct{}
}

// WatchLog begins to watch the task that lives in dir. Open it before the first read, so
// that nothing falls between.
func WatchLog(dir string) *LogWatch {
	w := &LogWatch{changed: make(chan struct{}, 1), done: make(chan struct{})}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err == nil {
		const grows = unix.IN_MODIFY | unix.IN_CREATE | unix.IN_MOVED_TO
		_, err = unix.InotifyAddWatch(fd, filepath.Join(dir, logDir), grows)
		if err == nil {
			_, err = unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO|unix.IN_DELETE_SELF)
		}
		if err != nil {
			_ = unix.Close(fd)
		} else {
			w.inotify = os.NewFile(uintptr(fd), "inotify")
		}
	}
	go w.run()
	return w
}

func (w *LogWatch) run() {
	defer close(w.done)
	if w.inotify == nil {
		return
	}
	buf := make([]byte, 4096)
	for {
		if _, err := w.inotify.Read(buf); err != nil {
			return
		}
		select {
		case w.changed <- struct{}{}:
		default:
		}
	}
}

// Wait returns when something may have changed since the last Wait, or with ctx's error.
func (w *LogWatch) Wait(ctx context.Context) error {
	var timer <-chan time.Time
	if w.inotify == nil {
		t := time.NewTimer(watchFallback)
		defer t.Stop()
		timer = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-w.changed:
	case <-timer:
	}
	return nil
}

// Close ends the watch and joins its goroutine.
func (w *LogWatch) Close() error {
	if w.inotify != nil {
		w.inotify.Close()
	}
	<-w.done
	return nil
}
