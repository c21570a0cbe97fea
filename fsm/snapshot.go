package fsm

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// A snapshot is: magic; then frames of one byte of kind, a length of four bytes (big endian)
// and so many bytes: one SnapshotHeader, SnapshotRecords, one SnapshotTrailer; then nothing.

// SnapshotVersion is the format that Write writes; SnapshotMinReader is the oldest reader that
// can read it. Raise the second only when an older reader would misread the file.
const (
	SnapshotVersion   = 3
	SnapshotMinReader = 2 // a reader of format 1 would drop fields of jobs that it copies
	snapshotReader3   = 3 // reads checkpoints; asked for once the state may hold some
)

const (
	snapshotMagic  = "llmos\x00s\n"
	frameHeader    = 'H'
	frameRecord    = 'R'
	frameTrailer   = 'T'
	frameBytesMax  = 16 << 20 // of a record: a job's spec is the largest
	headBytesMax   = 4 << 10  // of a header or trailer
	snapshotBuffer = 64 << 10 // bytes
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var marshal = proto.MarshalOptions{Deterministic: true}

// Write writes a state, record by record. It may run while later entries are applied.
func Write(w io.Writer, s *state.State) error {
	sum := crc32.New(castagnoli)
	buffered := bufio.NewWriterSize(w, snapshotBuffer)
	out := &frameWriter{w: io.MultiWriter(buffered, sum)}
	hash := s.Hash()
	if _, err := io.WriteString(out.w, snapshotMagic); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	header := &pb.SnapshotHeader{Version: SnapshotVersion, MinReaderVersion: minReaderOf(s), Index: s.Index(),
		TimeMs: s.TimeMS(), StateHash: hash[:]}
	if err := out.frame(frameHeader, header); err != nil {
		return err
	}
	count := uint64(0)
	for rec := range s.Records() {
		if err := out.frame(frameRecord, rec); err != nil {
			return err
		}
		count++
	}
	out.w = buffered
	if err := out.frame(frameTrailer, &pb.SnapshotTrailer{Records: count, Crc32C: sum.Sum32()}); err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return nil
}

// minReaderOf is the oldest reader of a state's snapshot.
func minReaderOf(s *state.State) uint32 {
	if v := s.Cluster().GetStateVersion(); v == 0 || v >= versionCheckpoints {
		return snapshotReader3
	}
	return SnapshotMinReader
}

type frameWriter struct {
	w   io.Writer
	buf []byte
}

func (f *frameWriter) frame(kind byte, m proto.Message) error {
	buf, err := marshal.MarshalAppend(append(f.buf[:0], kind, 0, 0, 0, 0), m)
	if err != nil {
		return fmt.Errorf("encode a record of the snapshot: %w", err)
	}
	f.buf = buf
	size := len(buf) - 5
	if size > frameBytesMax {
		return fmt.Errorf("a record of the snapshot has %d bytes, at most %d", size, frameBytesMax)
	}
	binary.BigEndian.PutUint32(buf[1:5], uint32(size))
	if _, err := f.w.Write(buf); err != nil {
		return fmt.Errorf("write the snapshot: %w", err)
	}
	return nil
}

// errTruncated ends the sentence of a snapshot that stops early.
var errTruncated = errors.New("the snapshot ends too early")

// Read reads a state that Write wrote. Every corruption is an error: the frames, the count, the
// checksum and the state hash are all checked, and nothing may follow the trailer.
func Read(r io.Reader) (*state.State, error) {
	in := &frameReader{r: bufio.NewReaderSize(r, snapshotBuffer)}
	magic, err := in.bytes(len(snapshotMagic))
	if err != nil {
		return nil, fmt.Errorf("read the snapshot: %w", err)
	}
	if string(magic) != snapshotMagic {
		return nil, fmt.Errorf("this is not a snapshot of llmos: it begins with %q", magic)
	}
	header, err := in.header()
	if err != nil {
		return nil, fmt.Errorf("read the snapshot's header: %w", err)
	}
	s, err := in.records(header)
	if err != nil {
		return nil, fmt.Errorf("read the snapshot of index %d: %w", header.Index, err)
	}
	return s, nil
}

type frameReader struct {
	r   *bufio.Reader
	sum uint32 // of all bytes read so far
	buf []byte
}

// bytes reads exactly n bytes, which are valid until the next call.
func (f *frameReader) bytes(n int) ([]byte, error) {
	f.buf = f.buf[:0]
	for len(f.buf) < n { // in steps: a wrong length must not reserve memory
		at, step := len(f.buf), min(n-len(f.buf), snapshotBuffer)
		f.buf = append(f.buf, make([]byte, step)...)
		if _, err := io.ReadFull(f.r, f.buf[at:]); errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return nil, errTruncated
		} else if err != nil {
			return nil, err
		}
	}
	f.sum = crc32.Update(f.sum, castagnoli, f.buf)
	return f.buf, nil
}

// frame reads the next frame; the payload is valid until the next call.
func (f *frameReader) frame() (kind byte, payload []byte, err error) {
	head, err := f.bytes(5)
	if err != nil {
		return 0, nil, err
	}
	kind = head[0]
	size, most := binary.BigEndian.Uint32(head[1:]), uint32(headBytesMax)
	if kind == frameRecord {
		most = frameBytesMax
	}
	if size > most {
		return 0, nil, fmt.Errorf("a part of kind %q says it has %d bytes, at most %d", kind, size, most)
	}
	payload, err = f.bytes(int(size))
	return kind, payload, err
}

func (f *frameReader) header() (*pb.SnapshotHeader, error) {
	kind, payload, err := f.frame()
	if err != nil {
		return nil, err
	}
	header := &pb.SnapshotHeader{}
	if kind != frameHeader {
		return nil, fmt.Errorf("it is of kind %q, not %q", kind, frameHeader)
	}
	if err := proto.Unmarshal(payload, header); err != nil {
		return nil, err
	}
	if header.MinReaderVersion > SnapshotVersion {
		return nil, fmt.Errorf("the snapshot has format %d, which needs a reader of format %d; this llmos reads up to %d: upgrade it",
			header.Version, header.MinReaderVersion, SnapshotVersion)
	}
	if header.Version == 0 || header.MinReaderVersion == 0 || header.MinReaderVersion > header.Version {
		return nil, fmt.Errorf("a format %d for readers of %d cannot be", header.Version, header.MinReaderVersion)
	}
	if header.TimeMs < 0 {
		return nil, fmt.Errorf("the time %d cannot be", header.TimeMs)
	}
	return header, nil
}

func (f *frameReader) records(header *pb.SnapshotHeader) (*state.State, error) {
	restorer := state.NewRestorer()
	count := uint64(0)
	for {
		sum := f.sum
		kind, payload, err := f.frame()
		if err != nil {
			return nil, err
		}
		switch kind {
		case frameRecord:
			rec := &pb.SnapshotRecord{}
			if err := proto.Unmarshal(payload, rec); err != nil {
				return nil, fmt.Errorf("record %d: %w", count, err)
			}
			if err := restorer.Add(rec); err != nil {
				return nil, fmt.Errorf("record %d: %w", count, err)
			}
			count++
		case frameTrailer:
			if err := f.trailer(payload, count, sum); err != nil {
				return nil, err
			}
			s := restorer.Finish(header.Index, header.TimeMs)
			if hash := s.Hash(); !bytes.Equal(hash[:], header.StateHash) {
				return nil, fmt.Errorf("the state hash is %x, and the header says %x", hash, header.StateHash)
			}
			return s, nil
		default:
			return nil, fmt.Errorf("a part of kind %q is not known", kind)
		}
	}
}

func (f *frameReader) trailer(payload []byte, count uint64, sum uint32) error {
	trailer := &pb.SnapshotTrailer{}
	if err := proto.Unmarshal(payload, trailer); err != nil {
		return fmt.Errorf("the trailer: %w", err)
	}
	if again, err := marshal.Marshal(trailer); err != nil || !bytes.Equal(again, payload) {
		return errors.New("the trailer is not as it was written") // it has no checksum of its own
	}
	if trailer.Crc32C != sum {
		return fmt.Errorf("the checksum is %08x, and the trailer says %08x", sum, trailer.Crc32C)
	}
	if trailer.Records != count {
		return fmt.Errorf("there are %d records, and the trailer says %d", count, trailer.Records)
	}
	if _, err := f.r.ReadByte(); err == nil {
		return errors.New("something follows the trailer")
	} else if !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}
