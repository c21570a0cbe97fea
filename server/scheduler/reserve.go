package scheduler

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Times around a reservation.
const (
	drainMS     = 120_000 // attempts that would run into it are stopped so long before its start
	lendMinMS   = 600_000 // an attempt of unknown length is started on its nodes only if so much is left
	windowsMax  = 256     // reservations that a pass looks at, the first to start first
	reservedFor = "reservation "
)

// window is a reservation that is not over, on the nodes that it is for.
type window struct {
	*Reservation
	keep  *keep
	nodes []int32
	where *Expr // that they are meant; nil: not needed yet
}

func (w *window) called() string {
	if w.Maintenance {
		return "maintenance " + w.Name
	}
	return reservedFor + w.Name
}

// openWindows closes reserved nodes to jobs that would run into the time of a reservation,
// and stops attempts that would.
func (r *round) openWindows() {
	var coming []*Reservation
	for i := range r.s.Reservations {
		if v := &r.s.Reservations[i]; v.EndMS > r.s.NowMS {
			coming = append(coming, v)
		}
	}
	slices.SortFunc(coming, func(a, b *Reservation) int {
		return cmp.Or(cmp.Compare(a.StartMS, b.StartMS), strings.Compare(a.Name, b.Name))
	})
	taken := map[int32]bool{}
	for _, v := range coming[:min(len(coming), windowsMax)] {
		w := &window{Reservation: v, nodes: r.nodesFor(v, taken)}
		for _, node := range w.nodes {
			taken[node] = true
		}
		w.keep = &keep{atMS: max(1, v.StartMS), end: v.EndMS, nodes: w.nodes, window: w}
		r.windows = append(r.windows, w)
		r.addKeep(w.keep)
	}
	for _, w := range r.windows {
		r.clear(w)
	}
}

// nodesFor gives the nodes of a reservation: those it names, or the first that are free at
// its start, as far as is known. Nodes on which its own jobs run come first, so that the
// choice stays.
func (r *round) nodesFor(v *Reservation, taken map[int32]bool) []int32 {
	room := r.now.room
	var nodes []int32
	for _, id := range v.NodeIDs {
		if node := room.nodeByID(id); node >= 0 {
			nodes = append(nodes, int32(node))
		}
	}
	if len(v.NodeIDs) > 0 {
		slices.Sort(nodes)
		return slices.Compact(nodes)
	}
	busy := r.busyUntil()
	type choice struct {
		node    int32
		own     bool
		gpus    int
		afterMS int64 // by so much it is free too late
	}
	var choices []choice
	for node := range room.spec {
		n := &room.spec[node]
		if taken[int32(node)] || n.Status != NodeReady || n.Drained || (v.Where != nil && !n.meets(v.Where)) {
			continue
		}
		if v.Nodes <= 0 && len(n.Devices) == 0 {
			continue
		}
		b := busy[int32(node)]
		choices = append(choices, choice{node: int32(node), own: b.by[v.Name], gpus: len(n.Devices), afterMS: max(0, b.untilMS-max(v.StartMS, r.s.NowMS))})
	}
	slices.SortStableFunc(choices, func(a, b choice) int {
		if a.own != b.own {
			if a.own {
				return -1
			}
			return 1
		}
		if c := cmp.Compare(a.afterMS, b.afterMS); c != 0 || v.Nodes > 0 {
			return c
		}
		return cmp.Compare(b.gpus, a.gpus)
	})
	gpus := 0
	for _, c := range choices {
		if enough := v.Nodes > 0 && len(nodes) >= int(v.Nodes) || v.Nodes <= 0 && gpus >= int(v.GPUs); enough {
			break
		}
		nodes = append(nodes, c.node)
		gpus += c.gpus
	}
	slices.Sort(nodes)
	return nodes
}

// occupation says until when a node is busy, and with jobs of which reservations.
type occupation struct {
	untilMS int64
	by      map[string]bool
}

func (r *round) busyUntil() map[int32]occupation {
	if r.busyNodes != nil {
		return r.busyNodes
	}
	r.busyNodes = map[int32]occupation{}
	for i := range r.s.Running {
		run := &r.s.Running[i]
		end := endOfRunning(run, r.s.NowMS)
		for j := range run.Slots {
			node := r.now.room.nodeByID(run.Slots[j].NodeID)
			if node < 0 {
				continue
			}
			o := r.busyNodes[int32(node)]
			o.untilMS = max(o.untilMS, end)
			if run.Reservation != "" {
				if o.by == nil {
					o.by = map[string]bool{}
				}
				o.by[run.Reservation] = true
			}
			r.busyNodes[int32(node)] = o
		}
	}
	return r.busyNodes
}

// clear stops attempts that would run into a reservation which starts soon or has started.
func (r *round) clear(w *window) {
	if w.StartMS-r.s.NowMS > drainMS {
		return
	}
	for i := range r.s.Running {
		run := &r.s.Running[i]
		if run.Ending || run.NoPreempt || r.stopped[run.JobID] || r.isOf(w, run.Reservation, run.Queue) ||
			endOfRunning(run, r.s.NowMS) <= w.StartMS || !r.runsOn(run, w.nodes) {
			continue
		}
		r.stopped[run.JobID] = true
		r.plan.Evictions = append(r.plan.Evictions, Eviction{JobID: run.JobID, Epoch: run.Epoch, Kind: EvictDrain,
			Reason: fmt.Sprintf("its node is kept for %s from %s", w.called(), clock(w.StartMS, r.s.NowMS))})
	}
}

func (r *round) runsOn(run *Running, nodes []int32) bool {
	for i := range run.Slots {
		if node := r.now.room.nodeByID(run.Slots[i].NodeID); node >= 0 && slices.Contains(nodes, int32(node)) {
			return true
		}
	}
	return false
}

// isOf says whether a job that names a reservation, or none, and is of a queue, may use the
// window's nodes while it is open.
func (r *round) isOf(w *window, named, queue string) bool {
	switch {
	case w.Maintenance:
		return false
	case named != "":
		return named == w.Name
	}
	return w.Queue != "" && r.isBelow(queue, w.Queue)
}

// isBelow says whether a queue is another one or below it.
func (r *round) isBelow(queue, above string) bool {
	for range len(r.s.Queues) + 1 {
		if queue == above {
			return true
		}
		at := slices.IndexFunc(r.s.Queues, func(q Queue) bool { return q.Name == queue })
		if at < 0 {
			return false
		}
		queue = r.s.Queues[at].Parent
	}
	return false
}

// binds says whether a keep binds a job of the length: whether the job may not use what is
// kept. Who may be stopped is lent reserved nodes without saying how long it runs, if that is
// worth while.
func (r *round) binds(k *keep, job *Job, length int64) bool {
	end := endOf(r.s.NowMS, length)
	w := k.window
	if w == nil {
		return k.atMS < end
	}
	if w.StartMS <= r.s.NowMS {
		return !r.isOf(w, job.Reservation, job.Queue)
	}
	if length == forever && !job.NoPreempt {
		end = r.s.NowMS + lendMinMS
	}
	return w.StartMS < end
}

// within restricts a job that names a reservation to its nodes. ok is false when it is not
// open.
func (r *round) within(job *Job) (*Job, block, bool) {
	if job.Reservation == "" {
		return job, block{}, true
	}
	at := slices.IndexFunc(r.windows, func(w *window) bool { return w.Name == job.Reservation && !w.Maintenance })
	if at < 0 {
		return job, block{kind: blockedByWindow, behind: reservedFor + job.Reservation}, false
	}
	w := r.windows[at]
	if w.StartMS > r.s.NowMS {
		return job, block{kind: blockedByWindow, behind: w.called(), atMS: w.StartMS, count: 1}, false
	}
	if w.where == nil {
		match := &Match{Key: "node"}
		for _, node := range w.nodes {
			match.Values = append(match.Values, r.now.room.spec[node].ID)
		}
		w.where = &Expr{Match: match}
	}
	inside := *job
	if inside.Where = w.where; job.Where != nil {
		inside.Where = &Expr{All: []Expr{*w.where, *job.Where}}
	}
	return &inside, block{}, true
}
