package forecast

import "math"

const (
	priorsMost = 4096 // keys remembered; the one used longest ago goes
	priorPull  = 3.0  // jobs that the level above counts for: few jobs say little
)

// Key names jobs that are alike: whose, what they run (image or command), and their shape
// (for example "8xH100"). Fields may be empty.
type Key struct{ User, Program, Shape string }

// above is the next wider group: any shape, then any user, then all jobs.
func (k Key) above() (Key, bool) {
	switch {
	case k.Shape != "":
		k.Shape = ""
	case k.User != "":
		k.User = ""
	case k.Program != "":
		k.Program = ""
	default:
		return k, false
	}
	return k, true
}

// Priors remembers how the demand of finished jobs began and grew, per resource and key, for
// the cold start of the next. The zero value is ready. Not safe for several goroutines.
type Priors struct {
	groups map[priorKey]*group
	clock  uint64
}

type priorKey struct {
	key      Key
	resource Resource
}

type group struct {
	level, slope spread
	used         uint64
}

// Learn adds a finished job's fit. A slope that was not significant counts as none.
func (p *Priors) Learn(k Key, r Resource, s *Series) {
	if !s.Warm() {
		return
	}
	slope, start := 0.0, s.level.mean
	if s.sloped() {
		slope = s.fit.slope
		start = s.fit.level - slope*s.fit.x
	}
	if p.groups == nil {
		p.groups = map[priorKey]*group{}
	}
	for ok := true; ok; k, ok = k.above() {
		g := p.groups[priorKey{k, r}]
		if g == nil {
			p.evict()
			g = &group{}
			p.groups[priorKey{k, r}] = g
		}
		p.clock++
		g.used = p.clock
		g.level.add(max(start, 0))
		g.slope.add(slope)
	}
}

// evict makes room for one more group.
func (p *Priors) evict() {
	if len(p.groups) < priorsMost {
		return
	}
	var oldest priorKey
	least := uint64(math.MaxUint64)
	for k, g := range p.groups { // unordered: times of use are unique, so the least is one
		if g.used < least {
			oldest, least = k, g.used
		}
	}
	delete(p.groups, oldest)
}

// For gives the prior of a job: the mean of its group, pulled towards the next wider group
// by as much as that of three jobs (a hierarchical mean). request is the job's own, 0 none.
func (p *Priors) For(k Key, r Resource, request float64) Prior {
	var chain []*group
	for ok := true; ok; k, ok = k.above() {
		if g := p.groups[priorKey{k, r}]; g != nil {
			chain = append(chain, g)
		}
	}
	out := Prior{Request: request}
	for i := len(chain) - 1; i >= 0; i-- {
		g := chain[i]
		deviation := math.Sqrt(g.level.rest / g.level.n)
		if out.Jobs == 0 {
			out.Level, out.Slope, out.Spread = g.level.mean, g.slope.mean, deviation
		} else {
			weight := g.level.n / (g.level.n + priorPull)
			out.Level += weight * (g.level.mean - out.Level)
			out.Slope += weight * (g.slope.mean - out.Slope)
			out.Spread += weight * (deviation - out.Spread)
		}
		out.Jobs = int(g.level.n)
	}
	return out
}
