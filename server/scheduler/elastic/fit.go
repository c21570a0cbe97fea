package elastic

import "math"

// The fit minimises squared errors of log(Tgrad) and log(Tstep), as relative errors are what
// decisions depend on, plus small priors that decide what measurements leave open: half of an
// unexplained Tgrad is per sample, synchronisation does not grow with GPUs, no overlap.
// Gauss-Newton with Levenberg's damping on the logarithms of the parameters, so that all
// stay positive.
const (
	fitRounds    = 40    // Gauss-Newton steps
	fitDone      = 1e-10 // relative gain below which it ends
	fitDampMax   = 1e8
	priorHalf    = 0.03 // weight of "half of Tgrad is per sample"
	priorGrowth  = 0.1  // weight of SyncMore/SyncBase, and the same across nodes
	priorOverlap = 0.03 // weight of Gamma-1
	logStepMax   = 2.0  // largest change of a parameter's logarithm in one step
)

// Indices of the parameters in the vector of logarithms.
const (
	iGradBase = iota
	iGradSample
	iSyncBase
	iSyncMore
	iAcrossBase
	iAcrossMore
	iGamma
	params
)

type vector [params]float64

// problem is one fit: the measurements and which parameters they say anything about.
type problem struct {
	seen   []Observation
	active [params]bool
	local  float64 // mean local batch, where the prior on Tgrad holds
}

// fit gives the model that explains the measurements best, starting from a former one.
func fit(seen []Observation, start Throughput) Throughput {
	p := problem{seen: seen}
	p.active[iGradBase], p.active[iGradSample] = true, true
	grad, sync, syncs := 0.0, 0.0, 0
	for _, o := range seen {
		p.local += float64(max(1, o.Local)) / float64(len(seen))
		grad += (o.StepS - max(0, o.SyncS)) / float64(len(seen))
		if o.GPUs < 2 {
			continue
		}
		p.active[iGamma] = true
		sync += max(o.SyncS, 0.1*o.StepS)
		syncs++
		base, more := iSyncBase, iSyncMore
		if o.Nodes > 1 {
			base, more = iAcrossBase, iAcrossMore
		}
		p.active[base] = true
		p.active[more] = p.active[more] || o.GPUs > 2
	}
	x := p.start(start, max(grad, tiny), max(sync/float64(max(1, syncs)), tiny))
	return p.finish(p.solve(x))
}

// start gives the point to begin from: the former fit, or a guess from the means.
func (p *problem) start(former Throughput, grad, sync float64) vector {
	guess := Throughput{GradBase: grad / 2, GradSample: grad / 2 / p.local, SyncBase: sync, SyncMore: sync / 30,
		AcrossBase: sync, AcrossMore: sync / 30, Gamma: 1.2}
	from, other := values(former), values(guess)
	var x vector
	for i := range x {
		v := other[i]
		if former.Gamma >= 1 && from[i] > 10*tiny && i != iGamma {
			v = from[i]
		}
		x[i] = math.Log(max(v, tiny))
	}
	return x
}

func values(t Throughput) vector {
	return vector{t.GradBase, t.GradSample, t.SyncBase, t.SyncMore, t.AcrossBase, t.AcrossMore, t.Gamma}
}

func (p *problem) model(x vector) Throughput {
	var v vector
	for i := range v {
		if p.active[i] {
			v[i] = math.Exp(x[i])
		}
	}
	t := Throughput{v[0], v[1], v[2], v[3], v[4], v[5], 1}
	if p.active[iGamma] {
		t.Gamma = min(max(v[iGamma], 1), gammaMax)
	}
	return t
}

// finish fills in what was never seen: links between nodes are no faster than those inside.
func (p *problem) finish(x vector) Throughput {
	t := p.model(x)
	if !p.active[iAcrossBase] {
		t.AcrossBase = firstAcross * t.SyncBase
		t.AcrossMore = firstAcross * t.SyncMore
	}
	return t
}

// normal is the sum of squared residuals with its gradient and Gauss-Newton matrix.
type normal struct {
	cost float64
	b    vector
	a    [params]vector
}

func (n *normal) add(residual float64, d *vector) {
	n.cost += residual * residual
	for i, di := range d {
		if di == 0 {
			continue
		}
		n.b[i] -= di * residual
		for k, dk := range d {
			n.a[i][k] += di * dk
		}
	}
}

// equations sums the residuals of all measurements and priors at x.
func (p *problem) equations(x vector) *normal {
	t := p.model(x)
	n := &normal{}
	for i := range p.seen {
		p.residuals(n, &t, &p.seen[i])
	}
	var d vector
	half := float64(t.GradSample * p.local)
	d[iGradBase], d[iGradSample] = priorHalf, -priorHalf
	n.add(priorHalf*(math.Log(t.GradBase)-math.Log(half)), &d)
	for _, at := range [][2]int{{iSyncBase, iSyncMore}, {iAcrossBase, iAcrossMore}} {
		if p.active[at[0]] && p.active[at[1]] {
			r := priorGrowth * math.Exp(x[at[1]]-x[at[0]])
			d = vector{}
			d[at[0]], d[at[1]] = -r, r
			n.add(r, &d)
		}
	}
	if p.active[iGamma] {
		d = vector{}
		d[iGamma] = priorOverlap * t.Gamma
		n.add(priorOverlap*(t.Gamma-1), &d)
	}
	return n
}

func (p *problem) residuals(n *normal, t *Throughput, o *Observation) {
	grad, sync := t.grad(float64(o.Local)), t.sync(o.Nodes, o.GPUs)
	var ofGrad vector // d log(Tgrad)
	ofGrad[iGradBase] = t.GradBase / grad
	ofGrad[iGradSample] = t.GradSample * float64(o.Local) / grad
	if o.SyncS >= 0 && o.StepS > o.SyncS {
		n.add(math.Log(grad)-math.Log(o.StepS-o.SyncS), &ofGrad)
	}
	if sync <= tiny {
		n.add(math.Log(grad)-math.Log(o.StepS), &ofGrad)
		return
	}
	step := t.step(grad, sync)
	share := math.Exp(t.Gamma * math.Log(grad/step)) // d log(Tstep) / d log(Tgrad)
	base, more := iSyncBase, iSyncMore
	b, m := t.SyncBase, t.SyncMore
	if o.Nodes > 1 {
		base, more = iAcrossBase, iAcrossMore
		b, m = t.AcrossBase, t.AcrossMore
	}
	var d vector
	for i := range d {
		d[i] = share * ofGrad[i]
	}
	d[base] = (1 - share) * b / sync
	if p.active[more] {
		d[more] = (1 - share) * m * float64(o.GPUs-2) / sync
	}
	d[iGamma] = share*math.Log(grad) + (1-share)*math.Log(sync) - math.Log(step)
	n.add(math.Log(step)-math.Log(o.StepS), &d)
}

// solve walks down to the least cost.
func (p *problem) solve(x vector) vector {
	now := p.equations(x)
	damp := 1e-3
	for round := 0; round < fitRounds && damp < fitDampMax; round++ {
		next := p.bounded(x, now.direction(damp, p.active))
		there := p.equations(next)
		if !(there.cost < now.cost) {
			damp *= 8
			continue
		}
		gain := now.cost - there.cost
		x, now, damp = next, there, max(damp/5, 1e-9)
		if gain < fitDone*(1e-6+now.cost) {
			break
		}
	}
	return x
}

func (p *problem) bounded(x, d vector) vector {
	for i := range x {
		if p.active[i] {
			x[i] = max(x[i]+min(max(d[i], -logStepMax), logStepMax), math.Log(tiny))
		}
	}
	x[iGamma] = min(max(x[iGamma], 0), math.Log(gammaMax))
	return x
}

// direction solves (A + damp*diag(A)) d = b over the active parameters, by elimination.
func (n *normal) direction(damp float64, active [params]bool) vector {
	a, b := n.a, n.b
	for i := range a {
		if !active[i] || a[i][i] == 0 {
			a[i], b[i] = vector{}, 0
			for k := range a {
				a[k][i] = 0
			}
			a[i][i] = 1
			continue
		}
		a[i][i] += damp*a[i][i] + 1e-12
	}
	for i := range a {
		for k := i + 1; k < params; k++ {
			f := a[k][i] / a[i][i]
			for c := i; c < params; c++ {
				a[k][c] -= f * a[i][c]
			}
			b[k] -= f * b[i]
		}
	}
	for i := params - 1; i >= 0; i-- {
		for c := i + 1; c < params; c++ {
			b[i] -= a[i][c] * b[c]
		}
		b[i] /= a[i][i]
	}
	return b
}
