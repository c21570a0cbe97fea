package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Limits of the board.
const (
	topPast      = 24 // looks that a job's sparkline shows
	topNodesMost = 12 // nodes shown, the busiest first
)

// topUse is what tasks were seen to use together.
type topUse struct {
	cpuMilli, memory, gpuMemory int64
	gpuPercent                  float64 // summed over tasks that tell
	gpuTold                     int
}

func (u *topUse) add(s *pb.Sample) {
	if s == nil {
		return
	}
	u.cpuMilli += s.CpuMilli
	u.memory += s.MemoryBytes
	u.gpuMemory += s.GpuMemoryBytes
	if s.GpuPercent >= 0 {
		u.gpuPercent += float64(s.GpuPercent)
		u.gpuTold++
	}
}

// percent is how busy the devices were on average; "-" when nobody tells.
func (u *topUse) percent() string {
	if u.gpuTold == 0 {
		return "-"
	}
	return fmt.Sprintf("%.0f%%", u.gpuPercent/float64(u.gpuTold))
}

// topBoard is what `top` shows: the newest look, and what the looks before it found. It prints
// nothing and asks nobody.
type topBoard struct {
	a      *app
	look   topLook
	past   map[string][]float64 // by job: how busy it was, 0 to 1, oldest first
	sorted int                  // index in topOrders
	at     int                  // chosen job
	ranks  bool                 // the chosen job's ranks are shown
	stale  error                // why the last look failed
}

func newTopBoard(a *app) *topBoard { return &topBoard{a: a, past: map[string][]float64{}} }

// topOrders are the orders in which jobs can be listed.
var topOrders = []struct {
	name string
	less func(a, b *pb.JobView) int
}{
	{"cpu", func(a, b *pb.JobView) int { return cmp.Compare(useOf(b).cpuMilli, useOf(a).cpuMilli) }},
	{"memory", func(a, b *pb.JobView) int { return cmp.Compare(useOf(b).memory, useOf(a).memory) }},
	{"GPU memory", func(a, b *pb.JobView) int { return cmp.Compare(useOf(b).gpuMemory, useOf(a).gpuMemory) }},
	{"age", func(a, b *pb.JobView) int {
		return cmp.Compare(a.GetJob().GetSubmittedMs(), b.GetJob().GetSubmittedMs())
	}},
}

func useOf(v *pb.JobView) topUse {
	var u topUse
	for _, p := range v.Progress {
		u.add(p.Sample)
	}
	return u
}

// take takes in a look. One that failed leaves the board as it was, and is told.
func (b *topBoard) take(l topLook) {
	if b.stale = l.err; l.err != nil {
		return
	}
	b.look = l
	past := map[string][]float64{}
	for _, v := range l.jobs {
		if v.GetJob().GetState() != pb.JobState_JOB_STATE_RUNNING {
			continue
		}
		id := v.GetJob().GetId()
		points := append(slices.Clone(b.past[id]), busyPart(v))
		past[id] = points[max(0, len(points)-topPast):]
	}
	b.past = past
}

// busyPart is how busy a job's devices are, or without devices its CPUs, of what it asked for.
func busyPart(v *pb.JobView) float64 {
	u := useOf(v)
	if u.gpuTold > 0 {
		return u.gpuPercent / float64(u.gpuTold) / 100
	}
	asked := int64(0)
	for _, alloc := range v.Allocations {
		asked += alloc.CpuMilli
	}
	return min(1, float64(u.cpuMilli)/float64(max(asked, 1000)))
}

// key takes a key; false: it ends the program.
func (b *topBoard) key(name string) bool {
	switch name {
	case "q", "esc", "ctrl+c":
		if name == "esc" && b.ranks {
			b.ranks = false
			return true
		}
		return false
	case "s":
		b.sorted = (b.sorted + 1) % len(topOrders)
	case "up", "k":
		b.at = max(0, b.at-1)
	case "down", "j":
		b.at = min(b.at+1, max(0, len(b.look.jobs)-1))
	case "enter", " ":
		b.ranks = !b.ranks
	}
	return true
}

// jobs gives the jobs in the chosen order, those that run first.
func (b *topBoard) jobs() []*pb.JobView {
	jobs := slices.Clone(b.look.jobs)
	waits := func(v *pb.JobView) bool { return v.GetJob().GetState() != pb.JobState_JOB_STATE_RUNNING }
	slices.SortStableFunc(jobs, func(x, y *pb.JobView) int {
		if waits(x) != waits(y) {
			if waits(x) {
				return 1
			}
			return -1
		}
		return topOrders[b.sorted].less(x, y)
	})
	return jobs
}

// render draws the board; a width or height of 0 is without bound.
func (b *topBoard) render(width, height int) string {
	jobs := b.jobs()
	b.at = min(b.at, max(0, len(jobs)-1))
	parts := []string{b.head(), b.nodeTable().render(width, b.a.outTint())}
	if len(jobs) == 0 {
		parts = append(parts, "no jobs wait or run\n")
	} else {
		parts = append(parts, b.jobTable(jobs, height > 0).render(width, b.a.outTint()))
	}
	if b.ranks && len(jobs) > 0 {
		parts = append(parts, b.rankTable(jobs[b.at]).render(width, b.a.outTint()))
	}
	lines := strings.Split(strings.TrimSuffix(strings.Join(parts, "\n"), "\n"), "\n")
	if height == 0 {
		return strings.Join(lines, "\n") + "\n"
	}
	foot := fmt.Sprintf("s sorts (by %s)  ↑↓ choose  enter ranks  q ends", topOrders[b.sorted].name)
	if b.stale != nil {
		foot = b.a.outTint().paint(red, "the cluster does not answer: "+oneLine(b.stale.Error()))
	}
	lines = lines[:min(len(lines), max(height-2, 1))]
	return strings.Join(lines, "\n") + "\n\n" + b.a.outTint().paint(faint, clip(foot, max(width, 8)))
}

// head is one line about the whole cluster.
func (b *topBoard) head() string {
	ready, devices, held := 0, 0, int64(0)
	for _, n := range b.look.nodes {
		if n.GetNode().GetState() == pb.NodeState_NODE_STATE_READY {
			ready++
		}
		for _, d := range n.GetNode().GetDevices() {
			if d.Health != pb.DeviceHealth_DEVICE_HEALTH_GONE {
				devices++
			}
		}
		for _, d := range n.GetAccount().GetDevices() {
			held += int64(d.ShareAllocated)
		}
	}
	running, waiting := 0, 0
	for _, v := range b.look.jobs {
		switch v.GetJob().GetState() {
		case pb.JobState_JOB_STATE_PENDING:
			waiting++
		case pb.JobState_JOB_STATE_RUNNING:
			running++
		}
	}
	t := b.a.outTint()
	return fmt.Sprintf("%s  %d of %s ready, %s of %d GPUs held, %d jobs run, %d wait\n", t.paint(bold, b.a.now().In(b.a.location).Format("15:04:05")),
		ready, count(len(b.look.nodes), "node"), milliText(held), devices, running, waiting)
}

// nodeTable lists the busiest nodes with what is used on them.
func (b *topBoard) nodeTable() *table {
	uses := map[string]*topUse{}
	for _, v := range b.look.jobs {
		for _, p := range v.Progress {
			for _, task := range v.Tasks {
				if task.Rank == p.Rank {
					if uses[task.NodeId] == nil {
						uses[task.NodeId] = &topUse{}
					}
					uses[task.NodeId].add(p.Sample)
				}
			}
		}
	}
	nodes := slices.Clone(b.look.nodes)
	use := func(n *pb.NodeView) topUse {
		if u := uses[n.GetNode().GetId()]; u != nil {
			return *u
		}
		return topUse{}
	}
	slices.SortStableFunc(nodes, func(x, y *pb.NodeView) int {
		return cmp.Or(cmp.Compare(use(y).cpuMilli, use(x).cpuMilli), strings.Compare(x.GetNode().GetName(), y.GetNode().GetName()))
	})
	t := &table{header: []string{"NODE", "STATE", "CPU USED", "MEM USED", "GPU", "GPU MEM", "GPUS HELD"}}
	for _, n := range nodes[:min(len(nodes), topNodesMost)] {
		node, u := n.GetNode(), use(n)
		state := word(node.GetState().String(), "NODE_STATE_")
		t.add(plain(firstOf(node.GetName(), node.GetId())), cell{state, stateColour(state)},
			plain(gauge(u.cpuMilli, node.GetCpuMilli())+" "+coresText(u.cpuMilli)+"/"+milliText(node.GetCpuMilli())),
			plain(gauge(u.memory, node.GetMemoryBytes())+" "+bytesText(u.memory)+"/"+bytesText(node.GetMemoryBytes())),
			plain(u.percent()), plain(sizeText(u.gpuMemory)), plain(deviceText(n)))
	}
	if more := len(nodes) - topNodesMost; more > 0 {
		t.add(plain("and "+count(more, "node")), plain(""), plain(""), plain(""), plain(""), plain(""), plain(""))
	}
	return t
}

// gauge draws a part of a whole in eight columns.
func gauge(part, whole int64) string {
	done := 0
	if whole > 0 {
		done = int(psBar * min(max(part, 0), whole) / whole)
	}
	return strings.Repeat("━", done) + strings.Repeat("─", psBar-done)
}

// coresText writes used CPU in cores with one digit behind the point.
func coresText(milli int64) string { return fmt.Sprintf("%.1f", float64(milli)/1000) }

// sizeText writes an amount that was measured, to a tenth; "-" when nothing was.
func sizeText(n int64) string {
	switch {
	case n <= 0:
		return "-"
	case n >= 10<<30:
		return fmt.Sprintf("%.0fGi", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1fGi", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0fMi", float64(n)/(1<<20))
}
