package collective

import (
	"bytes"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func FuzzFrame(f *testing.F) {
	f.Add(header{kind: kindPart, op: opAllReduce, slice: 3, chunk: 4, seq: 5, length: 8}.append(nil))
	f.Add(header{kind: kindAbort}.append(nil))
	f.Add(bytes.Repeat([]byte{0xff}, headerBytes))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := decodeHeader(b)
		if err != nil {
			return
		}
		if h.length > payloadMax {
			t.Fatalf("a frame of %d bytes passes", h.length)
		}
		if again := h.append(nil); !bytes.Equal(again, b) {
			t.Fatalf("% x decodes to %+v, which encodes to % x", b, h, again)
		}
	})
}

func TestFloatsKeepTheirBits(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SliceOf(rapid.Uint32()).Draw(t, "bits")
		v := make([]float32, len(bits))
		for i, b := range bits {
			v[i] = math.Float32frombits(b)
		}
		back := make([]float32, len(v))
		readFloats(back, appendFloats([]byte("x"), v)[1:])
		for i := range v {
			if math.Float32bits(back[i]) != bits[i] {
				t.Fatalf("element %d: %08x became %08x", i, bits[i], math.Float32bits(back[i]))
			}
		}
	})
}

func TestSlicesCoverTheVector(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, world := rapid.IntRange(0, 500_000).Draw(t, "n"), rapid.IntRange(1, 40).Draw(t, "world")
		at := 0
		for rank := range world {
			s := sliceOf(n, world, rank)
			if s.from != at || s.len() < n/world || s.len() > n/world+1 {
				t.Fatalf("slice %d of %d elements in %d is %+v, want it to begin at %d", rank, n, world, s, at)
			}
			for c := range s.chunks() {
				chunk := s.chunk(c)
				if chunk.from != at || chunk.len() < 1 || chunk.len() > chunkElements {
					t.Fatalf("chunk %d of %+v is %+v", c, s, chunk)
				}
				at = chunk.to
			}
		}
		if at != n {
			t.Fatalf("the slices end at %d of %d", at, n)
		}
	})
}
