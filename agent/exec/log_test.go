package exec

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var fixed = func() time.Time { return time.UnixMilli(1_700_000_000_000) }

// readAll reads chunks from offset on and checks that they join up.
func readAll(t interface {
	Helper()
	Fatalf(string, ...any)
}, dir string, offset int64) (data []byte, first int64) {
	t.Helper()
	r := OpenLog(dir, offset)
	defer r.Close()
	first = -1
	for {
		c, ok, err := r.Next()
		if err != nil {
			t.Fatalf("%v", err)
		}
		if !ok {
			return data, first
		}
		if first < 0 {
			first = c.Offset
		} else if c.Offset != first+int64(len(data)) {
			t.Fatalf("a chunk at %d follows %d bytes from %d", c.Offset, len(data), first)
		}
		if len(c.Data) == 0 || len(c.Data) > ChunkBytesMax {
			t.Fatalf("a chunk of %d bytes", len(c.Data))
		}
		data = append(data, c.Data...)
	}
}

func TestLogRotatesAndKeepsItsOffsets(t *testing.T) {
	dir := t.TempDir()
	w, err := newLogWriter(filepath.Join(dir, logDir), 0, fixed)
	if err != nil {
		t.Fatal(err)
	}
	w.store.max, w.store.segmentMax = 64<<10, 8<<10
	var all bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintf(&all, "line %d\n", i)
	}
	w.copyFrom(bytes.NewReader(all.Bytes()), false, nil)
	w.finish(patience, func() {})
	var size int64
	offsets, err := segments(filepath.Join(dir, logDir))
	if err != nil || len(offsets) < 2 || offsets[0] == 0 {
		t.Fatalf("segments %v (%v)", offsets, err)
	}
	for _, o := range offsets {
		info, err := os.Stat(segmentPath(filepath.Join(dir, logDir), o))
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > w.store.max+readBytes {
		t.Errorf("%d bytes on the disk, limit %d", size, w.store.max)
	}
	kept, first := readAll(t, dir, 0)
	if first != offsets[0] || !bytes.Equal(kept, all.Bytes()[first:]) {
		t.Errorf("kept %d bytes from %d; the log holds other bytes than were written", len(kept), first)
	}
	middle := first + int64(len(kept))/2
	if rest, at := readAll(t, dir, middle); at != middle || !bytes.Equal(rest, all.Bytes()[middle:]) {
		t.Errorf("from %d: %d bytes at %d", middle, len(rest), at)
	}
}

func TestLogTail(t *testing.T) {
	dir := t.TempDir()
	s, err := newSegmentStore(filepath.Join(dir, logDir), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.segmentMax = 64
	for i := range 10 {
		s.append([]record{{data: fmt.Appendf(nil, "line %d\n", i)}})
	}
	for _, c := range []struct {
		more  string
		lines int64
		want  string
	}{
		{"", 1, "line 9\n"},
		{"", 3, "line 7\nline 8\nline 9\n"},
		{"", 10, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n"},
		{"", 99, "line 0\nline 1\nline 2\nline 3\nline 4\nline 5\nline 6\nline 7\nline 8\nline 9\n"},
		{"part", 1, "part"},
		{"", 2, "line 9\npart"},
	} {
		if c.more != "" {
			s.append([]record{{data: []byte(c.more)}})
		}
		r := OpenLog(dir, 0)
		if err := r.SeekTail(c.lines); err != nil {
			t.Fatal(err)
		}
		got, _ := readAll(t, dir, r.Offset())
		if string(got) != c.want {
			t.Errorf("last %d lines: %q, want %q", c.lines, got, c.want)
		}
		r.Close()
	}
}

func TestLogReaderFollowsAcrossSegments(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "log")
		if err != nil {
			rt.Fatal(err)
		}
		s, err := newSegmentStore(filepath.Join(dir, logDir), 1<<20)
		if err != nil {
			rt.Fatal(err)
		}
		s.segmentMax = rapid.Int64Range(40, 400).Draw(rt, "segment")
		r := OpenLog(dir, 0)
		defer r.Close()
		var wrote, read []byte
		drain := func() {
			for {
				c, ok, err := r.Next()
				if err != nil {
					rt.Fatal(err)
				}
				if !ok {
					return
				}
				if c.Offset != int64(len(read)) {
					rt.Fatalf("chunk at %d after %d bytes", c.Offset, len(read))
				}
				read = append(read, c.Data...)
			}
		}
		for range rapid.IntRange(1, 30).Draw(rt, "writes") {
			data := rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(rt, "data")
			s.append([]record{{data: data, stderr: rapid.Bool().Draw(rt, "stderr")}})
			wrote = append(wrote, data...)
			if rapid.Bool().Draw(rt, "read") {
				drain()
			}
		}
		drain()
		if !bytes.Equal(wrote, read) {
			rt.Fatalf("wrote %d bytes, read %d", len(wrote), len(read))
		}
	})
}

// A log cut anywhere, as by a crash, reads as a prefix of what was written.
func TestLogReadsEveryTornEnd(t *testing.T) {
	dir := t.TempDir()
	s, err := newSegmentStore(filepath.Join(dir, logDir), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.append([]record{{data: []byte("one\n")}, {data: []byte("two\n"), stderr: true}, {data: []byte("three\n")}})
	s.close()
	path := segmentPath(filepath.Join(dir, logDir), 0)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(whole); cut >= 0; cut-- {
		if err := os.Truncate(path, int64(cut)); err != nil {
			t.Fatal(err)
		}
		if got, _ := readAll(t, dir, 0); !strings.HasPrefix("one\ntwo\nthree\n", string(got)) {
			t.Fatalf("cut at %d: %q", cut, got)
		}
	}
}

// blocked is a disk that does not take anything until it is opened.
func TestSlowDiskDropsAndCounts(t *testing.T) {
	dir := t.TempDir()
	store, err := newSegmentStore(filepath.Join(dir, logDir), DefaultLogMaxBytes)
	if err != nil {
		t.Fatal(err)
	}
	w := &logWriter{queue: make(chan record, 2), done: make(chan struct{}), store: store, now: fixed}
	reader, pipe := io.Pipe()
	w.copyFrom(reader, false, nil)
	piece := bytes.Repeat([]byte("x"), 1000)
	const pieces = 50
	for range pieces { // nobody writes: the task is not blocked for ever
		if _, err := pipe.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	pipe.Close()
	w.pipes.Wait()
	lost := w.dropped.Load()
	if lost != (pieces-2)*1000 {
		t.Errorf("%d bytes counted as dropped", lost)
	}
	go w.write()
	w.finish(patience, func() {})
	got, _ := readAll(t, dir, 0)
	if !strings.Contains(string(got), fmt.Sprintf("%d bytes of output were dropped", lost)) {
		t.Errorf("the log does not say what is missing: %q", got[max(0, len(got)-200):])
	}
}

func TestFullDiskLosesOutputAndNotTheTask(t *testing.T) {
	s, err := newSegmentStore(filepath.Join(t.TempDir(), logDir), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	s.close()
	if s.file, err = os.OpenFile("/dev/full", os.O_WRONLY, 0); err != nil {
		t.Skip("there is no /dev/full")
	}
	if lost := s.append([]record{{data: []byte("hello")}}); lost != 5 || s.offset != 0 {
		t.Errorf("%d bytes counted as lost, offset %d", lost, s.offset)
	}
}

func FuzzRecord(f *testing.F) {
	f.Add(appendRecord(nil, record{data: []byte("x")}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		r, n, err := decodeHeader(data)
		if err != nil {
			return
		}
		if n <= 0 || n > recordBytesMax {
			t.Fatalf("length %d", n)
		}
		if len(data) >= recordHeaderBytes+n {
			r.data = data[recordHeaderBytes : recordHeaderBytes+n]
			again, m, err := decodeHeader(appendRecord(nil, r))
			if err != nil || m != n || again.stderr != r.stderr || again.timeMS != r.timeMS {
				t.Fatalf("not the same: %v", err)
			}
		}
	})
}

func TestProgressLines(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"@llmos step=120 steps=400 loss=1.8312 tokens_per_s=5400", "120/400 map[loss:1.8312 tokens_per_s:5400]"},
		{"@llmos step=3", "3/0 map[]"},
		{"@llmos step=x loss=NaN steps=-1 what =3 ok=1e3", "0/0 map[ok:1000]"},
		{"@llmos\tstep=1", "1/0 map[]"},
		{"@llmosstep=1", ""},
		{"@llmos", ""},
		{" @llmos step=1", ""},
		{"step=1", ""},
	} {
		got := ""
		if p, ok := parseProgress(c.line); ok {
			got = fmt.Sprintf("%d/%d %v", p.Step, p.Steps, p.Values)
		}
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
	}
}

// However the stream is cut into pieces, the same progress is seen.
func TestProgressScannerIgnoresPieces(t *testing.T) {
	text := "hello\n@llmos step=1\nx @llmos step=9\n@llmos " + strings.Repeat("y", 2*lineBytesMax) + " step=8\n@llmos step=2\r\n@llmos step=3"
	rapid.Check(t, func(t *rapid.T) {
		var got []int64
		s := &progressScanner{publish: func(p Progress) { got = append(got, p.Step) }, told: func(Told) {}}
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, min(len(rest), 3000)).Draw(t, "piece")
			s.scan([]byte(rest[:n]))
			rest = rest[n:]
		}
		if fmt.Sprint(got) != "[1 2]" {
			t.Fatalf("saw %v", got)
		}
	})
}

func TestTaskProgressReachesTheAgent(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	gate := fifo(t)
	h := start(t, d, dir, shell(dir, "for i in 1 2 3 4 5; do echo @llmos step=$i steps=5; done; read x < "+gate))
	p := await(t, h, "progress", func(s Status) bool { return s.Progress != nil && s.Progress.Step == 5 }).Progress
	if p.Steps != 5 || p.TimeMS == 0 {
		t.Errorf("got %+v", p)
	}
	open(t, gate)
	awaitExit(t, h)
}
