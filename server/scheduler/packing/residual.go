package packing

import (
	"cmp"
	"math"
	"slices"
)

// The linear programme: which tasks of the mix would fill the cluster best, if they came in
// their shares and as many as fill Overload of it. Its activities are to run exclusive tasks
// of a class on a model, and to fill one device of a model with a pattern of shared tasks;
// its rows are each class's demand and each model's devices, CPU and memory. What it teaches
// are the duals: what a class of task and a unit of a resource are worth.

// Bounds of the linear programme.
const (
	// Overload is the load of the programme, in parts of the cluster's devices.
	Overload = 1.1
	// classesMax bounds the classes of tasks in it, the greatest demands first.
	classesMax = 192
	// pivotsMax bounds the pivots for each row.
	pivotsMax = 40
	// poolMax bounds the columns generated.
	poolMax = 1 << 14
)

// class is what the programme does not tell apart: CPU and memory are means.
type class struct {
	gpus   int32
	share  int32
	models Models
	tasks  float64 // arriving, first in parts of all arrivals, then scaled to the cluster
	cpu    float64 // mean, millicores
	memory float64 // mean
}

func (c *class) worth() float64 { return float64(c.gpus) * float64(c.share) / Whole }

// classesOf groups the parts that ask devices which the fleet has.
func classesOf(parts []part, present Models) []class {
	var classes []class
	for i := range parts { // parts are in order of shape, so a class's parts are adjacent
		s := &parts[i].shape
		if s.GPUs <= 0 || s.Models&present == 0 {
			continue
		}
		models := s.Models & present
		last := len(classes) - 1
		if last < 0 || classes[last].gpus != s.GPUs || classes[last].share != s.Share || classes[last].models != models {
			classes = append(classes, class{gpus: s.GPUs, share: s.Share, models: models})
			last++
		}
		c := &classes[last]
		c.tasks += parts[i].share
		c.cpu += parts[i].share * float64(s.CPU)
		c.memory += parts[i].share * float64(s.Memory)
	}
	for i := range classes {
		classes[i].cpu /= classes[i].tasks
		classes[i].memory /= classes[i].tasks
	}
	if len(classes) > classesMax {
		slices.SortStableFunc(classes, func(a, b class) int { return cmp.Compare(b.tasks*b.worth(), a.tasks*a.worth()) })
		classes = classes[:classesMax]
	}
	return classes
}

// programme is one linear programme with its columns generated as they gain.
type programme struct {
	x       *simplex
	classes []class
	fleet   Fleet
	models  []int     // those that the fleet has
	cpus    []float64 // by place in models: millicores for each device of it, the unit of its row
	memory  []float64 // the same of memory
	shared  []int     // classes of shared tasks
	step    int32     // greatest common divisor of their shares and a whole
	sums    []float64 // scratch of pattern: by size in steps
	chosen  []int16   // class that completes the best sum of a size; -1 none
}

// rows of a model, after the classes' demand.
const (
	rowGPUs = iota
	rowCPU
	rowMemory
	rowsOfModel
)

func newProgramme(classes []class, fleet Fleet) *programme {
	p := &programme{classes: classes, fleet: fleet, step: Whole}
	supply := make([]float64, 0, len(classes)+rowsOfModel*len(fleet))
	for i := range classes {
		supply = append(supply, max(classes[i].tasks, 1e-6))
		if classes[i].share < Whole {
			p.shared = append(p.shared, i)
			p.step = divisor(p.step, classes[i].share)
		}
	}
	for m := range min(len(fleet), ModelsMax) {
		if n := float64(fleet[m].GPUs); n > 0 { // rows in like units, for exact pivots
			p.models = append(p.models, m)
			p.cpus = append(p.cpus, max(1, float64(fleet[m].CPU))/n)
			p.memory = append(p.memory, max(1, float64(fleet[m].Memory))/n)
			supply = append(supply, n, n, n)
		}
	}
	p.x = newSimplex(supply)
	sizes := Whole/int(p.step) + 1
	p.sums, p.chosen = make([]float64, sizes), make([]int16, sizes)
	p.exclusives()
	return p
}

func divisor(a, b int32) int32 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// exclusives adds the columns of whole devices.
func (p *programme) exclusives() {
	for i := range p.classes {
		c := &p.classes[i]
		if c.share < Whole {
			continue
		}
		for at, m := range p.models {
			if c.models.Has(m) {
				base := p.base(at)
				p.x.pool = append(p.x.pool, column{worth: c.worth(),
					rows: []int32{int32(i), base + rowGPUs, base + rowCPU, base + rowMemory},
					uses: []float64{1, float64(c.gpus), c.cpu / p.cpus[at], c.memory / p.memory[at]}})
			}
		}
	}
}

// base is the first row of the model at this place in p.models.
func (p *programme) base(at int) int32 { return int32(len(p.classes) + rowsOfModel*at) }

// solve runs to the optimum; false when a bound ended it before.
func (p *programme) solve() bool {
	for p.x.pivots < pivotsMax*p.x.rows {
		at := p.x.best()
		if at == -1 {
			if !p.generate() {
				return true
			}
			continue
		}
		if !p.x.enter(at) {
			return false
		}
	}
	return false
}

// generate adds for each model the pattern that gains most; false when none gains.
func (p *programme) generate() bool {
	found := false
	for at := range p.models {
		if len(p.x.pool) >= poolMax {
			return false
		}
		values := p.pattern(at)
		most := values[len(values)-1]
		base := p.base(at)
		if most-p.x.dual[base+rowGPUs] > reducedLeast {
			c := p.filled(at)
			if p.x.reduced(&c) > reducedLeast {
				p.x.pool = append(p.x.pool, c)
				found = true
			}
		}
	}
	return found
}

// cost is what one task of a class takes of the model by the duals, devices aside.
func (p *programme) cost(at, class int) float64 {
	c, base := &p.classes[class], p.base(at)
	return p.x.dual[class] + p.x.dual[base+rowCPU]*c.cpu/p.cpus[at] + p.x.dual[base+rowMemory]*c.memory/p.memory[at]
}

// net is what one task of a shared class (one device's share of it) gains on the model, the
// device itself aside.
func (p *programme) net(at, class int) float64 {
	c := &p.classes[class]
	return (c.worth() - p.cost(at, class)) / float64(c.gpus)
}

// pattern gives the greatest sum of net values of shared tasks that fit a free rest of each
// size, in steps: an unbounded knapsack.
func (p *programme) pattern(at int) []float64 {
	type item struct {
		class, width int
		value        float64
	}
	items := make([]item, 0, len(p.shared))
	for _, i := range p.shared {
		c := &p.classes[i]
		if value := p.net(at, i); value > 0 && c.models.Has(p.models[at]) {
			items = append(items, item{i, int(c.share / p.step), value})
		}
	}
	for size := range p.sums {
		p.sums[size], p.chosen[size] = 0, -1
		for k := range items {
			it := &items[k]
			if it.width > size {
				continue
			}
			if sum := p.sums[size-it.width] + it.value; sum > p.sums[size] {
				p.sums[size], p.chosen[size] = sum, int16(it.class)
			}
		}
	}
	return p.sums
}

// filled is the column of the pattern that was found best for a whole device of the model.
func (p *programme) filled(at int) column {
	base := p.base(at)
	counts := map[int]float64{}
	var classes []int
	for size := len(p.chosen) - 1; size >= 0 && p.chosen[size] >= 0; {
		i := int(p.chosen[size])
		if counts[i] == 0 {
			classes = append(classes, i)
		}
		counts[i]++
		size -= int(p.classes[i].share / p.step)
	}
	slices.Sort(classes)
	c := column{rows: []int32{base + rowGPUs}, uses: []float64{1}}
	cpu, memory := 0.0, 0.0
	for _, i := range classes {
		k, n := &p.classes[i], counts[i]/float64(p.classes[i].gpus)
		c.rows, c.uses = append(c.rows, int32(i)), append(c.uses, n)
		c.worth += n * k.worth()
		cpu += n * k.cpu
		memory += n * k.memory
	}
	c.rows = append(c.rows, base+rowCPU, base+rowMemory)
	c.uses = append(c.uses, cpu/p.cpus[at], memory/p.memory[at])
	return c
}

// residuals gives by model and free thousandths of a device what the rest is worth, in
// billionths of a device: the best pattern of shared tasks that fits it and, for a whole
// device, the best exclusive task if that is more. Models that the fleet lacks have none.
func (p *programme) residuals() [][]int64 {
	values := make([][]int64, len(p.fleet))
	for at, m := range p.models {
		sums := p.pattern(at)
		v := make([]int64, Whole+1)
		for free := range v {
			v[free] = billionths(sums[free/int(p.step)])
		}
		for i := range p.classes {
			c := &p.classes[i]
			if c.share < Whole || !c.models.Has(m) {
				continue
			}
			v[Whole] = max(v[Whole], billionths(p.net(at, i)))
		}
		values[m] = v
	}
	return values
}

func billionths(devices float64) int64 { return int64(math.Round(devices * Device)) }
