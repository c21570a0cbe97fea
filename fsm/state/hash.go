package state

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"

	"google.golang.org/protobuf/proto"
)

// sum is the hash of a set of records: the sum modulo 2^256 of the SHA-256 of each. An update
// subtracts the old record and adds the new one, so the cost does not grow with the state. It
// finds servers that have diverged by a defect; it does not withstand somebody who searches for
// records with equal sums, which nobody can do without being able to write the log.
type sum [4]uint64

func (s *sum) add(o sum) {
	var carry uint64
	for i := range s {
		s[i], carry = bits.Add64(s[i], o[i], carry)
	}
}

func (s *sum) sub(o sum) {
	var borrow uint64
	for i := range s {
		s[i], borrow = bits.Sub64(s[i], o[i], borrow)
	}
}

// bytes gives the sum as 32 bytes, lowest first.
func (s sum) bytes() (out [32]byte) {
	for i, word := range s {
		binary.LittleEndian.PutUint64(out[8*i:], word)
	}
	return out
}

// tableID tells the tables apart in the hash. The numbers are part of the hash: never reuse one.
type tableID byte

const (
	tableCluster tableID = iota + 1
	tableJobs
	tableAttempts
	tableTasks
	tableNodes
	tableAccounts
	tableAllocations
	tableQueues
	tableTokens
	tableRequests
	tableSequences
	tableEvents
	tableUsage
	tableReservations
	tableConfig
	tableCheckpoints
)

var deterministic = proto.MarshalOptions{Deterministic: true}

// hashRecord hashes a record under its table and key. buf is a buffer to use again.
func hashRecord(id tableID, key []byte, rec proto.Message, buf []byte) (sum, []byte) {
	buf = append(buf[:0], byte(id))
	buf = binary.AppendUvarint(buf, uint64(len(key)))
	buf = append(buf, key...)
	buf, err := deterministic.MarshalAppend(buf, rec)
	if err != nil { // only a string that is not UTF-8, and every command has been decoded once
		panic(fmt.Sprintf("record %q of table %d cannot be encoded: %v", key, id, err))
	}
	digest := sha256.Sum256(buf)
	var s sum
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(digest[8*i:])
	}
	return s, buf
}
