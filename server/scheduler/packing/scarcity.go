package packing

// Constants of scarcity.
const (
	// pinned is the demand, in devices, that each model is taken to have had for itself
	// before anything arrived: a prior that spares rare models until the mix is known.
	pinned = 3
	// levelRounds bounds the rounds of levelling.
	levelRounds = 64
)

// scarcity gives each model a price from 0 to 1: the load that tasks which accept only some
// models would put on it, in parts of its devices, if as much was asked as the cluster has
// and that load was spread as evenly as the sets they accept allow. Tasks that accept every
// model load none: they can go elsewhere. seen is the number of arrivals behind the parts.
func scarcity(parts []part, seen float64, fleet Fleet) []float64 {
	present := fleet.present()
	demands, total := restricted(parts, present)
	all := seen*total + pinned*float64(present.Count())
	loads := make([]float64, len(fleet))
	for m := range loads {
		loads[m] = pinned * fleet.devices() / all
	}
	for i := range demands {
		demands[i].amount *= seen * fleet.devices() / all
		demands[i].spread = make([]float64, len(fleet))
	}
	for range levelRounds {
		for i := range demands {
			demands[i].level(loads, fleet)
		}
	}
	prices := make([]float64, len(fleet))
	for m := range prices {
		if fleet[m].GPUs > 0 {
			prices[m] = min(1, loads[m]/float64(fleet[m].GPUs))
		}
	}
	return prices
}

// demand is what the tasks with one set of models ask, and where it is put.
type demand struct {
	models Models
	amount float64   // devices
	spread []float64 // by model
}

// restricted sums the demand by set of models, for sets that leave out a present model, and
// the demand of all tasks.
func restricted(parts []part, present Models) (demands []demand, total float64) {
	for i := range parts {
		s := &parts[i].shape
		amount := parts[i].share * float64(s.Demand()) / Whole
		total += amount
		models := s.Models & present
		if amount == 0 || models == 0 || models == present {
			continue
		}
		at := 0
		for at < len(demands) && demands[at].models != models {
			at++
		}
		if at == len(demands) {
			demands = append(demands, demand{models: models})
		}
		demands[at].amount += amount
	}
	return demands, total
}

// level puts the demand where it levels load over capacity, given what the others load. A
// round of it for each demand lowers the sum of load squared over capacity, which is convex.
func (d *demand) level(loads []float64, fleet Fleet) {
	for m, put := range d.spread {
		loads[m] -= put
		d.spread[m] = 0
	}
	// The models below the water line are those that are filled; the line rises as models
	// are left out that lie above it.
	open := d.models
	for range ModelsMax {
		water, capacity := d.amount, 0.0
		for m := range fleet {
			if open.Has(m) {
				water += loads[m]
				capacity += float64(fleet[m].GPUs)
			}
		}
		line := water / capacity
		dry := Models(0)
		for m := range fleet {
			if open.Has(m) && loads[m] > line*float64(fleet[m].GPUs) {
				dry |= 1 << uint(m)
			}
		}
		if dry != 0 {
			open &^= dry
			continue
		}
		for m := range fleet {
			if open.Has(m) {
				d.spread[m] = line*float64(fleet[m].GPUs) - loads[m]
				loads[m] += d.spread[m]
			}
		}
		return
	}
}
