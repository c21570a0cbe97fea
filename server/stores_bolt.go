package server

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	"go.etcd.io/bbolt"
	bolterrors "go.etcd.io/bbolt/errors"
)

// boltLockWait bounds the wait for bbolt's own file lock; the data directory's lock is ours already.
const boltLockWait = 2 * time.Second

// boltOptions: the freelist is neither synced nor kept as an array, because after a
// burst and a truncation of the log single appends become some 20 times slower otherwise
// (RELIABILITY.md B2). fsync stays on.
func boltOptions(readOnly bool) *bbolt.Options {
	return &bbolt.Options{Timeout: boltLockWait, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, ReadOnly: readOnly}
}

// openBolt opens the log and stable store below dir (the raft folder), reading the whole
// file once before it is opened for writing. snapshotIndex is the newest snapshot's: every
// entry behind it must be there.
func openBolt(dir string, p *poison, snapshotIndex uint64) (*logStore, *stableStore, *raftboltdb.BoltStore, error) {
	path := filepath.Join(dir, raftFile)
	if _, err := os.Stat(path); err == nil {
		if err := walkBolt(path); err != nil {
			return nil, nil, nil, openFault(p.dir, err)
		}
	}
	bolt, err := openBoltFile(path)
	if err != nil {
		return nil, nil, nil, openFault(p.dir, err)
	}
	logs := &logStore{LogStore: bolt, poison: p}
	if err := checkEntries(bolt, snapshotIndex); err != nil {
		bolt.Close()
		return nil, nil, nil, corruptFault(p.dir, "the Raft log", err)
	}
	return logs, &stableStore{StableStore: bolt, poison: p}, bolt, nil
}

// openFault parts what the operating system refused from what is damaged.
func openFault(dir string, err error) error {
	for _, known := range []error{fs.ErrPermission, syscall.ENOSPC, syscall.EROFS, syscall.EDQUOT, bolterrors.ErrTimeout} {
		if errors.Is(err, known) {
			return diskFault(dir, "opening the Raft log", err)
		}
	}
	return corruptFault(dir, "the Raft log", err)
}

func openBoltFile(path string) (store *raftboltdb.BoltStore, err error) {
	defer recoverInto(&err)
	return raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions(false), MsgpackUseNewTimeFormat: true})
}

// walkBolt touches every page that holds data, read-only and on this goroutine, where
// bbolt's assertions and the faults of a truncated mapping can be caught. Opening for
// writing does the same walk on a goroutine of its own, where they could not.
func walkBolt(path string) (err error) {
	defer recoverInto(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if info.Size() == 0 {
		return nil // a crash before the first write: bbolt makes it anew
	}
	db, err := bbolt.Open(path, 0o600, boltOptions(true))
	if err != nil {
		return err
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		if tx.Size() > info.Size() {
			return fmt.Errorf("the file has %d bytes and should have at least %d", info.Size(), tx.Size())
		}
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				if v == nil {
					return fmt.Errorf("bucket %q holds a bucket", name)
				}
				runtime.KeepAlive(crc32.ChecksumIEEE(k) ^ crc32.ChecksumIEEE(v)) // reads every byte
				return nil
			})
		})
	})
}

// checkEntries verifies every stored entry, and that none behind the snapshot is missing.
func checkEntries(store raft.LogStore, snapshotIndex uint64) (err error) {
	defer recoverInto(&err)
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	first, err := store.FirstIndex()
	if err != nil {
		return err
	}
	last, err := store.LastIndex()
	if err != nil {
		return err
	}
	if last == 0 {
		return nil
	}
	if first > snapshotIndex+1 {
		return fmt.Errorf("entries %d to %d, behind the newest snapshot, are missing", snapshotIndex+1, first-1)
	}
	for i := first; i <= last; i++ {
		var l raft.Log
		err := store.GetLog(i, &l)
		if errors.Is(err, raft.ErrLogNotFound) && i <= snapshotIndex {
			continue // a snapshot that came from the leader leaves a gap below it
		}
		if err == nil {
			err = unseal(i, &l)
		}
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
	}
	return nil
}
