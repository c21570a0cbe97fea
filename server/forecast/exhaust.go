package forecast

import (
	"math"
	"slices"
)

const (
	exactMost  = 12 // jobs among which the cheapest set to move is sought exactly
	halvings   = 60 // of an interval, when a crossing is sought
	neverUntil = 10 * 365 * 24 * secondsHour
)

// Outlook is when a resource of a node runs out, and what to do about it.
type Outlook struct {
	At      float64  // expected moment: the means reach the capacity; +Inf: not before the horizon
	Soonest float64  // moment at which the upper bounds reach it: at or before At
	Move    []string // jobs to move or checkpoint before Soonest, least lost work first; nil: none needed or none helps
	Lost    float64  // work lost by moving them
	Enough  bool     // moving them keeps the rest within capacity up to the horizon
}

// Exhaustion says when the demands exceed the capacity, and which jobs to move so that the
// others fit up to the horizon: the set that loses the least work, exact for up to 12
// movable jobs, beyond by greed with a second look. Nothing is to be moved unless the upper
// bounds cross within lead seconds (a checkpoint and a restart elsewhere): sooner alarms
// cost work that a finish would have saved. Ties go by the names of jobs.
func Exhaustion(capacity float64, demands []Demand, now, lead, horizon float64) Outlook {
	horizon = min(horizon, now+neverUntil)
	out := Outlook{
		At:      crossing(capacity, demands, now, horizon, func(i Interval) float64 { return i.Mean }),
		Soonest: crossing(capacity, demands, now, horizon, func(i Interval) float64 { return i.Hi }),
	}
	out.Soonest = min(out.Soonest, out.At)
	if out.Soonest > now+lead {
		return out
	}
	out.Move, out.Lost, out.Enough = cheapest(capacity, demands, now, horizon)
	return out
}

// crossing is the first time at which the sum of what part takes of each demand exceeds the
// capacity; +Inf when it never does.
func crossing(capacity float64, demands []Demand, now, horizon float64, part func(Interval) float64) float64 {
	for _, st := range stretches(demands, now, horizon) {
		within := present(demands, st)
		over := func(t float64) bool {
			total := 0.0
			for _, d := range within {
				total += part(d.Curve.Predict(t - d.Start))
			}
			return total > capacity
		}
		lo, hi := st.from, st.to
		switch {
		case over(lo):
			return lo
		case !over(hi):
			continue
		}
		for range halvings {
			if mid := lo + (hi-lo)/2; over(mid) {
				hi = mid
			} else {
				lo = mid
			}
		}
		return hi
	}
	return math.Inf(1)
}

// fits says whether the upper bounds of demands stay within the capacity up to the horizon.
func fits(capacity float64, demands []Demand, now, horizon float64) bool {
	for _, free := range Profile(capacity, demands, now, horizon, Risk{}) {
		if free.Amount < 0 {
			return false
		}
	}
	return true
}

// cheapest gives the jobs whose leaving makes the rest fit with the least work lost.
func cheapest(capacity float64, demands []Demand, now, horizon float64) (move []string, lost float64, enough bool) {
	var movable, pinned []Demand
	for _, d := range demands {
		if d.Pinned {
			pinned = append(pinned, d)
		} else {
			movable = append(movable, d)
		}
	}
	slices.SortFunc(movable, byLoss)
	leaves := make([]bool, len(movable))
	try := func() bool {
		stay := slices.Clone(pinned)
		for i, d := range movable {
			if !leaves[i] {
				stay = append(stay, d)
			}
		}
		return fits(capacity, stay, now, horizon)
	}
	if len(movable) <= exactMost {
		enough = exact(movable, leaves, try)
	} else {
		enough = greedy(movable, leaves, now, horizon, try)
	}
	if !enough {
		return nil, 0, false
	}
	for i, d := range movable {
		if leaves[i] {
			move, lost = append(move, d.Job), lost+d.Lost
		}
	}
	return move, lost, true
}

// exact tries every set, cheapest kept; of equal cost the smaller, then the first found.
func exact(movable []Demand, leaves []bool, try func() bool) bool {
	best, cost, size := -1, math.Inf(1), 0
	for set := range 1 << len(movable) {
		c, n := 0.0, 0
		for i := range movable {
			leaves[i] = set>>i&1 == 1
			if leaves[i] {
				c, n = c+movable[i].Lost, n+1
			}
		}
		if (c < cost || c == cost && n < size) && try() {
			best, cost, size = set, c, n
		}
	}
	for i := range leaves {
		leaves[i] = best >= 0 && best>>i&1 == 1
	}
	return best >= 0
}

// greedy lets jobs go by work lost per amount freed at their peak, then takes back, the
// dearest first, those that need not have gone.
func greedy(movable []Demand, leaves []bool, now, horizon float64, try func() bool) bool {
	order := make([]int, len(movable))
	price := make([]float64, len(movable))
	for i, d := range movable {
		order[i] = i
		peak := max(d.Curve.Predict(max(now, d.From)-d.Start).Hi, d.Curve.Predict(min(d.Finish, horizon)-d.Start).Hi)
		price[i] = d.Lost / max(peak, math.SmallestNonzeroFloat64)
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case price[a] < price[b]:
			return -1
		case price[a] > price[b]:
			return 1
		}
		return a - b
	})
	enough := try()
	for _, i := range order {
		if enough {
			break
		}
		leaves[i] = true
		enough = try()
	}
	if !enough {
		return false
	}
	for i := len(movable) - 1; i >= 0; i-- { // movable is ordered by work lost
		if leaves[i] {
			leaves[i] = false
			leaves[i] = !try()
		}
	}
	return true
}
