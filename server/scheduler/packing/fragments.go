package packing

import "slices"

// fragments is FGD's measure of fragmentation (Weng and others, ATC 2023): the idle part of
// a node's devices that a task of the mix, drawn by its share of arrivals, cannot use. A
// task that fits nowhere on the node (no device, no CPU, not allowed) makes all of it
// unusable; one that fits leaves the devices too full for it. The sums over the mix are
// tabulated, so that a node costs one look-up a device.
type fragments struct {
	cpus    []int64 // distinct CPU requests, ascending
	sizes   []int32 // distinct shares, ascending
	sizeOf  [Whole + 1]int16
	one     [][]int64 // by model and CPU rank: by size rank, the billionths of the mix that one device can serve
	many    [][]int64 // by model and CPU rank: by whole devices free, those that ask several whole ones
	several []part    // tasks that ask shares of several devices: rare, and looked at one by one
}

// severalMax bounds the shapes with shares of several devices; the least frequent are left out.
const severalMax = 16

// devicesMax is the number of devices of one task up to which requests are told apart.
const devicesMax = 16

func newFragments(parts []part, models int) *fragments {
	f := &fragments{}
	for i := range parts {
		s := &parts[i].shape
		if s.GPUs == 0 {
			continue
		}
		f.cpus = append(f.cpus, s.CPU)
		f.sizes = append(f.sizes, s.Share)
	}
	slices.Sort(f.cpus)
	f.cpus = slices.Compact(f.cpus)
	slices.Sort(f.sizes)
	f.sizes = slices.Compact(f.sizes)
	for free := range f.sizeOf { // number of sizes that fit
		at, found := slices.BinarySearch(f.sizes, int32(free))
		if found {
			at++
		}
		f.sizeOf[free] = int16(at)
	}
	f.one = make([][]int64, models*(len(f.cpus)+1))
	f.many = make([][]int64, models*(len(f.cpus)+1))
	for at := range f.one {
		f.one[at], f.many[at] = make([]int64, len(f.sizes)+1), make([]int64, devicesMax+1)
	}
	for i := range parts {
		f.add(&parts[i], models)
	}
	for at := range f.one {
		accumulate(f.one[at])
		accumulate(f.many[at])
	}
	return f
}

func accumulate(v []int64) {
	for i := 1; i < len(v); i++ {
		v[i] += v[i-1]
	}
}

// add counts one part of the mix in every row whose CPU admits it.
func (f *fragments) add(q *part, models int) {
	s := &q.shape
	switch {
	case s.GPUs == 0:
		return
	case s.GPUs > 1 && s.Share < Whole:
		if len(f.several) < severalMax {
			f.several = append(f.several, *q)
		}
		return
	}
	share := billionths(q.share)
	rank, _ := slices.BinarySearch(f.cpus, s.CPU)
	for m := range models {
		if !s.Models.Has(m) {
			continue
		}
		for row := rank + 1; row <= len(f.cpus); row++ {
			if s.GPUs == 1 {
				f.one[m*(len(f.cpus)+1)+row][f.sizeOf[s.Share]] += share
			} else {
				f.many[m*(len(f.cpus)+1)+row][min(int(s.GPUs), devicesMax)] += share
			}
		}
	}
}

// row gives the row of tables for a model and free CPU: the number of CPU requests that fit.
func (f *fragments) row(model int, cpu int64) int {
	at, found := slices.BinarySearch(f.cpus, cpu)
	if found {
		at++
	}
	return model*(len(f.cpus)+1) + at
}
