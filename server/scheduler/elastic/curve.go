package elastic

// Curve is a job's predicted speed by size, for nodes of one capacity.
type Curve struct {
	Sizes []Size // ascending
	Fresh bool   // nothing was measured yet: the speeds mean nothing
}

// Size is one number of GPUs that a job may have.
type Size struct {
	GPUs  int
	Nodes int
	Speed float64 // steps at the initial batch per second
	Split Split
}

// sizesMax bounds a curve.
const sizesMax = 64

// Sizes gives the numbers of GPUs worth considering on so many nodes of per GPUs each: every
// number that one node holds, and whole nodes above it, so that jobs on several nodes share
// no node and small ones cross none.
func Sizes(per, nodes int, lim Limits) []int {
	var out []int
	most := per * nodes
	if lim.GPUsMax > 0 {
		most = min(most, lim.GPUsMax)
	}
	for k := 1; k <= most && len(out) < sizesMax; k++ {
		if k >= lim.GPUsMin && (k <= per || k%per == 0) {
			out = append(out, k)
		}
	}
	return out
}

// NewCurve computes the speed of every size that a job with this profile may have.
func NewCurve(p *Profile, noise Noise, lim Limits, per, nodes int) *Curve {
	c := &Curve{Fresh: len(p.Seen) == 0}
	for _, k := range Sizes(per, nodes, lim) {
		n := (k + per - 1) / per
		split, speed, ok := Best(p, noise, lim, n, k)
		if !ok {
			continue
		}
		c.Sizes = append(c.Sizes, Size{GPUs: k, Nodes: n, Speed: speed, Split: split})
	}
	return c
}

// at gives the size with so many GPUs.
func (c *Curve) at(gpus int) *Size {
	for i := range c.Sizes {
		if c.Sizes[i].GPUs == gpus {
			return &c.Sizes[i]
		}
	}
	return nil
}
