package packing

// Constants of the value of devices that are free together.
const (
	// togetherMax is the most that whole free devices of one node are worth more than the
	// same number on different nodes, and free shares of one device more than as much on
	// different devices, in parts of themselves.
	togetherMax = 3
	// togetherShare is the part of the demand, asked by tasks with several whole devices,
	// from which on it is that much.
	togetherShare = 1.0 / 50
)

// together gives by model, number of a node's devices and whole ones of them free what it is
// worth that they are on one node, in billionths of a device. Tasks that ask k devices find
// a place only where k are free; where tasks leave, free devices turn up scattered, and
// only what is not taken lets them gather. So the value is convex up to k. It grows with
// the part of the demand that asks several devices and with the turnover: while a cluster
// only fills, nothing gathers, and keeping nodes whole is a loss.
func together(parts []part, models int, turnover float64) [][][]int64 {
	var asked [devicesMax + 1]float64
	total, several := 0.0, 0.0
	values := make([][][]int64, models)
	for m := range values {
		clear(asked[:])
		total, several = 0, 0
		for i := range parts {
			s := &parts[i].shape
			amount := parts[i].share * float64(s.Demand())
			total += amount
			if s.GPUs > 1 && s.Share == Whole && s.Models.Has(m) {
				asked[min(int(s.GPUs), devicesMax)] += amount
				several += amount
			}
		}
		scale := 0.0
		if several > 0 {
			scale = togetherMax * turnover * min(1, several/total/togetherShare) / several
		}
		values[m] = make([][]int64, devicesMax+1)
		for size := range values[m] {
			values[m][size] = gathered(asked[:size+1], scale)
		}
	}
	return values
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
			v[free] += billionths(togetherMax * turnover * part * part)
		}
	}
}
