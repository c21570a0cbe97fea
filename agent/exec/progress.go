package exec

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// progressWord begins a line by which a task tells its progress.
const progressWord = "@llmos"

// progressValuesMax bounds the pairs of one line, progressKeyMax their names' bytes.
const (
	progressValuesMax = 32
	progressKeyMax    = 64
)

// parseProgress reads a line such as "@llmos step=120 steps=400 loss=1.83". Pairs that
// are ill-formed are ignored; ok is false when it is no progress line.
func parseProgress(line string) (p Progress, ok bool) {
	rest, found := strings.CutPrefix(line, progressWord)
	if !found || rest == "" || rest[0] != ' ' && rest[0] != '\t' {
		return Progress{}, false
	}
	for _, pair := range strings.Fields(rest) {
		key, value, found := strings.Cut(pair, "=")
		if !found || key == "" || len(key) > progressKeyMax {
			continue
		}
		switch key {
		case "step", "steps":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil || n < 0 {
				continue
			}
			if key == "step" {
				p.Step = n
			} else {
				p.Steps = n
			}
		default:
			f, err := strconv.ParseFloat(value, 64)
			if err != nil || math.IsNaN(f) || math.IsInf(f, 0) || len(p.Values) >= progressValuesMax {
				continue // JSON has no word for them
			}
			if p.Values == nil {
				p.Values = map[string]float64{}
			}
			p.Values[key] = f
		}
	}
	return p, true
}

// progressScanner finds progress lines in a stream that arrives in pieces. It remembers
// at most one line.
type progressScanner struct {
	line    []byte
	skip    bool // the rest of this line is too long or no progress
	publish func(Progress)
}

// scan takes the next piece of the stream.
func (s *progressScanner) scan(piece []byte) {
	for len(piece) > 0 {
		end := bytes.IndexByte(piece, '\n')
		part, ended := piece, end >= 0
		if ended {
			part, piece = piece[:end], piece[end+1:]
		} else {
			piece = nil
		}
		if !s.skip {
			s.line = append(s.line, part[:min(len(part), lineBytesMax+1-len(s.line))]...)
			known := min(len(s.line), len(progressWord))
			s.skip = len(s.line) > lineBytesMax || string(s.line[:known]) != progressWord[:known]
		}
		if !ended {
			continue
		}
		if !s.skip {
			if p, ok := parseProgress(strings.TrimRight(string(s.line), "\r")); ok {
				s.publish(p)
			}
		}
		s.line, s.skip = s.line[:0], false
	}
}
