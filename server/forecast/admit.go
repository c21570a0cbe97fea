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
	Finish float64 // predicted; +Inf when it does not end

	Lost   float64 // work lost if it is moved now (GPU-seconds since the last checkpoint, and the restart)
	Pinned bool    // it cannot be moved
}

// at is the demand at t; nothing before From and after Finish. At the finish itself it is
// still there: the peak of a growing job is its last moment.
func (d Demand) at(t float64) Interval {
	if t < d.From || t > d.Finish {
		return Interval{}
	}
	return d.Curve.Predict(t - d.Start)
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

// sum adds the demands at t under the risk.
func (r Risk) sum(demands []Demand, t float64) float64 {
	if r.Together <= 0 {
		total := 0.0
		for _, d := range demands {
			total += d.at(t).Hi
		}
		return total
	}
	parts := make([]Interval, len(demands))
	for i, d := range demands {
		parts[i] = d.at(t)
	}
	return ChanceSum(parts, r.Together)
}

// breakpoints are the moments in [now, horizon] at which the sum of demands can be largest:
// every arrival, every finish, and both ends. Between two of them the upper bounds of lines
// are convex, so that their sum is largest at an end; staircases only rise.
func breakpoints(demands []Demand, now, horizon float64) []float64 {
	points := []float64{now, horizon}
	for _, d := range demands {
		for _, t := range []float64{d.From, d.Finish} {
			if t > now && t < horizon {
				points = append(points, t)
			}
		}
	}
	slices.Sort(points)
	return slices.Compact(points)
}

// Refusal says when and by how much demands exceed a capacity.
type Refusal struct {
	At       float64 // seconds on the caller's clock
	Sum      float64 // at that time, under the risk asked for
	Capacity float64
}

// Admits says whether the candidate fits beside the running demands at every predicted
// finish from now to the horizon: admission by area (SCHEDULING.md C9). A job that grows
// into what another has left by then is let in, where the sum of the peaks would refuse it.
// When it does not fit, the first breakpoint at which it does not is told. Cost: the square
// of the number of demands, which are those of one node.
func Admits(capacity float64, running []Demand, candidate Demand, now, horizon float64, risk Risk) (bool, Refusal) {
	all := append(slices.Clone(running), candidate)
	for _, t := range breakpoints(all, now, horizon) {
		if t < candidate.From || t > candidate.Finish {
			continue // what happens without the candidate is not its fault
		}
		if sum := risk.sum(all, t); sum > capacity {
			return false, Refusal{At: t, Sum: sum, Capacity: capacity}
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
	points := breakpoints(demands, now, horizon)
	var out []Free
	for i, t := range points[:len(points)-1] {
		within := present(demands, t, points[i+1])
		sum := max(risk.sum(within, t), risk.sum(within, points[i+1]))
		out = append(out, Free{At: t, Amount: capacity - sum})
	}
	return out
}

// present are the demands that last from a to b.
func present(demands []Demand, a, b float64) []Demand {
	var out []Demand
	for _, d := range demands {
		if d.From <= a && d.Finish >= b {
			out = append(out, d)
		}
	}
	return out
}

// byLoss orders demands by work lost, then name.
func byLoss(a, b Demand) int { return cmp.Or(cmp.Compare(a.Lost, b.Lost), cmp.Compare(a.Job, b.Job)) }
