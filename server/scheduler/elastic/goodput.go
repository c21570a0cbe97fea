package elastic

import "math"

// batchesTried is how many total batch sizes, in geometric steps, a search looks at.
const batchesTried = 50

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
	sync := p.Fit.sync(nodes, gpus)
	ratio := math.Log(float64(most) / float64(least))
	best, bestRate, ok := Split{}, 0.0, false
	last := Split{}
	for i := range batchesTried {
		total := float64(least) * math.Exp(ratio*float64(i)/(batchesTried-1))
		s, fits := Divide(int(math.Round(total)), gpus, lim)
		if !fits || s == last {
			continue
		}
		last = s
		grad := p.Fit.grad(float64(s.Local))
		seconds := float64(s.Accumulate)*grad + p.Fit.step(grad, sync)
		rate := noise.gain(float64(s.Batch(gpus)), float64(lim.BatchMin)) / max(seconds, tiny)
		if rate > bestRate {
			best, bestRate, ok = s, rate, true
		}
		if most == least {
			break
		}
	}
	return best, bestRate, ok
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
