package device

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Action is what is done about an XID error. The greater ones are the graver ones.
type Action int

// The actions. Each row says what becomes of the tasks on the device, of the device and of
// the node. A task that is stopped for one is started again and loses no retry; a device or
// node that takes no new work does so until the host has started again or an operator says
// that it is repaired.
const (
	ActionIgnore      Action = iota // the task's own affair: nothing; its failure counts as its own
	ActionRestartTask               // stopped; takes work; takes work
	ActionDrainDevice               // run on; takes no new work; takes work
	ActionNeedsReset                // stopped; takes no new work before it is reset; takes work
	ActionDrainNode                 // stopped; takes no new work; takes no new work, its other tasks run on
)

var actionWords = []string{"ignore", "restart task", "drain device", "needs reset", "drain node"}

// String is the action as operators write it.
func (a Action) String() string {
	if a < 0 || int(a) >= len(actionWords) {
		return fmt.Sprintf("action %d", int(a))
	}
	return actionWords[a]
}

// EndsTasks says whether the tasks on the device are stopped and started again.
func (a Action) EndsTasks() bool {
	return a == ActionRestartTask || a == ActionNeedsReset || a == ActionDrainNode
}

// Lasts says whether something is held against the device until it is repaired.
func (a Action) Lasts() bool { return a >= ActionDrainDevice }

// XID is an error that the NVIDIA driver reports of a GPU, and what is done about it.
type XID struct {
	Code    uint32
	Meaning string // in our own words
	Action  Action
	Changed bool // the action is an operator's
}

// String names the error with its meaning.
func (x XID) String() string { return fmt.Sprintf("XID %d (%s)", x.Code, x.Meaning) }

// XIDTable says what is done about XID errors. It is not changed once it is made; the zero
// value holds the actions of the program.
type XIDTable struct {
	changed map[uint32]Action
	unknown *Action // of codes that are in no row; nil: unknownAction
}

const (
	unknownMeaning   = "not in the table"
	unknownAction    = ActionDrainDevice
	unknownWord      = "unknown"
	xidFileBytesMax  = 64 << 10
	xidCodeMax       = 100_000
	xidHint          = "write CODE=ACTION, such as 79=drain node; the actions are ignore, restart task, drain device, needs reset and drain node"
	xidInlineDivider = ","
)

// Of gives the row of a code.
func (t XIDTable) Of(code uint32) XID {
	x := XID{Code: code, Meaning: unknownMeaning, Action: unknownAction}
	i, known := slices.BinarySearchFunc(xids, code, func(x XID, code uint32) int { return cmp.Compare(x.Code, code) })
	if known {
		x = xids[i]
	} else if t.unknown != nil {
		x.Action, x.Changed = *t.unknown, true
	}
	if a, changed := t.changed[code]; changed {
		x.Action, x.Changed = a, true
	}
	return x
}

// Rows gives all rows by code: those of the program and those that an operator added.
func (t XIDTable) Rows() []XID {
	rows := make([]XID, 0, len(xids)+len(t.changed))
	for _, x := range xids {
		rows = append(rows, t.Of(x.Code))
	}
	for code := range t.changed {
		if x := t.Of(code); x.Meaning == unknownMeaning {
			rows = append(rows, x)
		}
	}
	slices.SortFunc(rows, func(a, b XID) int { return cmp.Compare(a.Code, b.Code) })
	return rows
}

// Unknown gives what is done about codes that are in no row.
func (t XIDTable) Unknown() Action {
	if t.unknown != nil {
		return *t.unknown
	}
	return unknownAction
}

// ParseXIDActions makes a table from an operator's words: CODE=ACTION with commas between
// them, or the path of a file with one on each line, as CODE=ACTION or, in YAML, CODE:
// ACTION. The code may be the word unknown, for all codes without a row. Lines that begin
// with # say nothing. Empty words give the table of the program. The error is a fault with
// the line.
func ParseXIDActions(words string) (XIDTable, error) {
	words = strings.TrimSpace(words)
	if words == "" {
		return XIDTable{}, nil
	}
	if !strings.ContainsAny(words, "=\n") {
		text, err := os.ReadFile(words)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return XIDTable{}, badXID(0, "there is no file %q", words)
		case err != nil:
			return XIDTable{}, badXID(0, "read the XID actions: %w", err)
		case len(text) > xidFileBytesMax:
			return XIDTable{}, badXID(0, "%s has %d bytes, at most %d", words, len(text), xidFileBytesMax)
		}
		return parseXIDLines(strings.Split(string(text), "\n"), words)
	}
	return parseXIDLines(strings.Split(words, xidInlineDivider), "")
}

// parseXIDLines reads the lines of a file, or without one the parts of an operator's words.
func parseXIDLines(lines []string, file string) (XIDTable, error) {
	t := XIDTable{changed: map[uint32]Action{}}
	for i, line := range lines {
		bad := func(format string, args ...any) error {
			if file == "" {
				return badXID(0, format, args...)
			}
			return badXID(i+1, "%s:%d: %w", file, i+1, fmt.Errorf(format, args...))
		}
		line, _, _ = strings.Cut(line, "#")
		line = strings.TrimSpace(line)
		if line == "" || line == "---" {
			continue
		}
		cut := strings.IndexAny(line, "=:")
		if cut < 0 {
			return XIDTable{}, bad("%.60q has no action", line)
		}
		code, word := strings.TrimSpace(line[:cut]), strings.Trim(strings.TrimSpace(line[cut+1:]), `"'`)
		action, known := parseAction(word)
		if !known {
			return XIDTable{}, bad("%.60q is no action", word)
		}
		if strings.EqualFold(code, unknownWord) {
			t.unknown = &action
			continue
		}
		n, err := strconv.ParseUint(code, 10, 32)
		if err != nil || n == 0 || n > xidCodeMax {
			return XIDTable{}, bad("%.60q is no XID code", code)
		}
		if _, twice := t.changed[uint32(n)]; twice {
			return XIDTable{}, bad("XID %d is there twice", n)
		}
		t.changed[uint32(n)] = action
	}
	return t, nil
}

// parseAction reads an action; hyphens and underscores may stand for its spaces.
func parseAction(word string) (Action, bool) {
	word = strings.Join(strings.FieldsFunc(strings.ToLower(word), func(r rune) bool { return r == ' ' || r == '-' || r == '_' }), " ")
	i := slices.Index(actionWords, word)
	return Action(i), i >= 0
}

func badXID(line int, format string, args ...any) error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...).At("xid-actions", line).Hint("%s", xidHint)
}
