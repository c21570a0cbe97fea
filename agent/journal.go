package agent

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// The journal remembers which tasks this node was ever told to start and has not been
// told to forget. A task is in it, on the disk, before anything of the task happens; so
// after a crash every task that may run is known, and none is started a second time. How
// a task goes is not in the journal but in the task's own directory.
//
// It is one file of records: length, checksum, kind and body. The end of the file may be
// torn by a crash and is then cut off; damage before the end is refused.

const (
	journalFile     = "log"
	journalHeader   = 8       // length of kind and body, CRC32C of them
	recordMax       = 4 << 20 // bytes of kind and body
	compactAtBytes  = 1 << 20 // a shorter journal is not rewritten
	compactAtFactor = 4       // how much longer than its content a journal may grow
)

// Kinds of journal records.
const (
	kindAssigned = 1 // body: pb.Assignment
	kindCleaned  = 2 // body: task ID
	kindIndex    = 3 // body: uvarint, index of the newest desired set
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// journal is open for appending. Safe for concurrent use.
type journal struct {
	mu    sync.Mutex
	path  string
	file  *os.File
	size  int64 // of whole records
	tasks map[string]*pb.Assignment
	index uint64
	err   error // the first failed sync: nothing is believed after it
}

// openJournal reads the journal of dir, makes it when absent, and cuts a torn end off.
func openJournal(dir string) (*journal, error) {
	j := &journal{path: filepath.Join(dir, journalFile), tasks: map[string]*pb.Assignment{}}
	data, err := os.ReadFile(j.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, homeFault(dir, err)
	}
	if j.size, err = j.replay(data); err != nil {
		return nil, fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "the journal %s is damaged: %w", j.path, err).
			Hint("stop this node's tasks, remove the journal folder and start the agent again; the tasks' jobs are then restarted")
	}
	if j.file, err = os.OpenFile(j.path, os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return nil, homeFault(dir, err)
	}
	if err = j.file.Truncate(j.size); err == nil {
		err = j.file.Sync()
	}
	if err == nil {
		err = syncFolder(dir)
	}
	if err != nil {
		return nil, errors.Join(homeFault(dir, err), j.file.Close())
	}
	return j, nil
}

func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// replay applies the records of data and gives the length of the whole ones.
func (j *journal) replay(data []byte) (whole int64, err error) {
	for rest := data; len(rest) > 0; {
		n, record, ok := cutRecord(rest)
		if !ok {
			if n < len(rest) && !allZero(rest) {
				return 0, fmt.Errorf("a record at byte %d of %d does not fit its checksum", whole, len(data))
			}
			return whole, nil
		}
		if err := j.apply(record); err != nil {
			return 0, fmt.Errorf("the record at byte %d: %w", whole, err)
		}
		rest = rest[n:]
		whole += int64(n)
	}
	return whole, nil
}

// cutRecord takes the first record off data. When it is not whole, n says how far it
// claims to reach: up to the end or beyond for a torn one.
func cutRecord(data []byte) (n int, record []byte, ok bool) {
	if len(data) < journalHeader {
		return len(data), nil, false
	}
	length := binary.LittleEndian.Uint32(data)
	if length == 0 || length > recordMax {
		return journalHeader, nil, false
	}
	n = journalHeader + int(length)
	if n > len(data) {
		return n, nil, false
	}
	record = data[journalHeader:n]
	return n, record, crc32.Checksum(record, castagnoli) == binary.LittleEndian.Uint32(data[4:])
}

func allZero(data []byte) bool { return len(bytes.Trim(data, "\x00")) == 0 }

func (j *journal) apply(record []byte) error {
	body := record[1:]
	switch record[0] {
	case kindAssigned:
		a := &pb.Assignment{}
		if err := proto.Unmarshal(body, a); err != nil {
			return fmt.Errorf("read an assignment: %w", err)
		}
		j.tasks[a.GetTask().GetId()] = a
	case kindCleaned:
		delete(j.tasks, string(body))
	case kindIndex:
		index, n := binary.Uvarint(body)
		if n <= 0 {
			return errors.New("read an index: it is cut")
		}
		j.index = max(j.index, index)
	default:
		return fmt.Errorf("its kind %d is unknown: a newer llmos wrote it", record[0])
	}
	return nil
}

func appendFrame(buf []byte, kind byte, body []byte) []byte {
	record := append([]byte{kind}, body...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(record)))
	buf = binary.LittleEndian.AppendUint32(buf, crc32.Checksum(record, castagnoli))
	return append(buf, record...)
}

// assign puts the assignments and the index of their desired set on the disk, in one
// write and one sync. An error means that none of them counts.
func (j *journal) assign(index uint64, assignments []*pb.Assignment) error {
	var buf []byte
	for _, a := range assignments {
		body, err := proto.Marshal(a)
		if err != nil {
			return fmt.Errorf("journal task %s: %w", a.GetTask().GetId(), err)
		}
		if len(body) >= recordMax {
			return fmt.Errorf("journal task %s: its assignment has %d bytes", a.GetTask().GetId(), len(body))
		}
		buf = appendFrame(buf, kindAssigned, body)
	}
	buf = appendFrame(buf, kindIndex, binary.AppendUvarint(nil, index))
	return j.append(buf, func() {
		for _, a := range assignments {
			j.tasks[a.GetTask().GetId()] = a
		}
		j.index = max(j.index, index)
	})
}

// clean forgets the tasks. It is not synced: a task that comes back after a crash is
// reported once more, and forgotten again.
func (j *journal) clean(ids []string) error {
	var buf []byte
	for _, id := range ids {
		buf = appendFrame(buf, kindCleaned, []byte(id))
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	if err := j.write(buf); err != nil {
		return err
	}
	for _, id := range ids {
		delete(j.tasks, id)
	}
	return j.compact()
}

func (j *journal) append(buf []byte, done func()) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	before := j.size
	if err := j.write(buf); err != nil {
		return err
	}
	if err := j.file.Sync(); err != nil {
		// What a failed sync has left on the disk cannot be known, nor mended by another.
		j.size = before
		j.err = fmt.Errorf("sync the journal: %w", err)
		return j.err
	}
	done()
	return nil
}

// write appends buf; after a failure, as on a full disk, nothing of it remains.
func (j *journal) write(buf []byte) error {
	if j.err != nil {
		return j.err
	}
	if _, err := j.file.WriteAt(buf, j.size); err != nil {
		if terr := j.file.Truncate(j.size); terr != nil {
			j.err = fmt.Errorf("repair the journal: %w", terr)
		}
		return fmt.Errorf("write the journal: %w", err)
	}
	j.size += int64(len(buf))
	return nil
}

// compact rewrites a journal that is much longer than what it says.
func (j *journal) compact() error {
	if j.size < compactAtBytes {
		return nil
	}
	var buf []byte
	ids := make([]string, 0, len(j.tasks))
	for id := range j.tasks {
		ids = append(ids, id)
	}
	sort.Strings(ids)
	for _, id := range ids {
		body, err := proto.Marshal(j.tasks[id])
		if err != nil {
			return fmt.Errorf("compact the journal: %w", err)
		}
		buf = appendFrame(buf, kindAssigned, body)
	}
	buf = appendFrame(buf, kindIndex, binary.AppendUvarint(nil, j.index))
	if j.size < int64(len(buf))*compactAtFactor {
		return nil
	}
	if err := transport.WriteFileAtomic(j.path, buf, 0o600); err != nil {
		return fmt.Errorf("compact the journal: %w", err)
	}
	f, err := os.OpenFile(j.path, os.O_RDWR, 0o600)
	if err != nil {
		j.err = fmt.Errorf("open the compacted journal: %w", err)
		return j.err
	}
	_ = j.file.Close()
	j.file, j.size = f, int64(len(buf))
	return nil
}

// known gives the journaled assignments, by task ID, and the newest index.
func (j *journal) known() ([]*pb.Assignment, uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	out := make([]*pb.Assignment, 0, len(j.tasks))
	for _, a := range j.tasks {
		out = append(out, a)
	}
	sort.Slice(out, func(a, b int) bool { return out[a].GetTask().GetId() < out[b].GetTask().GetId() })
	return out, j.index
}

func (j *journal) close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.file.Close()
}
