package elastic

import "math"

// How many total batch sizes, in geometric steps, a search chooses from.
const (
	batchesTried = 50
	batchStride  = 7 // between those looked at first; divides batchesTried-1
)

// Split is how one step takes its batch: GPUs x Local x (Accumulate+1) samples.
type Split struct {
	Local      int // samples on each GPU at a time
	Accumulate int // passes without synchronisation before the one with it
}

// Batch gives the total batch on so many GPUs, samples.
func (s Split) Batch(gpus int) int { return gpus * s.Local * (s.Accumulate + 1) }

// known reports whether the noise can be reckoned with: estimates can come out negative.
func (n Noise) known() bool { return n.Var >= 0 && n.Sqr >= 0 && n.Var+n.Sqr > 0 }

// gain is the progress of a step with this batch, in steps at the initial batch: statistical
// efficiency times size (Pollux, OSDI'21, section 3.1).
func (n Noise) gain(batch, initial float64) float64 {
	scale := batch / initial
	if !n.known() {
		return 1
	}
	return (n.Var + n.Sqr) / (n.Var/scale + n.Sqr)
}

// Best gives the split with the highest predicted goodput on a placement and that goodput in
// steps at the initial batch per second. ok is false where no split fits the limits. A job
// whose noise is unknown keeps the smallest batch that the GPUs can divide.
func Best(p *Profile, noise Noise, lim Limits, nodes, gpus int) (Split, float64, bool) {
	least := max(lim.BatchMin, lim.LocalMin*gpus)
	most := lim.BatchMax
	if least > most {
		return Split{}, 0, false
	}
	if !noise.known() || len(p.Seen) == 0 {
		most = least
	}
	t := trial{profile: p, noise: noise, lim: lim, gpus: gpus, sync: p.Fit.sync(nodes, gpus), slower: p.slower(nodes, gpus)}
	if least == most {
		t.try(least)
		return t.best, t.rate, t.rate > 0
	}
	// Goodput rises to one crest and falls, but for the small steps where a pass is added:
	// look at every seventh size, then around the best of them.
	ratio := math.Log(float64(most)/float64(least)) / (batchesTried - 1)
	size := func(i int) int { return int(math.Round(float64(least) * math.Exp(ratio*float64(i)))) }
	crest := 0
	for i := 0; i < batchesTried; i += batchStride {
		if t.try(size(i)) {
			crest = i
		}
	}
	for i := max(0, crest-batchStride+1); i < min(batchesTried, crest+batchStride); i++ {
		if i != crest {
			t.try(size(i))
		}
	}
	return t.best, t.rate, t.rate > 0
}

// trial is one search for the best batch on one placement.
type trial struct {
	profile *Profile
	noise   Noise
	lim     Limits
	gpus    int
	sync    float64 // s
	slower  float64 // than the fit, where this placement was measured
	last    Split
	best    Split
	rate    float64
}

// try looks at one total batch and tells whether it is the best so far.
func (t *trial) try(total int) bool {
	s, fits := Divide(total, t.gpus, t.lim)
	if !fits || s == t.last {
		return false
	}
	t.last = s
	grad := t.profile.Fit.grad(float64(s.Local))
	seconds := float64(float64(s.Accumulate)*grad) + float64(t.slower*t.profile.Fit.step(grad, t.sync))
	rate := t.noise.gain(float64(s.Batch(t.gpus)), float64(t.lim.BatchMin)) / max(seconds, tiny)
	if !(rate > t.rate) {
		return false
	}
	t.best, t.rate = s, rate
	return true
}

// Divide splits a total batch over GPUs, accumulating where it exceeds what they hold at a
// time. One GPU that takes more than the initial batch accumulates at least once, as the
// noise is measured between passes.
func Divide(total, gpus int, lim Limits) (Split, bool) {
	local := (total + gpus - 1) / gpus
	acc := (local+lim.LocalMax-1)/lim.LocalMax - 1
	if gpus == 1 && total > lim.BatchMin {
		acc = max(acc, 1)
	}
	s := Split{Local: min((local+acc)/(acc+1), lim.BatchMax/(gpus*(acc+1))), Accumulate: acc}
	return s, s.Local >= lim.LocalMin && s.Local <= lim.LocalMax
}
