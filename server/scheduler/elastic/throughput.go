package elastic

import "math"

// Bounds of the fit.
const (
	observationsMax = 48   // configurations a profile keeps; beyond it the oldest goes
	gammaMax        = 10.0 // overlap of computing and synchronising: 1 none, 10 full
	tiny            = 1e-9 // s; stands for no time at all
	firstAcross     = 1.1  // a link between nodes is taken to be slower than one inside by at least this, until seen
)

// Observation is what a job measured of its steps in one configuration.
type Observation struct {
	Nodes int     `json:"nodes"`
	GPUs  int     `json:"gpus"`
	Local int     `json:"local"` // samples on each GPU at a time
	StepS float64 `json:"step"`  // one forward and backward pass and the synchronisation, s
	SyncS float64 `json:"sync"`  // of this the synchronisation; below 0: not measured
	Count int     `json:"count"` // measurements averaged
}

// Throughput is the model of a step's time (Pollux, OSDI'21, section 3.2):
//
//	Tgrad = GradBase + GradSample*local
//	Tsync = 0 on one GPU, SyncBase + SyncMore*(GPUs-2) on one node, the same with Across on several
//	Tstep = (Tgrad^Gamma + Tsync^Gamma)^(1/Gamma)
type Throughput struct {
	GradBase   float64 `json:"grad_base"`   // s
	GradSample float64 `json:"grad_sample"` // s per sample
	SyncBase   float64 `json:"sync_base"`   // s
	SyncMore   float64 `json:"sync_more"`   // s per GPU beyond the second
	AcrossBase float64 `json:"across_base"` // s
	AcrossMore float64 `json:"across_more"` // s per GPU beyond the second
	Gamma      float64 `json:"gamma"`
}

// grad gives Tgrad, s.
func (t *Throughput) grad(local float64) float64 { return t.GradBase + t.GradSample*local }

// sync gives Tsync, s.
func (t *Throughput) sync(nodes, gpus int) float64 {
	switch {
	case gpus <= 1:
		return 0
	case nodes <= 1:
		return t.SyncBase + t.SyncMore*float64(gpus-2)
	}
	return t.AcrossBase + t.AcrossMore*float64(gpus-2)
}

// step gives Tstep, s, from Tgrad and Tsync.
func (t *Throughput) step(grad, sync float64) float64 {
	if sync <= tiny {
		return grad
	}
	if t.Gamma <= 1 {
		return grad + sync
	}
	lo, hi := min(grad, sync), max(grad, sync)
	return hi * math.Exp(math.Log(1+math.Exp(t.Gamma*math.Log(lo/hi)))/t.Gamma)
}

// Profile is what is known of a job's speed: a plain value that its keeper may store.
type Profile struct {
	Seen []Observation `json:"seen"`
	Fit  Throughput    `json:"fit"`
}

// Observe gives the profile with one measurement more. A configuration that was seen before
// takes the mean of its measurements and the fit stays unless the mean has moved by 2 %. What
// cannot be a measurement is left out.
func (p Profile) Observe(o Observation) Profile {
	if !o.valid() {
		return p
	}
	o.Count = max(1, o.Count)
	seen := make([]Observation, 0, len(p.Seen)+1)
	refit := true
	for _, s := range p.Seen {
		if s.Nodes == o.Nodes && s.GPUs == o.GPUs && s.Local == o.Local {
			n := float64(s.Count + 1)
			merged := o
			merged.StepS = s.StepS + (o.StepS-s.StepS)/n
			if s.SyncS >= 0 && o.SyncS >= 0 {
				merged.SyncS = s.SyncS + (o.SyncS-s.SyncS)/n
			}
			merged.Count = min(s.Count+1, countMax)
			refit = math.Abs(merged.StepS-s.StepS) > refitChange*s.StepS
			o = merged
			continue
		}
		seen = append(seen, s)
	}
	seen = append(seen, o)
	if len(seen) > observationsMax {
		seen = seen[len(seen)-observationsMax:]
	}
	p.Seen = seen
	if refit {
		p.Fit = fit(seen, p.Fit)
	}
	return p
}

// stepMax bounds what is taken for the time of a step, s.
const stepMax = 1e6

func (o *Observation) valid() bool {
	return o.Nodes >= 1 && o.GPUs >= o.Nodes && o.Local >= 1 && o.StepS > tiny && o.StepS < stepMax && o.SyncS < o.StepS
}

// How measurements of one configuration are averaged.
const (
	countMax    = 50   // so that the mean still follows a drift
	refitChange = 0.02 // relative move of a mean that calls for a new fit
)

// slower gives by how much steps on this many GPUs and nodes took longer than the fit says,
// the geometric mean over what was measured there; 1 where nothing was.
func (p *Profile) slower(nodes, gpus int) float64 {
	sum, n := 0.0, 0.0
	for i := range p.Seen {
		if o := &p.Seen[i]; o.Nodes == nodes && o.GPUs == gpus {
			sum += math.Log(o.StepS / max(p.Fit.step(p.Fit.grad(float64(o.Local)), p.Fit.sync(nodes, gpus)), tiny))
			n++
		}
	}
	if n == 0 {
		return 1
	}
	return math.Exp(sum / n)
}
