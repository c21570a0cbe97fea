package collective

import (
	"encoding/binary"
	"fmt"
	"math"
)

// kind says what a frame carries.
type kind uint8

const (
	kindHello   kind = 1 // JSON: who I am
	kindWelcome kind = 2 // JSON: who else there is
	kindRefuse  kind = 3 // JSON: why not
	kindPart    kind = 4 // floats: my part of a chunk of your slice
	kindSum     kind = 5 // floats: the finished chunk of my slice
	kindGather  kind = 6 // bytes: my part of an all-gather or barrier
	kindAbort   kind = 7 // JSON: the group is broken, and whose fault it is
	kindMax          = kindAbort
)

// operation is the collective that a frame belongs to, so that ranks which call different
// ones are told so.
type operation uint8

const (
	opNone      operation = 0
	opAllReduce operation = 1
	opBroadcast operation = 2
	opAllGather operation = 3
	opBarrier   operation = 4
	opMax                 = opBarrier
)

var operationNames = [...]string{"the rendezvous", "all-reduce", "broadcast", "all-gather", "barrier"}

// String gives the name that errors use.
func (o operation) String() string {
	if int(o) >= len(operationNames) {
		return fmt.Sprintf("operation %d", uint8(o))
	}
	return operationNames[o]
}

const (
	headerBytes   = 20
	wireVersion   = 1
	chunkElements = 32 << 10          // float32 values in one frame of data
	payloadMax    = chunkElements * 4 // bytes in any frame
)

// header precedes every payload. On the wire, big endian:
//
//	kind 1 | version 1 | operation 1 | zero 1 | slice 2 | zero 2 | chunk 4 | sequence 4 | length 4
type header struct {
	kind   kind
	op     operation
	slice  uint16 // the rank that owns the slice
	chunk  uint32 // of the slice
	seq    uint32 // number of the collective, modulo 2^32
	length uint32 // of the payload, in bytes
}

// append adds the encoded header to b.
func (h header) append(b []byte) []byte {
	b = append(b, byte(h.kind), wireVersion, byte(h.op), 0)
	b = binary.BigEndian.AppendUint16(b, h.slice)
	b = append(b, 0, 0)
	b = binary.BigEndian.AppendUint32(b, h.chunk)
	b = binary.BigEndian.AppendUint32(b, h.seq)
	return binary.BigEndian.AppendUint32(b, h.length)
}

// decodeHeader reads a header of exactly headerBytes and refuses one that append never makes.
func decodeHeader(b []byte) (header, error) {
	if len(b) != headerBytes {
		return header{}, fmt.Errorf("frame header of %d bytes, want %d", len(b), headerBytes)
	}
	if b[1] != wireVersion {
		return header{}, fmt.Errorf("frame of wire version %d, this program speaks %d", b[1], wireVersion)
	}
	h := header{kind: kind(b[0]), op: operation(b[2]), slice: binary.BigEndian.Uint16(b[4:]),
		chunk: binary.BigEndian.Uint32(b[8:]), seq: binary.BigEndian.Uint32(b[12:]), length: binary.BigEndian.Uint32(b[16:])}
	if h.kind == 0 || h.kind > kindMax || h.op > opMax || b[3] != 0 || b[6] != 0 || b[7] != 0 {
		return header{}, fmt.Errorf("frame header % x is not understood", b)
	}
	if h.length > payloadMax {
		return header{}, fmt.Errorf("frame of %d bytes, at most %d", h.length, payloadMax)
	}
	if (h.kind == kindPart || h.kind == kindSum) && (h.length == 0 || h.length%4 != 0) {
		return header{}, fmt.Errorf("frame of %d bytes, which are not float32 values", h.length)
	}
	return h, nil
}

// appendFloats adds the little-endian bytes of v to b.
func appendFloats(b []byte, v []float32) []byte {
	n := len(b)
	b = append(b, make([]byte, 4*len(v))...)
	out := b[n:]
	for i, x := range v {
		binary.LittleEndian.PutUint32(out[4*i:], math.Float32bits(x))
	}
	return b
}

// readFloats fills v from its little-endian bytes; len(b) is 4*len(v).
func readFloats(v []float32, b []byte) {
	for i := range v {
		v[i] = math.Float32frombits(binary.LittleEndian.Uint32(b[4*i:]))
	}
}

// span is a half-open range of elements.
type span struct{ from, to int }

func (s span) len() int { return s.to - s.from }

// chunks is how many frames the span takes.
func (s span) chunks() int { return (s.len() + chunkElements - 1) / chunkElements }

// chunk is the i-th frame's part of the span.
func (s span) chunk(i int) span {
	from := s.from + i*chunkElements
	return span{from, min(from+chunkElements, s.to)}
}

// sliceOf is the part of n elements that a rank owns. Sizes differ by at most one; with
// fewer elements than ranks some slices are empty.
func sliceOf(n, world, rank int) span {
	size, rest := n/world, n%world
	from := rank*size + min(rank, rest)
	to := from + size
	if rank < rest {
		to++
	}
	return span{from, to}
}
