package exec

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf8"
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

// checkpointWord is the second word of a line by which a task tells of a finished checkpoint.
const checkpointWord = "checkpoint"

// Bounds of such lines: how many of the newest a status holds, and the bytes of a path.
const (
	toldMax      = 8
	toldPathMax  = 1024
	toldPathWord = "path="
)

// parseTold reads a line such as "@llmos checkpoint step=1200 path=ckpt/step-1200". The path is
// the rest of the line, so that it may have spaces. ok is false when it is no such line.
func parseTold(line string) (t Told, ok bool) {
	rest, found := strings.CutPrefix(line, progressWord)
	fields := strings.Fields(rest)
	if !found || rest == "" || rest[0] != ' ' && rest[0] != '\t' || len(fields) == 0 || fields[0] != checkpointWord {
		return Told{}, false
	}
	t.Step = -1
	before, path, found := strings.Cut(rest, " "+toldPathWord)
	if !found {
		before, path, found = strings.Cut(rest, "\t"+toldPathWord)
	}
	for _, pair := range strings.Fields(before) {
		if text, is := strings.CutPrefix(pair, "step="); is {
			if n, err := strconv.ParseInt(text, 10, 64); err == nil && n >= 0 {
				t.Step = n
			}
		}
	}
	t.Path = strings.TrimSpace(path)
	return t, found && t.Path != "" && len(t.Path) <= toldPathMax && utf8.ValidString(t.Path)
}

// progressScanner finds progress lines, and those that tell of checkpoints, in a stream that
// arrives in pieces. It remembers at most one line.
type progressScanner struct {
	line    []byte
	skip    bool // the rest of this line is too long or no progress
	publish func(Progress)
	told    func(Told)
}

// take publishes what a whole line says.
func (s *progressScanner) take(line string) {
	if t, ok := parseTold(line); ok {
		s.told(t)
	} else if fields := strings.Fields(line); len(fields) > 1 && fields[1] == checkpointWord {
		return // about a checkpoint, and not of use; no progress
	} else if p, ok := parseProgress(line); ok {
		s.publish(p)
	}
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
			s.take(strings.TrimRight(string(s.line), "\r"))
		}
		s.line, s.skip = s.line[:0], false
	}
}
