// Package fraction decides which tasks use more memory of a device than they were granted.
// It is a function of looks at the devices: no clock, no I/O, no goroutine. It ends nothing
// and measures nothing; agent does both and calls Judge once for each look.
//
// A share of a device is a promise to the neighbours on the same device, and where neither
// MIG nor MPS keeps it, this does. What is not known ends nobody: a device that no look has
// told of, a process that belongs to no task and a look that failed all leave every task
// alone, and one look is not enough, because memory that is freed at this moment is no breach.
package fraction

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

const (
	// SlackBytes is how much a task may hold of a device beyond its grant. The driver keeps
	// a context of some hundred MiB for a process, which nobody counts who asks for memory.
	SlackBytes = 512 << 20
	// LooksMin is in how many looks in a row a task must be beyond its grant to be ended.
	LooksMin = 2
)

// Key is one task on one device.
type Key struct{ TaskID, DeviceID string }

// Grant is what a task may hold of a device: Bytes of its memory.
type Grant struct {
	Key
	Bytes int64
}

// Holding is what one process of a task holds of a device. A task's processes are summed.
type Holding struct {
	Key
	Bytes int64
}

// Over counts for each task and device the looks in a row that saw it beyond its grant. It
// is not changed once Judge has given it. The zero Over is that of a first look, and of the
// look after one that failed.
type Over map[Key]int

// Excess is a task to be ended, and for what.
type Excess struct {
	Key
	Used, Granted int64 // bytes
}

// Reason is what the task's report says.
func (e Excess) Reason() string {
	return fmt.Sprintf("used %s of device %s, %s were granted", bytesText(e.Used), e.DeviceID, bytesText(e.Granted))
}

// bytesText writes a size as people do: GiB from one on, else MiB, a decimal where it counts.
func bytesText(n int64) string {
	size, unit := float64(n)/(1<<20), "MiB"
	if n >= 1<<30 {
		size, unit = float64(n)/(1<<30), "GiB"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", size), ".0") + " " + unit
}

// Beyond gives the tasks that one look sees beyond their grants, without slack, each once and
// in order of task ID: those to be warned.
func Beyond(grants []Grant, holdings []Holding) (out []Excess) {
	held := sum(holdings)
	for _, g := range grants {
		if used := held[g.Key]; g.Bytes > 0 && used > g.Bytes {
			out = append(out, Excess{Key: g.Key, Used: used, Granted: g.Bytes})
		}
	}
	return ordered(out)
}

func sum(holdings []Holding) map[Key]int64 {
	held := make(map[Key]int64, len(holdings))
	for _, h := range holdings {
		held[h.Key] += max(h.Bytes, 0)
	}
	return held
}

// ordered gives each task once, in order of task ID.
func ordered(list []Excess) []Excess {
	slices.SortFunc(list, func(a, b Excess) int {
		return cmp.Or(cmp.Compare(a.TaskID, b.TaskID), cmp.Compare(a.DeviceID, b.DeviceID))
	})
	return slices.CompactFunc(list, func(a, b Excess) bool { return a.TaskID == b.TaskID })
}

// Judge weighs one look. It gives the count for the next look and the tasks to be ended
// now, each once, in order of task ID. A grant of no bytes says nothing and holds nobody.
func Judge(before Over, grants []Grant, holdings []Holding) (after Over, end []Excess) {
	held := sum(holdings)
	after = Over{}
	for _, g := range grants {
		used := held[g.Key]
		if g.Bytes <= 0 || used <= g.Bytes+SlackBytes {
			continue
		}
		after[g.Key] = before[g.Key] + 1
		if after[g.Key] >= LooksMin {
			end = append(end, Excess{Key: g.Key, Used: used, Granted: g.Bytes})
		}
	}
	return after, ordered(end)
}
