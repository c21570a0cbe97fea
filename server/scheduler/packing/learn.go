package packing

import "slices"

// Prices is what Learn derives from a mix and a fleet. It is immutable and may be shared.
type Prices struct {
	// Models names the models of the fleet, in its order.
	Models []string
	// Load is the mean CPU that tasks ask for a device, in millicores a device, by model of
	// the fleet: over the tasks that may run on it; 0 when none asks any.
	Load []float64
	// Price is how scarce each model is, from 0 to 1.
	Price []float64
	// Converged says whether the linear programme reached its optimum; if not, the free
	// rests of devices have no value here and the other terms work alone.
	Converged bool
	// Pivots is the work of the linear programme.
	Pivots int

	rooms  [][][]int64 // by model and devices of a node: by whole ones free, the value of their being together
	values [][]int64   // by model: by free thousandths, billionths of a device
	frags  *fragments
	prices []int64   // Price, times PriceWeight, in billionths
	relief []float64 // billionths of a device that a millicore serves, by model; 0: CPU is no matter
}

// Learn derives the prices of the mix on the fleet, whose models are those of the shapes'
// sets. It marks the mix as used. An empty mix gives prices by which all places are equal.
func Learn(mix *Mix, fleet Fleet) *Prices {
	fleet = fleet[:min(len(fleet), ModelsMax)]
	parts, seen := mix.parts()
	p := &Prices{Load: loads(parts, len(fleet)), Price: scarcity(parts, seen, fleet), frags: newFragments(parts, len(fleet)),
		rooms: together(parts, seen, fleet, mix.Turnover()), prices: make([]int64, len(fleet)), relief: make([]float64, len(fleet)), values: make([][]int64, len(fleet))}
	for m := range fleet {
		p.Models = append(p.Models, fleet[m].Name)
		p.prices[m] = billionths(PriceWeight * p.Price[m])
		if p.Load[m] > 0 {
			p.relief[m] = Device / p.Load[m]
		}
	}
	classes := classesOf(parts, fleet.present())
	asked := 0.0
	for i := range classes {
		asked += classes[i].tasks * classes[i].worth()
	}
	if asked <= 0 {
		p.Converged = true
		return p
	}
	for i := range classes {
		classes[i].tasks *= Overload * fleet.devices() / asked
	}
	lp := newProgramme(classes, fleet)
	p.Converged = lp.solve()
	p.Pivots = lp.x.pivots
	if p.Converged {
		p.values = lp.residuals()
		gather(p.values, mix.Turnover())
	}
	return p
}

// Model gives the place of a model in the fleet that was learned, -1 when it was not there.
func (p *Prices) Model(name string) int { return slices.Index(p.Models, name) }

// loads gives by model the CPU asked for each device by the tasks that may run on it.
func loads(parts []part, models int) []float64 {
	ratio := make([]float64, models)
	for m := range ratio {
		cpu, devices := 0.0, 0.0
		for i := range parts {
			if s := &parts[i].shape; s.GPUs > 0 && s.Models.Has(m) {
				cpu += parts[i].share * float64(s.CPU)
				devices += parts[i].share * float64(s.Demand()) / Whole
			}
		}
		if devices > 0 {
			ratio[m] = cpu / devices
		}
	}
	return ratio
}
