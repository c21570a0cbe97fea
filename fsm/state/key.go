package state

import (
	"bytes"
	"encoding/binary"
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Keys are made so that their byte order is the order in which a table is read. The parts of a
// key that vary in length hold no zero byte (see ValidID) and end with one.

// IDBytesMax bounds every identifier and name in the state, in bytes.
const IDBytesMax = 128

// ValidID reports whether an identifier may be part of a key: 1 to IDBytesMax printable ASCII
// characters without spaces.
func ValidID(id string) bool {
	if id == "" || len(id) > IDBytesMax {
		return false
	}
	for i := range len(id) {
		if id[i] <= ' ' || id[i] > '~' {
			return false
		}
	}
	return true
}

// CopyID names the nth copy of an array or cron job, from 0.
func CopyID(parentID string, n int32) string { return parentID + "_" + strconv.Itoa(int(n)) }

// JobID names the nth job submitted under a name.
func JobID(name string, n uint64) string { return name + "-" + strconv.FormatUint(n, 10) }

// TaskID names a task: <job id>.e<epoch>.r<rank>.
func TaskID(jobID string, epoch uint64, rank int32) string {
	return jobID + ".e" + strconv.FormatUint(epoch, 10) + ".r" + strconv.Itoa(int(rank))
}

func terminated(parts ...string) []byte {
	n := 0
	for _, p := range parts {
		n += len(p) + 1
	}
	key := make([]byte, 0, n+12)
	for _, p := range parts {
		key = append(append(key, p...), 0)
	}
	return key
}

func attemptKey(jobID string, epoch uint64) []byte {
	return binary.BigEndian.AppendUint64(terminated(jobID), epoch)
}

func taskKey(jobID string, epoch uint64, rank int32) []byte {
	return binary.BigEndian.AppendUint32(attemptKey(jobID, epoch), uint32(rank))
}

// taskIDKey gives the key of a task's ID; false when no task can be called so.
func taskIDKey(id string) ([]byte, bool) {
	jobID, rest, ok := cutLast(id, ".e")
	if !ok {
		return nil, false
	}
	epochText, rankText, ok := strings.Cut(rest, ".r")
	if !ok {
		return nil, false
	}
	epoch, err := strconv.ParseUint(epochText, 10, 64)
	if err != nil {
		return nil, false
	}
	rank, err := strconv.ParseInt(rankText, 10, 32)
	if err != nil || rank < 0 {
		return nil, false
	}
	if TaskID(jobID, epoch, int32(rank)) != id { // "+1" and "01" parse too, and are no task's
		return nil, false
	}
	return taskKey(jobID, epoch, int32(rank)), true
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", "", false
	}
	return s[:i], s[i+len(sep):], true
}

// orderKey sorts jobs by submit order.
func orderKey(j *pb.Job) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 12), j.GetSubmitIndex())
	return binary.BigEndian.AppendUint32(key, j.GetSubmitOrdinal())
}

// nameKey sorts the jobs of a name newest first.
func nameKey(name string, j *pb.Job) []byte {
	key := binary.BigEndian.AppendUint64(terminated(name), ^j.GetSubmitIndex())
	return binary.BigEndian.AppendUint32(key, ^j.GetSubmitOrdinal())
}

// childKey sorts the copies of a parent by submit order.
func childKey(j *pb.Job) []byte { return append(terminated(j.GetParent()), orderKey(j)...) }

// firstPart gives the part of a key before its first zero byte.
func firstPart(key []byte) string {
	if i := bytes.IndexByte(key, 0); i >= 0 {
		key = key[:i]
	}
	return string(key)
}

// timeKey sorts by time, then by identifier. Times are never negative in the state.
func timeKey(ms int64, id string) []byte {
	key := binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(id)), uint64(ms))
	return append(key, id...)
}

func eventKey(e *pb.Event) []byte {
	key := binary.BigEndian.AppendUint64(terminated(eventScope(e)), e.GetIndex())
	return binary.BigEndian.AppendUint32(key, e.GetOrdinal())
}
