package checkpoint

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// DoneMarker is the file in a folder that says that the folder is a finished checkpoint.
const DoneMarker = ".done"

// Settled is how long nothing in an entry has changed before it counts as finished without another
// sign.
const Settled = 10 * time.Second

// Moved is the same for what shows that it was renamed: it has changed after the last change of what
// is in it. Copies that keep the times of their files look so too while they are made.
const Moved = 2 * time.Second

// Seen is an entry of a task's checkpoint folder as it looks at one time.
type Seen struct {
	Name    string
	Dir     bool
	Marked  bool      // a folder with DoneMarker in it
	Moved   bool      // it was seen to be renamed to this name
	Told    bool      // the task has said that it is a checkpoint
	Changed time.Time // of the entry itself: the last rename, or change
	Newest  time.Time // last change of content, its own or below it
	Print   string    // differs when the entry has changed
	Fault   string    // why it is refused whatever it holds; empty: nothing is known against it
}

// Finished reports whether an entry is a whole checkpoint: announced, marked, or renamed into place.
// A rename that nobody watched shows in an entry that changed after the last change of what is in it,
// a moment ago at least. ended says that the task has: then nothing changes any more.
func Finished(s Seen, now time.Time, ended bool) bool {
	switch {
	case s.Told:
		return true
	case Temporary(s.Name):
		return false
	case s.Dir && s.Marked, s.Moved:
		return true
	case s.Changed.Before(s.Newest):
		return false // written in place, and after that not renamed
	case ended && s.Changed.After(s.Newest):
		return true
	}
	quiet := now.Sub(s.Changed)
	return quiet >= Settled || quiet >= Moved && s.Changed.After(s.Newest)
}

// Temporary reports whether a name is one under which programs write what is not finished.
func Temporary(name string) bool {
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, ".") || strings.HasPrefix(lower, "tmp") || strings.HasSuffix(lower, "~") {
		return true
	}
	parts := strings.FieldsFunc(lower, func(r rune) bool { return r == '.' || r == '-' || r == '_' })
	for i, part := range parts {
		switch part {
		case "tmp", "temp", "partial", "incomplete", "inprogress":
			return true
		case "part", "lock", "swp":
			return i == len(parts)-1
		}
	}
	return false
}

// stepDigitsMax keeps a step within 64 bits.
const stepDigitsMax = 18

var trailingNumber = regexp.MustCompile(`([0-9]+)(\.[A-Za-z][A-Za-z0-9]*)*$`)

// StepOf gives the step of a checkpoint by its name: the number at its end, endings such as .pt
// aside; else the time at which it was saved, in seconds.
func StepOf(name string, saved time.Time) int64 {
	if m := trailingNumber.FindStringSubmatch(name); m != nil && len(m[1]) <= stepDigitsMax {
		if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			return n
		}
	}
	return saved.Unix()
}
