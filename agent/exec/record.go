package exec

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// A task's log is one ordered stream of bytes from both of its outputs, cut into records.
// It lies in segments named by the offset of their first byte in that stream; the oldest
// segments are deleted when the whole grows over its limit. An offset counts the task's
// bytes alone, so it stays right whatever the framing.

const (
	recordHeaderBytes = 16
	recordBytesMax    = 64 << 10
	recordMagic       = 0x4c // 'L'
	flagStderr        = 1
	segmentsKept      = 8 // the limit is divided into so many segments
	segmentSuffix     = ".log"
)

// record is one piece of output.
type record struct {
	stderr bool
	timeMS int64
	data   []byte
}

// appendRecord appends the encoded record to buf.
func appendRecord(buf []byte, r record) []byte {
	var header [recordHeaderBytes]byte
	header[0] = recordMagic
	if r.stderr {
		header[1] = flagStderr
	}
	binary.LittleEndian.PutUint32(header[4:], uint32(len(r.data)))
	binary.LittleEndian.PutUint64(header[8:], uint64(r.timeMS))
	return append(append(buf, header[:]...), r.data...)
}

// errRecordCut says that the bytes end within a record: it is still being written, or the
// writer died.
var errRecordCut = errors.New("the log record is cut")

// decodeHeader reads a record's header and gives the length of its data.
func decodeHeader(b []byte) (r record, length int, err error) {
	if len(b) < recordHeaderBytes {
		return record{}, 0, errRecordCut
	}
	n := binary.LittleEndian.Uint32(b[4:])
	if b[0] != recordMagic || b[1] > flagStderr || n == 0 || n > recordBytesMax {
		return record{}, 0, fmt.Errorf("the log is corrupt: no record begins with % x", b[:8])
	}
	return record{stderr: b[1] == flagStderr, timeMS: int64(binary.LittleEndian.Uint64(b[8:]))}, int(n), nil
}

// segmentName is the file of the segment that begins at offset.
func segmentName(offset int64) string { return fmt.Sprintf("%020d%s", offset, segmentSuffix) }

// segments lists the offsets at which the segments of dir begin, ascending.
func segments(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the log: %w", err)
	}
	var offsets []int64
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name(), segmentSuffix)
		if !ok {
			continue
		}
		if offset, err := strconv.ParseInt(digits, 10, 64); err == nil && offset >= 0 {
			offsets = append(offsets, offset)
		}
	}
	slices.Sort(offsets)
	return offsets, nil
}

func segmentPath(dir string, offset int64) string { return filepath.Join(dir, segmentName(offset)) }
