package forecast

import "math"

const (
	batchMost = 100_000 // jobs of one pass
	workScale = 1000.0  // work is fitted in thousands, so that slopes are of the values' order
)

// Work is the fit R = R0 + g*W of the time of a pass (seconds) against its work W (jobs
// looked at). The zero value is ready. Unlike a Series it has no phases: work comes in any
// order.
type Work struct {
	fit       line
	most      float64 // largest work seen
	low, high float64 // range of the work seen
}

// Observe adds a pass of so much work that took so many seconds. What is not a finite number
// of at least zero is left out.
func (w *Work) Observe(work, seconds float64) {
	if !(work >= 0) || !(seconds >= 0) || math.IsInf(work, 0) || math.IsInf(seconds, 0) {
		return
	}
	if w.fit.n == 0 {
		w.low, w.high = work, work
	}
	w.low, w.high = min(w.low, work), max(w.high, work)
	w.most = max(w.most, work)
	w.fit.observe(work/workScale, seconds)
}

// Predict gives the time of a pass of so much work, in seconds.
func (w *Work) Predict(work float64) Interval {
	if w.fit.n == 0 {
		return Interval{}
	}
	mean, sigma := w.fit.at(work / workScale)
	return interval(mean, sigma)
}

// Line gives R0 (seconds) and g (seconds per unit of work).
func (w *Work) Line() Fit {
	f := Fit{Samples: w.fit.n, Sigma: math.Sqrt(w.fit.noise)}
	if w.fit.n > 0 {
		f.Slope, f.SlopeError = w.fit.slope/workScale, w.fit.slopeError()/workScale
		f.Intercept = w.fit.level - w.fit.slope*w.fit.x
	}
	return f
}

// Significant says whether more work takes longer beyond doubt.
func (w *Work) Significant() bool {
	return w.fit.n >= coldSamples && w.high > w.low && w.fit.slope > sureSigmas*w.fit.slopeError() && w.fit.slope > 0
}

// Batch gives how many jobs one pass may look at so that its upper bound stays within target
// seconds: at least 1, at most most. Until the slope is significant there is nothing to size
// by: then it gives most.
func Batch(w *Work, target float64, most int) int {
	most = max(1, min(most, batchMost))
	if !w.Significant() || w.Predict(float64(most)).Hi <= target {
		return most
	}
	lo, hi := 1, most // the bound grows with work: bisect
	for lo < hi {
		mid := lo + (hi-lo+1)/2
		if w.Predict(float64(mid)).Hi <= target {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	return lo
}
