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
	stairsLeast = 4   // steps before they are a staircase
	stairSpread = 0.5 // of the time between steps, and of their height, against the mean
)

// stair remembers the last steps between phases. Disks grow like this: nothing between
// checkpoints, then one at a blow.
type stair struct {
	n      int
	at     [stairsKept]float64 // seconds
	height [stairsKept]float64
}

func (s *stair) step(at, height float64) {
	s.at[s.n%stairsKept], s.height[s.n%stairsKept] = at, height
	s.n++
}

// rhythm gives the mean time between the remembered steps and their mean and largest height.
func (s *stair) rhythm() (every, height, most float64, ok bool) {
	kept := min(s.n, stairsKept)
	if kept < stairsLeast {
		return 0, 0, 0, false
	}
	var times, heights spread
	for k := 0; k < kept; k++ {
		i := (s.n - kept + k) % stairsKept
		heights.add(s.height[i])
		most = max(most, math.Abs(s.height[i]))
		if k > 0 {
			times.add(s.at[i] - s.at[(i+stairsKept-1)%stairsKept])
		}
	}
	ok = times.relative() < stairSpread && heights.relative() < stairSpread
	return times.mean, heights.mean, most, ok
}

func (s *stair) regular() bool {
	_, _, _, ok := s.rhythm()
	return ok
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

// stairs predicts a staircase: the mean is its slope, the upper bound has every step taken
// that may have come by then, each as high as the highest, and the lower bound the opposite.
func (s *Series) stairs(t float64) Interval {
	every, height, most, _ := s.stair.rhythm()
	since := max(t-s.start, 0)
	now := s.level.interval()
	i := interval(s.level.mean+height*max(since/every-0.5, 0), max(s.level.sigma(), most/2))
	whole := math.Floor(since/every + stairEarly)
	if height > 0 {
		i.Lo, i.Hi = now.Lo, now.Hi+whole*most
	} else {
		i.Lo, i.Hi = max(now.Lo-whole*most, 0), now.Hi
	}
	i.Mean = max(min(i.Mean, i.Hi), i.Lo)
	return i
}

const stairEarly = 0.25 // of the time between steps: the next may come that much sooner
