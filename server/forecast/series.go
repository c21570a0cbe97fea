package forecast

import "math"

const (
	coldSamples  = 30   // of a phase, before its own fit is trusted
	secondsHour  = 3600 // times are fitted in hours: slopes per hour are of the values' order
	sureSigmas   = 3    // standard errors that a slope must exceed to count
	likelySigmas = 1    // standard errors of a slope that the upper bound minds
	coldMargin   = 0.2  // of the value, above it, when nothing else is known

	driftSlack = 0.75 // standard deviations that a residual may have for nothing
	driftAlarm = 10.0 // accumulated excess that means a change of phase
	driftMost  = 4.0  // what one residual can add: no single outlier changes the phase
	replayMost = 16   // samples kept to begin a new phase with
)

// Prior is what is known of a resource before the job has shown it: from like jobs (see
// Priors) and from its request. Zero fields are unknown.
type Prior struct {
	Level   float64 // at the job's start
	Slope   float64 // per hour
	Spread  float64 // standard deviation of the level among like jobs
	Jobs    int     // how many jobs Level and Slope come from; 0: none
	Request float64 // what the job asked for: the upper bound until the fit is warm
}

// Series is the fit of one resource of one job. The zero value is ready; New gives it a
// prior. It is a value: a copy is independent. Not safe for use by several goroutines.
type Series struct {
	prior  Prior
	fit    line
	phase  int     // changes of phase so far
	begin  float64 // of the series, seconds
	start  float64 // of the phase, seconds
	up     drift
	down   drift
	buffer [replayMost]sample
	count  int // samples of all phases
	level  level
	stair  stair
}

type sample struct{ t, v float64 }

// drift is one side of a CUSUM test (Page, Biometrika 1954) on standardised residuals.
type drift struct {
	sum float64
	run int // samples since the sum left zero: the change began there
}

func (d *drift) add(z float64) bool {
	d.sum = max(0, d.sum+min(z, driftMost)-driftSlack)
	d.run++
	if d.sum == 0 {
		d.run = 0
	}
	return d.sum > driftAlarm
}

// New gives an empty series with a prior.
func New(p Prior) Series { return Series{prior: p} }

// Observe adds the value at t seconds. Samples come in the order of time; one that is not
// later than the last, or is not a finite number of at least zero, is left out.
func (s *Series) Observe(t, v float64) {
	if !(v >= 0) || math.IsInf(v, 0) || math.IsNaN(t) || math.IsInf(t, 0) || (s.count > 0 && t <= s.now()) {
		return
	}
	s.buffer[s.count%replayMost] = sample{t, v}
	s.count++
	if s.fit.n == 0 {
		s.begin, s.start = t, t
	}
	z := s.learn(t, v)
	if s.fit.n <= sureAfter {
		return
	}
	z /= math.Sqrt(s.fit.inflation())
	switch rose, fell := s.up.add(z), s.down.add(-z); {
	case rose:
		s.turn(s.up.run)
	case fell:
		s.turn(s.down.run)
	}
}

func (s *Series) learn(t, v float64) float64 {
	s.level.observe(v)
	return s.fit.observe(t/secondsHour, v)
}

// turn begins a new phase with the last run samples.
func (s *Series) turn(run int) {
	run = min(run, replayMost, s.count)
	before := s.fit
	s.fit, s.level, s.up, s.down = line{}, level{}, drift{}, drift{}
	s.phase++
	for k := run; k > 0; k-- {
		p := s.buffer[(s.count-k)%replayMost]
		if k == run {
			s.start = p.t
		}
		s.learn(p.t, p.v)
	}
	old := before.level + before.slope*(s.start/secondsHour-before.x)
	s.stair.step(s.start, s.level.mean-old, s.begin)
}

// now is the time of the newest sample in seconds.
func (s *Series) now() float64 { return s.buffer[(s.count-1)%replayMost].t }

// Fit is the line of the current phase, in the caller's terms.
type Fit struct {
	Intercept  float64 // value at T = 0 by the line: C0, D0 or R0
	Slope      float64 // per second: a, b or g
	SlopeError float64 // standard error of the slope
	Sigma      float64 // standard deviation of the samples about the line
	Samples    int     // of the phase
	Rise       float64 // of a regular staircase: height of a step; 0: it is none
	Every      float64 // of a regular staircase: seconds between steps
}

// Line gives the fitted line of the phase, whether or not its slope is significant; of a
// regular staircase the line through the beginnings of its steps.
func (s *Series) Line() Fit {
	f := Fit{Sigma: math.Sqrt(s.fit.noise), Samples: s.fit.n}
	if s.fit.n > 0 {
		f.Slope, f.SlopeError = s.fit.slope/secondsHour, s.fit.slopeError()/secondsHour
		f.Intercept = s.fit.level - s.fit.slope*s.fit.x
	}
	if s.climbing() {
		f.Rise, f.Every = s.stair.rise, s.stair.every
		f.Slope = f.Rise / f.Every
		f.Intercept = s.level.mean - f.Slope*s.start
	}
	return f
}

// Phase says in which phase the series is: how many changes came before, when it began
// (seconds), and how many samples it has.
func (s *Series) Phase() (changes int, start float64, samples int) { return s.phase, s.start, s.fit.n }

// Samples is the number of samples taken in, over all phases.
func (s *Series) Samples() int { return s.count }

// Warm says whether the phase has samples enough for its own fit to be used.
func (s *Series) Warm() bool { return s.fit.n >= coldSamples }

// Significant says whether the demand grows or shrinks beyond doubt: the phase is warm and
// its slope exceeds three standard errors, corrected for residuals that resemble their
// neighbours; or the changes of phase are a regular staircase.
func (s *Series) Significant() bool {
	return s.sloped() || s.climbing()
}

func (s *Series) sloped() bool {
	return s.Warm() && math.Abs(s.fit.slope) > sureSigmas*s.fit.slopeError() &&
		math.Abs(s.fit.slope)*(s.fit.x-s.start/secondsHour) > quietShare*math.Abs(s.fit.level)
}

// Predict gives the demand at t seconds. Before the phase is warm the prior speaks, and the
// request is the upper bound; after that the line where its slope is significant, and
// otherwise the level.
func (s *Series) Predict(t float64) Interval {
	switch {
	case s.climbing():
		return s.stairs(t)
	case !s.Warm():
		return s.cold(t)
	case s.sloped():
		mean, sigma := s.fit.at(t / secondsHour)
		return interval(mean, sigma)
	}
	return s.flat(t)
}

// flat predicts the level. The upper bound goes with a slope that is likely though not sure,
// and has the steps taken that may come as often as they did.
func (s *Series) flat(t float64) Interval {
	i := s.level.interval()
	if ahead := t/secondsHour - s.fit.x; ahead > 0 && s.fit.slope > likelySigmas*s.fit.slopeError() {
		i.Hi += s.fit.slope * ahead
	}
	i.Hi += s.stair.ahead(t-s.start, s.now()-s.start)
	return i
}

// cold predicts from the prior, moved to pass through what has been seen.
func (s *Series) cold(t float64) Interval {
	mean, slope := s.prior.Level, 0.0
	if s.prior.Jobs > 0 {
		slope = s.prior.Slope
	}
	from := 0.0
	if s.count > 0 {
		mean, from = s.level.mean, s.now()
	}
	mean += slope * (t - from) / secondsHour
	i := interval(mean, max(s.prior.Spread, s.level.sigma(), coldMargin/quantile99*mean))
	i.Hi = max(i.Hi, s.level.most*(1+quietShare))
	if s.prior.Request > 0 {
		i.Hi = max(s.prior.Request, s.level.most)
		i.Mean, i.Lo = min(i.Mean, i.Hi), min(i.Lo, i.Hi)
	}
	return i
}
