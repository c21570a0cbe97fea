package forecast

import "math"

// Constants of the fit (SCHEDULING.md C9 and the texts named at each function).
const (
	forget        = 0.995 // weight that an older sample keeps per newer one: a memory of about 200 samples
	slopeVariance = 100.0 // of the first guess of the slope over the first gap, in units of the noise
	traceLeast    = 1e-4  // of the covariance: below, new samples would change nothing
	traceMost     = 2.0   // of the covariance against its first: above, it has wound up for want of new information
	huber         = 3.0   // residuals beyond so many standard deviations count as that many
	sureAfter     = 8     // samples before residuals are clipped: the noise is a guess until then
	quietShare    = 0.005 // of the level: noise below it is taken to be this, so that rounding is no event
)

// line is a straight line fitted by recursive least squares with exponential forgetting
// (Haykin, Adaptive Filter Theory, ch. 10). Its origin moves with the newest sample: level
// is the value there, so that the two regressors stay far from parallel however long a
// series grows. The zero value is empty.
type line struct {
	n             int
	x             float64 // of the newest sample: the origin
	level, slope  float64
	p11, p12, p22 float64 // covariance of level and slope in units of the noise
	first         float64 // variance of the slope's first guess
	noise         float64 // variance of a residual
	lag, last     float64 // of residuals: covariance with the one before, and that one
}

// observe adds a sample and gives its residual in standard deviations, before clipping.
func (l *line) observe(x, y float64) float64 {
	if l.n == 0 {
		*l = line{n: 1, x: x, level: y, p11: 1}
		return 0
	}
	if d := x - l.x; l.first == 0 && d != 0 { // whatever the unit of x
		l.first = slopeVariance / (d * d)
		l.p22 = l.first
	}
	l.shift(x)
	spread := 1 + l.p11
	e := y - l.level
	sigma := l.sigma() * math.Sqrt(spread)
	z := 0.0
	if l.n > 1 {
		z = e / sigma
	}
	if l.n >= sureAfter {
		e = max(min(e, huber*sigma), -huber*sigma)
	}
	l.learnNoise(e / math.Sqrt(spread))
	k1, k2 := l.p11/(forget+l.p11), l.p12/(forget+l.p11)
	l.level += k1 * e
	l.slope += k2 * e
	l.p22 = (l.p22 - k2*l.p12) / forget
	l.p12 = (l.p12 - k2*l.p11) / forget
	l.p11 = (l.p11 - k1*l.p11) / forget
	l.bound()
	l.n++
	return z
}

// shift moves the origin to x: the level follows the slope, the covariance follows both.
func (l *line) shift(x float64) {
	d := x - l.x
	l.x, l.level = x, l.level+l.slope*d
	l.p11 += 2*d*l.p12 + d*d*l.p22
	l.p12 += d * l.p22
}

// bound keeps the covariance alive and within reason, its shape unchanged.
func (l *line) bound() {
	l.p11, l.p22 = max(l.p11, 0), max(l.p22, 0) // rounding
	scale := 1.0
	if t, most := l.p11+l.p22, traceMost*(1+l.first); t > most {
		scale = most / t
	} else if t < traceLeast && t > 0 {
		scale = traceLeast / t
	}
	l.p11, l.p12, l.p22 = l.p11*scale, l.p12*scale, l.p22*scale
	if limit := math.Sqrt(l.p11 * l.p22); math.Abs(l.p12) > limit {
		l.p12 = math.Copysign(limit, l.p12)
	}
}

// learnNoise follows the variance of the residuals and how much each resembles the last.
func (l *line) learnNoise(e float64) {
	gain := max(1/float64(l.n), 2*(1-forget))
	l.noise += gain * (e*e - l.noise)
	l.lag += gain * (e*l.last - l.lag)
	l.last = e
}

// sigma is the standard deviation of the noise.
func (l *line) sigma() float64 {
	return max(math.Sqrt(l.noise), quietShare*math.Abs(l.level), math.SmallestNonzeroFloat32)
}

const likenessMost = 0.95 // of neighbouring residuals

// inflation is by how much the variance of the fit exceeds that of independent noise, for
// residuals that resemble their neighbours: (1+r)/(1-r) of a first-order process (Bartlett 1946).
func (l *line) inflation() float64 {
	if l.noise <= 0 {
		return 1
	}
	r := max(min(l.lag/l.noise, likenessMost), 0)
	return (1 + r) / (1 - r)
}

// slopeError is the standard error of the slope.
func (l *line) slopeError() float64 {
	return math.Sqrt(l.noise * l.p22 * l.inflation())
}

// at gives the mean at x and its standard deviation with that of the noise.
func (l *line) at(x float64) (mean, sigma float64) {
	d := x - l.x
	fit := max(l.p11+2*d*l.p12+d*d*l.p22, 0)
	return l.level + l.slope*d, math.Sqrt(l.sigma() * l.sigma() * (1 + fit*l.inflation()))
}
