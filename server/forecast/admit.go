package forecast

import (
	"cmp"
	"math"
	"slices"
)

// Curve is a demand over the seconds since its job's start. Series are curves; so are Flat
// and Growing.
type Curve interface {
	Predict(t float64) Interval
}

// Flat is a demand that does not change and is known for certain: a static request.
type Flat float64

// Predict gives the constant.
func (f Flat) Predict(float64) Interval {
	return Interval{Mean: float64(f), Lo: float64(f), Hi: float64(f)}
}

// Growing is a straight line with a constant spread.
type Growing struct {
	Intercept, Slope float64 // value at the start, and per second
	Sigma            float64
}

// Predict gives the line at t with its interval.
func (g Growing) Predict(t float64) Interval { return interval(g.Intercept+g.Slope*t, g.Sigma) }

// Demand is one job's demand for one resource of one node. Times are seconds on the caller's
// clock.
type Demand struct {
	Job    string
	Curve  Curve
	Start  float64 // of the job: its curve's zero
	From   float64 // from which it is on the node; earlier it takes nothing. 0: already
	Finish float64 // predicted; +Inf when it does not end. A job that outlives it needs a later one: it counts as gone

	Lost   float64 // work lost if it is moved now (GPU-seconds since the last checkpoint, and the restart)
	Pinned bool    // it cannot be moved
}

// Risk says which sum of several demands must fit.
type Risk struct {
	// Together is the quantile (in standard deviations) that the sum of independent demands
	// may reach: mean + z * sqrt(sum of variances). Zero: every demand reaches its own upper
	// bound at once.
	Together float64
}

// ChanceSum is the sum that independent demands stay below with the certainty of z standard
// deviations: the sum of means plus z times the root of the sum of variances. Demands of
// one data set or one user rise together; for those take the sum of the upper bounds.
func ChanceSum(parts []Interval, z float64) float64 {
	mean, variance := 0.0, 0.0
	for _, p := range parts {
		mean += p.Mean
		variance += p.Sigma * p.Sigma
	}
	return mean + z*math.Sqrt(variance)
}

// over adds the largest of each demand in a stretch throughout which all last. The bounds of
// a line are convex and those of a staircase only rise, so that each is largest at an end;
// the sum of the largest is never less than the largest sum.
func (r Risk) over(demands []Demand, st stretch) float64 {
	total, parts := 0.0, make([]Interval, 0, len(demands))
	for _, d := range demands {
		i, j := d.Curve.Predict(st.from-d.Start), d.Curve.Predict(st.to-d.Start)
		i = Interval{Mean: max(i.Mean, j.Mean), Hi: max(i.Hi, j.Hi), Sigma: max(i.Sigma, j.Sigma)}
		total += i.Hi
		parts = append(parts, i)
	}
	if r.Together > 0 {
		return ChanceSum(parts, r.Together)
	}
	return total
}

// stretch is a time within which no demand comes or goes.
type stretch struct{ from, to float64 }

// lasts says whether the demand is there throughout a stretch between breakpoints.
func (d Demand) lasts(st stretch) bool { return d.From <= st.from && d.Finish >= st.to }

// stretches divides [now, horizon] at every arrival and finish; it gives at least one.
func stretches(demands []Demand, now, horizon float64) []stretch {
	horizon = max(horizon, now)
	points := []float64{now, horizon}
	for _, d := range demands {
		for _, t := range []float64{d.From, d.Finish} {
			if t > now && t < horizon {
				points = append(points, t)
			}
		}
	}
	slices.Sort(points)
	points = slices.Compact(points)
	if len(points) == 1 {
		return []stretch{{now, now}}
	}
	out := make([]stretch, len(points)-1)
	for i := range out {
		out[i] = stretch{points[i], points[i+1]}
	}
	return out
}

// Refusal says when and by how much demands exceed a capacity.
type Refusal struct {
	At       float64 // seconds on the caller's clock: the end of the first stretch that is too full
	Sum      float64 // in that stretch, under the risk asked for
	Capacity float64
}

// Admits says whether the candidate fits beside the running demands from one predicted
// finish to the next, up to the horizon: admission by area (SCHEDULING.md C9). A job that
// grows into what another has left by then is let in, where the sum of the peaks would
// refuse it. When it does not fit, the first stretch in which it does not is told. Cost: the
// square of the number of demands, which are those of one node.
func Admits(capacity float64, running []Demand, candidate Demand, now, horizon float64, risk Risk) (bool, Refusal) {
	all := append(slices.Clone(running), candidate)
	for _, st := range stretches(all, now, horizon) {
		if !candidate.lasts(st) {
			continue // what happens without the candidate is not its fault
		}
		if sum := risk.over(present(all, st), st); sum > capacity {
			return false, Refusal{At: st.to, Sum: sum, Capacity: capacity}
		}
	}
	return true, Refusal{Capacity: capacity}
}

// Free is what a node has left at a moment.
type Free struct {
	At     float64 // seconds on the caller's clock; holds until the next
	Amount float64 // least until the next moment; below zero where the demands exceed the capacity
}

// Profile gives what is free from each breakpoint to the next, up to the horizon: the holes
// that backfill may use. A growing job makes them smaller as it goes.
func Profile(capacity float64, demands []Demand, now, horizon float64, risk Risk) []Free {
	var out []Free
	for _, st := range stretches(demands, now, horizon) {
		out = append(out, Free{At: st.from, Amount: capacity - risk.over(present(demands, st), st)})
	}
	return out
}

// present are the demands that last for a stretch.
func present(demands []Demand, st stretch) []Demand {
	var out []Demand
	for _, d := range demands {
		if d.lasts(st) {
			out = append(out, d)
		}
	}
	return out
}

// byLoss orders demands by work lost, then name.
func byLoss(a, b Demand) int { return cmp.Or(cmp.Compare(a.Lost, b.Lost), cmp.Compare(a.Job, b.Job)) }
