package health

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"llmos/agent/device"
)

const (
	// StrangerBytesMin is how much of a device's memory strangers must hold to block it, when
	// the operator does not say. A desktop's windows and a monitoring program hold less.
	StrangerBytesMin = 512 << 20
	// namelessBytesMin is how much nobody's memory must be: a driver's own bookkeeping and
	// what it frees late look like it.
	namelessBytesMin = 2 << 30
	// looksMin is in how many looks in a row a device must be seen so, to be blocked and to be
	// free again: a process that is just ending, or starting, blocks nothing.
	looksMin  = 2
	pidsNamed = 3
)

// Stranger is memory of a device that belongs to no task.
type Stranger struct {
	Bytes int64
	PIDs  []int // ascending; empty: nobody can be seen to hold it
}

// Strangers sums what is held of each device by processes that are of no task. Memory that
// the device says is used and no process is seen to hold is a stranger's too, when it is much.
func Strangers(use device.Use, ofTask func(pid int) bool) map[string]Stranger {
	out := map[string]Stranger{}
	known := map[string]int64{}
	for _, p := range use.Processes {
		known[p.DeviceID] += p.MemoryBytes
		if !ofTask(p.PID) {
			s := out[p.DeviceID]
			s.Bytes += p.MemoryBytes
			s.PIDs = append(s.PIDs, p.PID)
			out[p.DeviceID] = s
		}
	}
	for id, f := range use.Figures { // unordered: each device is judged by itself
		if nobodys := f.UsedBytes - known[id]; f.UsedBytes > 0 && nobodys >= namelessBytesMin {
			s := out[id]
			s.Bytes += nobodys
			out[id] = s
		}
	}
	for id, s := range out { // unordered: each entry is sorted by itself
		slices.Sort(s.PIDs)
		out[id] = s
	}
	return out
}

// Blocks remembers which devices strangers block. The zero value blocks none.
type Blocks struct {
	LeastBytes int64 // that block a device; 0: StrangerBytesMin; negative: nothing blocks
	seen       map[string]int
	unseen     map[string]int
	why        map[string]string
}

// Look takes one look at who holds what. It gives why each blocked device is; the map is the
// caller's.
func (b *Blocks) Look(strangers map[string]Stranger) map[string]string {
	least := b.LeastBytes
	if least == 0 {
		least = StrangerBytesMin
	}
	if b.why == nil {
		b.seen, b.unseen, b.why = map[string]int{}, map[string]int{}, map[string]string{}
	}
	for id, s := range strangers { // unordered: each device is judged by itself
		if least < 0 || s.Bytes < least {
			continue
		}
		b.unseen[id] = 0
		if b.seen[id]++; b.seen[id] >= looksMin && b.why[id] == "" {
			b.why[id] = s.text()
		}
	}
	for id := range b.seen { // unordered: each device is judged by itself
		if s, there := strangers[id]; there && least >= 0 && s.Bytes >= least {
			continue
		}
		if b.unseen[id]++; b.why[id] == "" || b.unseen[id] >= looksMin {
			delete(b.seen, id)
			delete(b.unseen, id)
			delete(b.why, id)
		}
	}
	return maps.Clone(b.why)
}

// text says who holds the memory. It is written once for each time that a device is blocked,
// so that a process that grows is not news at each look.
func (s Stranger) text() string {
	size := fmt.Sprintf("%.1f GiB of its memory are held by ", float64(s.Bytes)/(1<<30))
	if len(s.PIDs) == 0 {
		return size + "no process that can be seen: it needs a reset, or a process of another PID namespace to end"
	}
	var names []string
	for _, pid := range s.PIDs[:min(len(s.PIDs), pidsNamed)] {
		names = append(names, strconv.Itoa(pid))
	}
	more := ""
	if n := len(s.PIDs) - pidsNamed; n > 0 {
		more = fmt.Sprintf(" and %d more", n)
	}
	noun := "process "
	if len(s.PIDs) > 1 {
		noun = "processes "
	}
	return size + noun + strings.Join(names, ", ") + more + ", of no task of this node"
}
