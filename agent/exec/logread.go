package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// ChunkBytesMax bounds the data of one LogChunk.
const ChunkBytesMax = 64 << 10

// readAheadBytes is the window of a LogReader on its segment: two records at least.
const readAheadBytes = 2 * (recordBytesMax + recordHeaderBytes)

// LogChunk is a piece of a task's output.
type LogChunk struct {
	Stderr bool
	Data   []byte // owned by the caller
	Offset int64  // of the first byte, among all bytes of the task
	TimeMS int64  // when the first byte was read from the task
}

// LogReader reads the log of a task while its shim writes it and after. Not safe for
// concurrent use.
type LogReader struct {
	dir    string
	want   int64    // offset of the next byte to return
	file   *os.File // the segment being read; nil: find the one for want
	start  int64    // where that segment begins
	next   int64    // stream offset of the record at pos
	pos    int64    // in the file
	window []byte   // bytes of the file from pos on
}

// OpenLog opens the log of the task that lives in dir, from offset on. What has been
// rotated away is skipped.
func OpenLog(dir string, offset int64) *LogReader {
	return &LogReader{dir: filepath.Join(dir, logDir), want: max(offset, 0)}
}

// Offset is that of the next byte Next would give.
func (r *LogReader) Offset() int64 { return r.want }

// Close releases the segment's descriptor.
func (r *LogReader) Close() error {
	if r.file == nil {
		return nil
	}
	err := r.file.Close()
	r.file, r.window = nil, nil
	return err
}

// Next gives the next piece, or false when there is nothing more at this moment. Pieces of
// one stream are joined up to ChunkBytesMax.
func (r *LogReader) Next() (LogChunk, bool, error) {
	var chunk LogChunk
	for {
		rec, length, err := r.peek()
		if errors.Is(err, errRecordCut) {
			moved, err := r.advance()
			if err != nil {
				return LogChunk{}, false, err
			}
			if moved {
				if len(chunk.Data) > 0 {
					return chunk, true, nil // the rest of the chunk would skip what was rotated away
				}
				continue
			}
			return chunk, len(chunk.Data) > 0, nil
		}
		if err != nil {
			return LogChunk{}, false, err
		}
		if r.next+int64(length) <= r.want {
			r.consume(length)
			continue
		}
		data := rec.data[max(0, r.want-r.next):]
		if len(chunk.Data) == 0 {
			chunk = LogChunk{Stderr: rec.stderr, Offset: r.want, TimeMS: rec.timeMS}
		} else if chunk.Stderr != rec.stderr || len(chunk.Data)+len(data) > ChunkBytesMax {
			return chunk, true, nil
		}
		chunk.Data = append(chunk.Data, data...)
		r.want += int64(len(data))
		r.consume(length)
	}
}

// peek decodes the record at pos without consuming it. errRecordCut: it is not there yet.
func (r *LogReader) peek() (record, int, error) {
	if r.file == nil {
		return record{}, 0, errRecordCut
	}
	if err := r.fill(recordHeaderBytes); err != nil {
		return record{}, 0, err
	}
	rec, length, err := decodeHeader(r.window)
	if err != nil {
		return record{}, 0, fmt.Errorf("%s: %w", r.file.Name(), err)
	}
	if err := r.fill(recordHeaderBytes + length); err != nil {
		return record{}, 0, err
	}
	rec.data = r.window[recordHeaderBytes : recordHeaderBytes+length]
	return rec, length, nil
}

// fill makes the window at least n bytes long, or says errRecordCut.
func (r *LogReader) fill(n int) error {
	if len(r.window) >= n {
		return nil
	}
	buf := make([]byte, readAheadBytes)
	got, err := r.file.ReadAt(buf, r.pos)
	if err != nil && err != io.EOF {
		return fmt.Errorf("read the log: %w", err)
	}
	r.window = buf[:got]
	if got < n {
		return errRecordCut
	}
	return nil
}

func (r *LogReader) consume(length int) {
	n := recordHeaderBytes + length
	r.window = r.window[n:]
	r.pos += int64(n)
	r.next += int64(length)
}

// advance opens the segment that holds want, when it is another than the one at hand.
// false: there is none, the reader is at the end.
func (r *LogReader) advance() (bool, error) {
	offsets, err := segments(r.dir)
	if err != nil || len(offsets) == 0 {
		return false, err
	}
	target := -1
	for i, start := range offsets {
		if r.file != nil && start <= r.start {
			continue // read already
		}
		if target < 0 || start <= r.want {
			target = i
		}
	}
	if target < 0 {
		return false, nil
	}
	start := offsets[target]
	f, err := os.Open(segmentPath(r.dir, start))
	if errors.Is(err, os.ErrNotExist) {
		return true, nil // rotated away in this moment: look again
	}
	if err != nil {
		return false, fmt.Errorf("read the log: %w", err)
	}
	if r.file != nil {
		// The last records of the old segment may have been written since it was read to its end.
		if info, err := r.file.Stat(); err == nil && info.Size() > r.pos+int64(len(r.window)) {
			f.Close()
			r.window = nil
			return true, nil
		}
	}
	r.Close()
	r.file, r.start, r.next, r.pos = f, start, start, 0
	r.want = max(r.want, start)
	return true, nil
}

// SeekTail moves the reader so many lines before the present end of the log, or as far as
// the log still reaches back.
func (r *LogReader) SeekTail(lines int64) error {
	const linesMax = 1 << 20
	lines = min(max(lines, 0), linesMax)
	offsets, err := segments(r.dir)
	if err != nil {
		return err
	}
	r.Close()
	first := true
	for i := len(offsets) - 1; i >= 0; i-- {
		starts, end, err := lineStarts(r.dir, offsets[i], int(lines)+1)
		if err != nil {
			return err
		}
		if first {
			r.want = end
			if n := len(starts); n > 0 && starts[n-1] == end {
				starts = starts[:n-1] // nothing follows the last newline: no line begins there
			}
			first = end == offsets[i] && i > 0 // an empty segment does not count as the end
		}
		if n := int64(len(starts)); n >= lines {
			if lines > 0 {
				r.want = starts[n-lines]
			}
			return nil
		} else {
			lines -= n
		}
		r.want = offsets[i]
	}
	return nil
}

// lineStarts gives the offsets, at most the last n, at which lines begin in a segment,
// and the offset of its end. The stream's first byte begins a line.
func lineStarts(dir string, start int64, n int) (starts []int64, end int64, err error) {
	f, err := os.Open(segmentPath(dir, start))
	if errors.Is(err, os.ErrNotExist) {
		return nil, start, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("read the log: %w", err)
	}
	r := &LogReader{dir: dir, file: f, start: start, next: start}
	defer r.Close()
	if start == 0 {
		starts = append(starts, 0)
	}
	for {
		rec, length, err := r.peek()
		if errors.Is(err, errRecordCut) {
			return starts, r.next, nil
		}
		if err != nil {
			return nil, 0, err
		}
		for i, c := range rec.data {
			if c == '\n' {
				starts = append(starts, r.next+int64(i)+1)
			}
		}
		if len(starts) > 2*n+1024 {
			starts = append(starts[:0:0], starts[len(starts)-n:]...)
		}
		r.consume(length)
	}
}
