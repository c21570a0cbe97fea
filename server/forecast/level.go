package forecast

import "math"

// level follows a value that does not grow: its mean, its spread and its recent values.
type level struct {
	n        int
	mean     float64
	variance float64
	most     float64 // of all values of the phase
}

func (l *level) observe(v float64) {
	l.n++
	gain := max(1/float64(l.n), 1-forget)
	e := v - l.mean
	l.mean += gain * e
	if l.n > 1 {
		l.variance += gain * (e*e*(1-gain) - l.variance)
	}
	l.most = max(l.most, v)
}

func (l *level) sigma() float64 {
	return max(math.Sqrt(l.variance), quietShare*l.mean)
}

func (l *level) interval() Interval { return interval(l.mean, l.sigma()) }

const (
	stairsKept  = 8
	stairsLeast = 4    // steps before they are a staircase
	stairSpread = 0.5  // of the time between steps, and of their height, against the mean
	stairCeased = 2    // times the usual time without a step: none is to come
	stairEarly  = 0.25 // of the time between steps: the next may come that much sooner
)

// stair remembers the last steps between phases. Disks grow like this: nothing between
// checkpoints, then one at a blow.
type stair struct {
	n      int
	every  float64             // seconds between steps, the first counted from the first sample
	most   float64             // highest of the remembered steps upward
	at     [stairsKept]float64 // seconds
	height [stairsKept]float64
	even   bool // the remembered steps are alike in time and height
	rise   float64
}

// step takes in a step; begin is the time of the series' first sample.
func (s *stair) step(at, height, begin float64) {
	s.at[s.n%stairsKept], s.height[s.n%stairsKept] = at, height
	s.n++
	kept := min(s.n, stairsKept)
	var times, heights spread
	s.most = 0
	for k := range kept {
		i := (s.n - kept + k) % stairsKept
		heights.add(s.height[i])
		s.most = max(s.most, s.height[i])
		if k > 0 {
			times.add(s.at[i] - s.at[(i+stairsKept-1)%stairsKept])
		}
	}
	s.even = kept >= stairsLeast && times.relative() < stairSpread && heights.relative() < stairSpread
	s.every, s.rise = times.mean, heights.mean
	if kept < stairsLeast {
		s.every = (at - begin) / float64(s.n)
	}
}

// ahead is how much may have been stepped up so many seconds after the last step, of which
// so many have been seen: steps as high as the highest, as often as they came so far. Zero
// before the first, and when twice the usual time has gone by without one: they have ceased.
func (s *stair) ahead(since, seen float64) float64 {
	if s.n == 0 || s.every <= 0 || seen > stairCeased*s.every {
		return 0
	}
	return s.most * math.Floor(min(since/s.every, 1+(since-seen)/s.every)+stairEarly)
}

// spread is a running mean and variance (Welford, Technometrics 1962).
type spread struct {
	n          float64
	mean, rest float64
}

func (s *spread) add(v float64) {
	s.n++
	d := v - s.mean
	s.mean += d / s.n
	s.rest += d * (v - s.mean)
}

// relative is the standard deviation over the mean; infinite where the mean is zero.
func (s *spread) relative() float64 {
	if s.mean == 0 {
		return math.Inf(1)
	}
	return math.Sqrt(s.rest/s.n) / math.Abs(s.mean)
}

// stairs predicts a staircase: the mean takes each step when it is due, the bounds a quarter
// of the usual time sooner and later; the upper one as high as the highest.
func (s *Series) stairs(t float64) Interval {
	since := max(t-s.start, 0)
	i := s.level.interval()
	due := math.Floor(since / s.stair.every)
	early, late := math.Floor(since/s.stair.every+stairEarly), max(math.Floor(since/s.stair.every-stairEarly), 0)
	i.Mean += s.stair.rise * due
	i.Sigma = max(i.Sigma, math.Abs(s.stair.rise)/2)
	if s.stair.rise < 0 {
		early, late = late, early
	}
	i.Hi += max(s.stair.most, s.stair.rise) * early
	i.Lo += s.stair.rise * late
	i.Mean, i.Lo = max(i.Mean, 0), max(i.Lo, 0)
	i.Hi = max(i.Hi, i.Mean)
	i.Lo = min(i.Lo, i.Mean)
	return i
}

// climbing says whether the changes of phase are a staircase that has not ceased.
func (s *Series) climbing() bool {
	return s.count > 0 && s.stair.even && s.now()-s.start <= stairCeased*s.stair.every
}
