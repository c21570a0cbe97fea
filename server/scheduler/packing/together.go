package packing

// Constants of the value of devices that are free together.
const (
	// togetherMax is the most that whole free devices of one node are worth more than the
	// same number on different nodes, in parts of themselves, where as many tasks leave as come.
	togetherMax = 1.5
	// togetherEarly is what it is at least in a cluster that is empty or nearly so, whatever
	// the turnover. It begins to fade at half of togetherUntil, a load in parts of the
	// devices, and is nothing from there on.
	togetherEarly = 0.15
	togetherUntil = 0.4
	// togetherShare is the part of the demand, asked by tasks with several whole devices,
	// from which on it is that much.
	togetherShare = 1.0 / 50
	// gatherMax is the most that free shares of one device are worth more than as much on
	// different devices, in parts of themselves.
	gatherMax = 3
)

// together gives by model, number of a node's devices and whole ones of them free what it is
// worth that they are on one node, in billionths of a device. Tasks that ask k devices find
// a place only where k are free; where tasks leave, free devices turn up scattered, and
// only what is not taken lets them gather. So the value is convex up to k. It grows with
// the part of the demand that asks several devices of the model and with the turnover: in a
// cluster that only fills, nothing gathers, and keeping nodes whole is a loss. While the
// cluster is nearly empty a little of it costs nothing and keeps tasks that will stay for
// long from spreading over all nodes.
func together(parts []part, seen float64, fleet Fleet, turnover float64) [][][]int64 {
	d := severalAsked(parts, seen, fleet)
	scale := 0.0
	if d.several > 0 {
		early := togetherEarly * max(0, min(1, 2-2*fleet.load()/togetherUntil))
		scale = max(togetherMax*turnover, early) * min(1, d.several/d.total/togetherShare) / d.several
	}
	values := make([][][]int64, len(fleet))
	for m := range values {
		values[m] = make([][]int64, devicesMax+1)
		for size := range values[m] {
			values[m][size] = gathered(d.byModel[m][:size+1], scale)
		}
	}
	return values
}

// severalDemand is what tasks ask that ask several whole devices, in parts of what an
// arrival asks.
type severalDemand struct {
	total   float64                   // of all tasks
	several float64                   // of those that some node can hold
	byModel [][devicesMax + 1]float64 // by model that can hold them and number of devices
}

func (d *severalDemand) add(s *Shape, fleet Fleet, amount float64) {
	models := fleet.reach(s)
	if models&fleet.present() == 0 {
		return
	}
	d.several += amount
	for m := range fleet {
		if models.Has(m) {
			d.byModel[m][min(int(s.GPUs), devicesMax)] += amount
		}
	}
}

// severalAsked sums the demand for several whole devices. A mix with whole devices is taken
// to have had, before anything arrived, one task that asked a whole node: the tasks that
// come before the first of that kind must not cost the place of all that come after.
func severalAsked(parts []part, seen float64, fleet Fleet) severalDemand {
	d := severalDemand{byModel: make([][devicesMax + 1]float64, len(fleet))}
	whole := 0.0
	for i := range parts {
		s := &parts[i].shape
		amount := parts[i].share * float64(s.Demand())
		d.total += amount
		if s.Share == Whole {
			whole += amount
			if s.GPUs > 1 {
				d.add(s, fleet, amount)
			}
		}
	}
	d.suppose(fleet, whole/d.total/(seen+1))
	return d
}

// suppose adds to each model a demand for its largest node, of as much as tasks for the
// largest of all would ask: alike, so that no model is spared at the cost of another.
func (d *severalDemand) suppose(fleet Fleet, tasks float64) {
	largest := int64(0)
	for m := range fleet {
		largest = max(largest, fleet[m].NodeGPUs)
	}
	if largest <= 1 || d.total <= 0 {
		return
	}
	amount := tasks * float64(largest) * Whole
	d.several += amount
	for m := range fleet {
		d.byModel[m][min(fleet[m].NodeGPUs, devicesMax)] += amount
	}
}

// gathered tabulates the value by whole free devices for a node with len(asked)-1 of them.
func gathered(asked []float64, scale float64) []int64 {
	values := make([]int64, devicesMax+1)
	for whole := range len(asked) {
		sum := 0.0
		for k := 2; k < len(asked); k++ {
			rest := float64(whole % k)
			sum += asked[k] * (float64(whole/k*k) + rest*rest/float64(k))
		}
		values[whole] = billionths(scale * sum)
	}
	return values
}

// gather makes the value of what is free of a device convex, by the turnover: shares that
// leave rests on many devices leave none for the task that asks most of one, when several of
// those come at once.
func gather(values [][]int64, turnover float64) {
	for _, v := range values {
		for free := range v {
			part := float64(free) / Whole
			v[free] += billionths(gatherMax * turnover * part * part)
		}
	}
}
