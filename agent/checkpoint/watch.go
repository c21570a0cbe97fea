package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Watch notices what is renamed into a folder, by inotify. What happens in the folders below does
// not show.
type Watch struct {
	events *os.File
	news   chan struct{}
	done   sync.WaitGroup

	mu    sync.Mutex
	moved map[string]bool
}

// watchBytes holds a number of events with the longest names.
const watchBytes = 64 * (unix.SizeofInotifyEvent + unix.NAME_MAX + 1)

// WatchFolder begins to watch a folder below root, which must be there.
func WatchFolder(root *os.Root, dir string) (*Watch, error) {
	folder, err := root.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("watch for checkpoints: %w", err)
	}
	defer folder.Close()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("watch for checkpoints: %w", err)
	}
	w := &Watch{events: os.NewFile(uintptr(fd), "inotify"), news: make(chan struct{}, 1), moved: map[string]bool{}}
	// By the descriptor: the name could mean another folder by now.
	path := fmt.Sprintf("/proc/self/fd/%d", folder.Fd())
	const mask = unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE | unix.IN_CREATE | unix.IN_CLOSE_WRITE | unix.IN_ONLYDIR
	if _, err := unix.InotifyAddWatch(fd, path, mask); err != nil {
		w.events.Close()
		return nil, fmt.Errorf("watch for checkpoints: %w", err)
	}
	w.done.Go(w.read)
	return w, nil
}

// News has a token when something may have changed.
func (w *Watch) News() <-chan struct{} { return w.news }

// Moved gives the names to which something was renamed, and that are there still.
func (w *Watch) Moved() map[string]bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return maps.Clone(w.moved)
}

// Close ends the watch.
func (w *Watch) Close() {
	w.events.Close()
	w.done.Wait()
}

func (w *Watch) read() {
	buf := make([]byte, watchBytes)
	for {
		n, err := w.events.Read(buf)
		if err != nil || n <= 0 {
			return
		}
		w.take(buf[:n])
		select {
		case w.news <- struct{}{}:
		default:
		}
	}
}

func (w *Watch) take(buf []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(buf) >= unix.SizeofInotifyEvent {
		mask := binary.NativeEndian.Uint32(buf[4:])
		end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(buf[12:]))
		if end > len(buf) {
			return
		}
		name := string(bytes.TrimRight(buf[unix.SizeofInotifyEvent:end], "\x00"))
		switch {
		case mask&unix.IN_MOVED_TO != 0 && len(w.moved) < lookEntriesMax:
			w.moved[name] = true
		case mask&(unix.IN_MOVED_FROM|unix.IN_DELETE|unix.IN_CREATE) != 0:
			delete(w.moved, name)
		}
		buf = buf[end:]
	}
}
