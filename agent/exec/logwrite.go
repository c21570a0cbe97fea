package exec

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"
)

const (
	readBytes     = 32 << 10        // of one read from a task's pipe
	queueRecords  = 64              // records that wait for the disk: at most 2 MiB
	diskPatience  = 1 * time.Second // how long output waits for a slow disk before it is dropped
	writeBatchMax = 256 << 10       // bytes gathered into one write
)

// logWriter takes a task's output from its pipes to the disk. Its memory is bounded; when
// the disk does not keep up for longer than diskPatience, output is dropped and counted,
// so that the task never blocks for ever on its log.
type logWriter struct {
	queue   chan record
	dropped atomic.Int64 // bytes
	done    chan struct{}
	pipes   sync.WaitGroup
	store   *segmentStore
	now     func() time.Time
	lagging atomic.Bool // the queue was full and has not been empty since
}

func newLogWriter(dir string, maxBytes int64, now func() time.Time) (*logWriter, error) {
	if maxBytes == 0 {
		maxBytes = DefaultLogMaxBytes
	}
	store, err := newSegmentStore(dir, max(maxBytes, logMinBytes))
	if err != nil {
		return nil, err
	}
	w := &logWriter{queue: make(chan record, queueRecords), done: make(chan struct{}), store: store, now: now}
	go w.write()
	return w, nil
}

// copyFrom reads the pipe until its end in a goroutine of its own; watch, if any, sees
// each piece first.
func (w *logWriter) copyFrom(pipe io.Reader, stderr bool, watch func([]byte)) {
	w.pipes.Go(func() {
		for {
			buf := make([]byte, readBytes)
			n, err := pipe.Read(buf)
			if n > 0 {
				if watch != nil {
					watch(buf[:n])
				}
				w.put(record{stderr: stderr, timeMS: w.now().UnixMilli(), data: buf[:n:n]})
			}
			if err != nil {
				return
			}
		}
	})
}

// put queues the record, or drops it when the disk has been too slow for too long. While
// it lags, nothing waits a second time.
func (w *logWriter) put(r record) {
	select {
	case w.queue <- r:
		return
	default:
	}
	if !w.lagging.Load() {
		patience := time.NewTimer(diskPatience)
		defer patience.Stop()
		select {
		case w.queue <- r:
			return
		case <-patience.C:
			w.lagging.Store(true)
		}
	}
	w.dropped.Add(int64(len(r.data)))
}

// write is the goroutine that alone touches the disk.
func (w *logWriter) write() {
	defer close(w.done)
	told := int64(0)
	for r := range w.queue {
		batch := []record{r}
		for size := len(r.data); size < writeBatchMax && len(batch) < queueRecords && len(w.queue) > 0; {
			next := <-w.queue
			batch = append(batch, next)
			size += len(next.data)
		}
		if dropped := w.dropped.Load(); dropped > told && len(w.queue) == 0 {
			w.lagging.Store(false)
			notice := fmt.Sprintf("llmos: %d bytes of output were dropped here because the disk did not take them\n", dropped-told)
			batch = append(batch, record{stderr: true, timeMS: w.now().UnixMilli(), data: []byte(notice)})
			told = dropped
		}
		w.dropped.Add(w.store.append(batch))
	}
	w.store.close()
}

// finish waits until both pipes are at their end and everything is written, at most for
// timeout; then it stops waiting for the pipes' writers.
func (w *logWriter) finish(timeout time.Duration, cut func()) {
	read := make(chan struct{})
	go func() { w.pipes.Wait(); close(read) }()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-read:
	case <-timer.C:
		cut() // closes the pipes, which ends the readers
		<-read
	}
	close(w.queue)
	timer.Reset(timeout)
	select {
	case <-w.done:
	case <-timer.C: // the disk hangs; the record of the end must not wait for it
	}
}

// segmentStore appends records to segments and deletes the oldest ones. One goroutine.
type segmentStore struct {
	dir        string
	max        int64 // bytes of all segments on the disk
	file       *os.File
	fileBytes  int64
	offset     int64 // of the next byte of the stream
	segmentMax int64
}

// newSegmentStore makes the folder; the first segment comes with the first output.
func newSegmentStore(dir string, maxBytes int64) (*segmentStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the log: %w", err)
	}
	return &segmentStore{dir: dir, max: maxBytes, segmentMax: maxBytes / segmentsKept}, nil
}

// rotate begins a new segment and keeps the whole below its limit, counting the new
// segment as full.
func (s *segmentStore) rotate() error {
	s.close()
	f, err := os.OpenFile(segmentPath(s.dir, s.offset), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("begin a log segment: %w", err)
	}
	s.file, s.fileBytes = f, 0
	offsets, err := segments(s.dir)
	if err != nil {
		return err
	}
	total := s.segmentMax
	for i := len(offsets) - 2; i >= 0; i-- { // the last one is the new one
		info, err := os.Stat(segmentPath(s.dir, offsets[i]))
		if err == nil {
			total += info.Size()
		}
		if total > s.max {
			_ = os.Remove(filepath.Join(s.dir, segmentName(offsets[i])))
		}
	}
	return nil
}

// append writes the records and gives the number of bytes that could not be kept.
func (s *segmentStore) append(batch []record) (lost int64) {
	var buf []byte
	var size int64
	for _, r := range batch {
		if len(buf) > 0 && int64(len(buf)+recordHeaderBytes+len(r.data)) > s.segmentMax {
			lost += s.flush(buf, size)
			buf, size = buf[:0], 0
		}
		buf = appendRecord(buf, r)
		size += int64(len(r.data))
	}
	return lost + s.flush(buf, size)
}

// flush writes whole records that hold size bytes of output, in a new segment when the
// present one is full.
func (s *segmentStore) flush(buf []byte, size int64) (lost int64) {
	if s.file == nil || s.fileBytes > 0 && s.fileBytes+int64(len(buf)) > s.segmentMax {
		if err := s.rotate(); err != nil {
			return size
		}
	}
	if _, err := s.file.WriteAt(buf, s.fileBytes); err != nil {
		// A full disk: what was half written is cut off, and the next records try again.
		_ = s.file.Truncate(s.fileBytes)
		return size
	}
	s.fileBytes += int64(len(buf))
	s.offset += size
	return 0
}

func (s *segmentStore) close() {
	if s.file != nil {
		_ = s.file.Close()
		s.file = nil
	}
}
