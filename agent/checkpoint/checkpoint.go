// Package checkpoint keeps what tasks save on a node: it says which files of a task are a finished
// checkpoint, takes a copy of one into the node's store, describes its content by a manifest whose
// digest names it, checks every byte against that whenever it is read, writes and reads it as a
// stream, and stages it for the task that goes on from it.
//
// It does not decide what is kept, who may read it or where copies go: the servers do, and package
// agent carries it out. What is finished and what a name means are pure functions (find.go,
// manifest.go); the rest reads and writes files. It knows no network.
package checkpoint

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Digest is the SHA-256 of a manifest. It names a checkpoint's whole content.
type Digest [sha256.Size]byte

// String gives the digest in hexadecimal.
func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// DigestOf reads a digest's bytes.
func DigestOf(b []byte) (Digest, error) {
	var d Digest
	if len(b) != len(d) {
		return d, fmt.Errorf("a digest has %d bytes, not %d", len(d), len(b))
	}
	copy(d[:], b)
	return d, nil
}

// Key says of which job, attempt, step and rank a checkpoint is.
type Key struct {
	Job   string `json:"job"`
	Epoch uint64 `json:"epoch"`
	Step  int64  `json:"step"`
	Rank  int32  `json:"rank"`
}

// String names the key in words, such as "step 1200 of rank 0 of train-1".
func (k Key) String() string { return fmt.Sprintf("step %d of rank %d of %s", k.Step, k.Rank, k.Job) }

// Ref is a checkpoint of a key. Several may name the same content.
type Ref struct {
	Key
	Name    string `json:"name"` // of the file or folder
	Digest  Digest `json:"-"`
	Size    int64  `json:"size"`
	Files   int    `json:"files"`
	SavedMS int64  `json:"saved_ms"`
}

// What goes wrong, told apart by errors.Is.
var (
	// ErrRefused is wrapped by what is wrong with the files that a task saved: it will not get better.
	ErrRefused = errors.New("this cannot be a checkpoint")
	// ErrChanged is wrapped when files change while they are copied: they were not finished.
	ErrChanged = errors.New("it is still being written")
	// ErrBroken is wrapped when content does not fit its digest: it is truncated, damaged or another one.
	ErrBroken = errors.New("its content is not what its digest says")
	// ErrAbsent is wrapped when a store does not hold a checkpoint.
	ErrAbsent = errors.New("it is not in the store")
	// ErrNoRoom is wrapped when the store's file system is too full.
	ErrNoRoom = errors.New("the disk is too full")
)
