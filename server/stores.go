package server

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// poison remembers the first failed write of any store of this server. After it nothing
// is written any more: an fsync that failed once may falsely succeed when repeated, so
// what is on disk is known only by reading it again after a restart.
type poison struct {
	dir   string      // data directory, for the sentence
	fatal func(error) // told once

	mu    sync.Mutex
	cause error
}

// check gives the error of the first failed write, nil when there was none.
func (p *poison) check() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cause
}

// write runs one write unless an earlier one failed, and keeps its failure.
func (p *poison) write(what string, do func() error) error {
	if err := p.check(); err != nil {
		return err
	}
	err := do()
	if err == nil {
		return nil
	}
	p.mu.Lock()
	first := p.cause == nil
	if first {
		p.cause = diskFault(p.dir, what, err)
	}
	cause := p.cause
	p.mu.Unlock()
	if first {
		p.fatal(cause)
	}
	return cause
}

// diskFault says in one sentence what a failed write means and what to do.
func diskFault(dir, what string, err error) error {
	text := err.Error() // bbolt flattens some errors to text, so the text is looked at too
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT),
		strings.Contains(text, syscall.ENOSPC.Error()), strings.Contains(text, syscall.EDQUOT.Error()):
		return fault.New(pb.ErrorKind_ERROR_KIND_LIMIT, "%s in data directory %s: the disk is full: %w", what, dir, err).
			Hint("free space on the file system of %s, then start the server again; nothing acknowledged is lost", dir)
	case errors.Is(err, syscall.EROFS):
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "%s in data directory %s: the file system is read-only: %w", what, dir, err).
			Hint("mount %s writable, check the kernel log for disk errors, then start the server again", dir)
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "%s in data directory %s: the write failed: %w", what, dir, err).
		Hint("check the disk and the kernel log, then start the server again; if the disk is bad, replace it and join with a new token")
}

// corruptFault says in one sentence that a file cannot be trusted, and the way out.
func corruptFault(dir, what string, cause any) error {
	format := "%s in data directory %s is corrupt: %v"
	if err, ok := cause.(error); ok {
		return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "%s in data directory %s is corrupt: %w", what, dir, err).
			Hint("%s", corruptHint(dir))
	}
	return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, format, what, dir, cause).Hint("%s", corruptHint(dir))
}

func corruptHint(dir string) string {
	return fmt.Sprintf("move %s away and join again with a token (llmos token create server); the other servers have the data", dir)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// entrySum covers what Raft trusts of a stored entry. bbolt pages have no checksums, and
// an entry that has rotted on one disk must not be replicated from there.
func entrySum(l *raft.Log) uint32 {
	var head [17]byte
	binary.LittleEndian.PutUint64(head[0:], l.Index)
	binary.LittleEndian.PutUint64(head[8:], l.Term)
	head[16] = byte(l.Type)
	return crc32.Update(crc32.Checksum(head[:], castagnoli), castagnoli, l.Data)
}

// logStore wraps a log store: checksums on every entry, and no write after a failed one.
type logStore struct {
	raft.LogStore
	poison *poison
}

// StoreLog stores one entry.
func (s *logStore) StoreLog(l *raft.Log) error { return s.StoreLogs([]*raft.Log{l}) }

// StoreLogs stores entries with their checksums; all or none.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	sealed := make([]*raft.Log, len(logs))
	for i, l := range logs {
		c := *l
		c.Extensions = binary.LittleEndian.AppendUint32(nil, entrySum(l))
		sealed[i] = &c
	}
	return s.poison.write("appending to the Raft log", func() error { return s.LogStore.StoreLogs(sealed) })
}

// DeleteRange removes the entries from min to max, inclusive.
func (s *logStore) DeleteRange(min, max uint64) error {
	return s.poison.write("truncating the Raft log", func() error { return s.LogStore.DeleteRange(min, max) })
}

// GetLog reads an entry and verifies it. An entry that fails is fatal: this server must
// neither apply nor replicate it.
func (s *logStore) GetLog(index uint64, l *raft.Log) error {
	if err := s.LogStore.GetLog(index, l); err != nil {
		return err
	}
	if err := unseal(index, l); err != nil {
		err = corruptFault(s.poison.dir, "the Raft log", err)
		s.poison.fatal(err)
		return err
	}
	return nil
}

func unseal(index uint64, l *raft.Log) error {
	if l.Index != index || len(l.Extensions) != 4 || binary.LittleEndian.Uint32(l.Extensions) != entrySum(l) {
		return fmt.Errorf("entry %d fails its checksum", index)
	}
	l.Extensions = nil
	return nil
}

// Keys under which Raft keeps the vote, and the one under which we keep both halves.
const (
	keyVoteTerm = "LastVoteTerm"
	keyVoteCand = "LastVoteCand"
	keyVote     = "llmos.vote"
)

// stableStore wraps a stable store: no write after a failed one, and the two writes of a
// vote (term, then candidate) become one record, so that a crash cannot part them.
type stableStore struct {
	raft.StableStore
	poison *poison

	mu      sync.Mutex
	pending uint64 // term of a vote whose candidate has not been written yet
}

// Set stores a value. The candidate of a vote is stored together with the pending term.
func (s *stableStore) Set(key, value []byte) error {
	if string(key) != keyVoteCand {
		return s.durably(func() error { return s.StableStore.Set(key, value) })
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	record := append(binary.LittleEndian.AppendUint64(nil, s.pending), value...)
	return s.durably(func() error { return s.StableStore.Set([]byte(keyVote), record) })
}

// SetUint64 stores a number. The term of a vote only waits here for its candidate: Raft
// answers a vote request after both writes, so no vote is sent before the record is durable.
func (s *stableStore) SetUint64(key []byte, value uint64) error {
	if string(key) == keyVoteTerm {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.pending = value
		return s.poison.check()
	}
	return s.durably(func() error { return s.StableStore.SetUint64(key, value) })
}

// Get reads a value; the error "not found" when there is none.
func (s *stableStore) Get(key []byte) ([]byte, error) {
	if string(key) != keyVoteCand {
		return s.StableStore.Get(key)
	}
	record, err := s.vote()
	if err != nil {
		return nil, err
	}
	return record[8:], nil
}

// GetUint64 reads a number; the error "not found" when there is none.
func (s *stableStore) GetUint64(key []byte) (uint64, error) {
	if string(key) != keyVoteTerm {
		return s.StableStore.GetUint64(key)
	}
	record, err := s.vote()
	if err != nil {
		return 0, err
	}
	return binary.LittleEndian.Uint64(record), nil
}

func (s *stableStore) vote() ([]byte, error) {
	record, err := s.StableStore.Get([]byte(keyVote))
	if err == nil && len(record) < 8 {
		err = corruptFault(s.poison.dir, "the Raft vote", fmt.Errorf("record of %d bytes", len(record)))
		s.poison.fatal(err)
	}
	return record, err
}

// durably writes, and after a failure never returns: Raft answers a failed write of its
// term with a panic, and a stack trace is no sentence. The process is on its way out.
func (s *stableStore) durably(do func() error) error {
	if err := s.poison.write("recording Raft's term or vote", do); err != nil {
		select {}
	}
	return nil
}

// snapshotStore wraps a file snapshot store: no write after a failed one.
type snapshotStore struct {
	raft.SnapshotStore
	poison *poison
}

// Create opens a snapshot for writing.
func (s *snapshotStore) Create(v raft.SnapshotVersion, index, term uint64, c raft.Configuration, cIndex uint64,
	t raft.Transport) (raft.SnapshotSink, error) {
	var sink raft.SnapshotSink
	err := s.poison.write("creating a snapshot", func() (err error) {
		sink, err = s.SnapshotStore.Create(v, index, term, c, cIndex, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return &snapshotSink{SnapshotSink: sink, poison: s.poison}, nil
}

type snapshotSink struct {
	raft.SnapshotSink
	poison *poison
}

// Write appends to the snapshot.
func (s *snapshotSink) Write(p []byte) (n int, err error) {
	err = s.poison.write("writing a snapshot", func() error {
		n, err = s.SnapshotSink.Write(p)
		return err
	})
	return n, err
}

// Close makes the snapshot durable and visible; the file store syncs file and directory.
func (s *snapshotSink) Close() error {
	return s.poison.write("finishing a snapshot", s.SnapshotSink.Close)
}

const (
	snapshotsKept   = 2
	raftFile        = "raft.db"
	snapshotsFolder = "snapshots"
)

// openSnapshots opens the snapshot folder below dir (the raft folder): unfinished
// snapshots of a crash are removed, and the newest is read through check before Raft
// restores it.
func openSnapshots(dir string, p *poison, log hclog.Logger, check func(io.Reader) error) (raft.SnapshotStore, error) {
	folder := filepath.Join(dir, snapshotsFolder)
	if left, err := filepath.Glob(filepath.Join(folder, "*.tmp")); err == nil {
		for _, d := range left {
			if err := os.RemoveAll(d); err != nil {
				return nil, diskFault(p.dir, "removing an unfinished snapshot", err)
			}
		}
	}
	files, err := raft.NewFileSnapshotStoreWithLogger(dir, snapshotsKept, log)
	if err != nil {
		return nil, diskFault(p.dir, "opening the snapshot folder", err)
	}
	if err := syncFolder(dir); err != nil {
		return nil, diskFault(p.dir, "syncing the Raft folder", err)
	}
	list, err := files.List()
	if err != nil {
		return nil, corruptFault(p.dir, "the snapshot folder", err)
	}
	folders, _ := filepath.Glob(filepath.Join(folder, "*-*-*"))
	if len(folders) > 0 && len(list) == 0 {
		return nil, corruptFault(p.dir, "the snapshot", errors.New("no snapshot has readable metadata"))
	}
	if len(list) > 0 {
		if err := readSnapshot(files, list[0].ID, check); err != nil {
			return nil, corruptFault(p.dir, "the snapshot "+list[0].ID, err)
		}
	}
	return &snapshotStore{SnapshotStore: files, poison: p}, nil
}

func readSnapshot(store raft.SnapshotStore, id string, check func(io.Reader) error) (err error) {
	defer recoverInto(&err)
	_, r, err := store.Open(id)
	if err != nil {
		return err
	}
	defer r.Close()
	return check(r)
}

func syncFolder(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close()
	return f.Sync()
}

// recoverInto turns a panic of a library over a damaged file into an error.
func recoverInto(err *error) {
	if r := recover(); r != nil {
		*err = fmt.Errorf("%v", r)
	}
}
