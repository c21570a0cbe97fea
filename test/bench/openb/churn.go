package main

import (
	"cmp"
	"container/heap"
	"math/rand"
	"slices"

	"llmos/server/scheduler/packing"
)

// With departures: pods come and go, and one that fits nowhere when it comes is lost.

// stay is one pod's wish to be on the cluster.
type stay struct {
	shape       packing.Shape
	from, until float64 // s
}

// churned is what became of the stays, after the warm-up.
type churned struct {
	offered   float64 // mean demand, % of the cluster, had every stay been taken in
	allocated float64 // mean allocation, %
	rejected  float64 // devices refused, % of the devices asked
	lost      float64 // device time of the stays refused, % of that offered
}

// replay runs stays, in order of arrival, and measures between two times.
func replay(tr *trace, stays []stay, begin, end float64, p placer) churned {
	c := newCluster(tr)
	var leaving departures
	var out churned
	used, last, area, wanted, missed := int64(0), 0.0, 0.0, 0.0, 0.0
	advance := func(now float64) {
		if t := min(now, end); t > max(last, begin) {
			area += float64(used) * (t - max(last, begin))
		}
		last = now
	}
	asked, refused := 0.0, 0.0
	for i := range stays {
		s := &stays[i]
		if s.from >= end {
			break
		}
		for len(leaving) > 0 && leaving[0].until <= s.from {
			d := heap.Pop(&leaving).(departure)
			advance(d.until)
			c.leave(d.node, d.devices, &d.shape)
			if w, ok := p.(witness); ok {
				w.left(&d.shape)
			}
			used -= d.shape.Demand()
		}
		advance(s.from)
		demand := float64(s.shape.Demand())
		within := demand * max(0, min(end, s.until)-max(begin, s.from))
		wanted += within
		node, device := p.place(c, &s.shape)
		if s.from >= begin {
			asked += demand
		}
		if node < 0 {
			missed += within
			if s.from >= begin {
				refused += demand
			}
			continue
		}
		heap.Push(&leaving, departure{*s, node, c.take(node, device, &s.shape)})
		used += s.shape.Demand()
	}
	for len(leaving) > 0 && leaving[0].until <= end {
		d := heap.Pop(&leaving).(departure)
		advance(d.until)
		used -= d.shape.Demand()
	}
	advance(end)
	whole := float64(tr.capacity()) * (end - begin)
	out.offered, out.allocated = 100*wanted/whole, 100*area/whole
	if asked > 0 {
		out.rejected = 100 * refused / asked
	}
	if wanted > 0 {
		out.lost = 100 * missed / wanted
	}
	return out
}

// witness is a placer that learns from departures.
type witness interface{ left(s *packing.Shape) }

type departure struct {
	stay
	node    int
	devices uint64
}

// departures is a heap, the first to leave first.
type departures []departure

func (d departures) Len() int           { return len(d) }
func (d departures) Less(i, j int) bool { return d[i].until < d[j].until }
func (d departures) Swap(i, j int)      { d[i], d[j] = d[j], d[i] }

// Push is of heap.Interface.
func (d *departures) Push(x any) { *d = append(*d, x.(departure)) }

// Pop is of heap.Interface.
func (d *departures) Pop() any {
	old := *d
	last := old[len(old)-1]
	*d = old[:len(old)-1]
	return last
}

// Constants of the steady state.
const (
	steadyLoad     = 0.95
	steadyArrivals = 50_000 // measured ones; a quarter as many come before as warm-up
)

// steady draws a stream in equilibrium: pods of the list come as a Poisson process, as often
// as makes the demand steadyLoad of the cluster, and stay as long as they did in the trace.
// The stays that are under way at time 0 are drawn from the same equilibrium: a pod is met
// in proportion to how long it stays, at a random point of its stay. That, unlike a warm-up
// from empty, needs not wait for the few pods that stay for months.
func steady(pods []pod, capacity, seed int64) (stays []stay, begin, end float64) {
	source := rand.New(rand.NewSource(seed))
	work, sums, total := 0.0, make([]float64, len(pods)), 0.0
	for i := range pods {
		length := float64(pods[i].deleted - pods[i].created)
		work += length * float64(pods[i].shape.Demand())
		total += length
		sums[i] = total
	}
	rate := steadyLoad * float64(capacity) / work // arrivals a second of each pod of the list
	for range int(rate*total + 0.5) {
		at, _ := slices.BinarySearch(sums, source.Float64()*total)
		length := float64(pods[at].deleted - pods[at].created)
		stays = append(stays, stay{shape: pods[at].shape, until: length * source.Float64()})
	}
	now := 0.0
	for n := range steadyArrivals * 5 / 4 {
		now += source.ExpFloat64() / (rate * float64(len(pods)))
		if n == steadyArrivals/4 {
			begin = now
		}
		p := &pods[source.Intn(len(pods))]
		stays = append(stays, stay{shape: p.shape, from: now, until: now + float64(p.deleted-p.created)})
	}
	return stays, begin, now
}

// Constants of the replay of the trace's own times. The list is a sample whose peak is 1 %
// of the cluster, so copies of it are laid over each other, on a part of the nodes.
const (
	ownShift  = 86_400.0 // s; each copy is shifted by up to a day
	ownRounds = 3        // of finding the number of copies
	copiesMax = 200
	nodesPart = 8 // one node of so many
)

// sparse takes one node of nodesPart, in the order of the seed.
func sparse(tr *trace) *trace {
	t := *tr
	t.hosts = tr.hosts[:max(1, len(tr.hosts)/nodesPart)]
	return &t
}

// own lays copies of the list over each other, each shifted by a random part of a day: about
// as many as make the greatest demand at any time equal the devices. So whatever is refused
// is refused for its shape, its model or its CPU rather than for want of devices. It is
// measured over the second half.
func own(pods []pod, capacity, seed int64) (stays []stay, begin, end float64) {
	for i := range pods {
		end = max(end, float64(pods[i].created))
	}
	copies := int64(1)
	for range ownRounds { // shifts blunt the peaks, the more the more copies there are
		stays = laid(pods, int(copies), seed)
		copies = max(1, min(copiesMax, copies*capacity/peak(stays)))
	}
	return laid(pods, int(copies), seed), end / 2, end
}

// laid gives a number of shifted copies of the list, in order of arrival.
func laid(pods []pod, copies int, seed int64) []stay {
	source := rand.New(rand.NewSource(seed))
	stays := make([]stay, 0, copies*len(pods))
	for range copies {
		shift := ownShift * source.Float64()
		for i := range pods {
			stays = append(stays, stay{shape: pods[i].shape, from: float64(pods[i].created) + shift, until: float64(pods[i].deleted) + shift})
		}
	}
	slices.SortStableFunc(stays, func(a, b stay) int { return cmp.Compare(a.from, b.from) })
	return stays
}

// peak is the greatest demand at any time, at least 1.
func peak(stays []stay) int64 {
	type step struct {
		at     float64
		demand int64
	}
	steps := make([]step, 0, 2*len(stays))
	for i := range stays {
		d := stays[i].shape.Demand()
		steps = append(steps, step{stays[i].from, d}, step{stays[i].until, -d})
	}
	slices.SortFunc(steps, func(a, b step) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.demand, b.demand)) })
	most, now := int64(1), int64(0)
	for _, s := range steps {
		now += s.demand
		most = max(most, now)
	}
	return most
}
