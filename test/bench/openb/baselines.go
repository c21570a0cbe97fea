package main

import (
	"cmp"
	"math"
	"math/rand"
	"slices"

	"llmos/server/scheduler/packing"
)

// The policies that FGD was compared with, and FGD, as the authors' simulator scores them:
// whole numbers from 0 to 100, equal ones to the first node by name.

// The sizes by which the simulator scales, whatever the cluster.
const (
	scaleCPU = 128_000
	scaleGPU = 8 * packing.Whole
	scoreMax = 100
)

// whole turns a score, more is better, into a grade.
func whole(score int64, device int) grade { return grade{loss: -float64(score), device: int32(device)} }

func gradeBestFit(n *node, s *packing.Shape) grade {
	left := 0.5*float64(n.cpu-s.CPU)/scaleCPU + 0.5*float64(n.idle()-s.Demand())/scaleGPU
	return whole(int64((1-left)*scoreMax), n.tightest(s))
}

func gradeDotProd(n *node, s *packing.Shape) grade {
	product := float64(n.cpu)/scaleCPU*(float64(s.CPU)/scaleCPU) + float64(n.idle())/scaleGPU*(float64(s.Demand())/scaleGPU)
	return whole(int64(scoreMax*(1-product/2)), n.tightest(s))
}

// gradePacking prefers devices in use, then free devices of a node in use, then idle nodes.
func gradePacking(n *node, s *packing.Shape) grade {
	device := n.tightest(s)
	if s.GPUs == 0 {
		return whole(0, device)
	}
	free := int64(0)
	for _, f := range n.free {
		if f == packing.Whole {
			free++
		}
	}
	if free == int64(len(n.free)) {
		return whole(max(scoreMax/3-free, free), device)
	}
	fresh, rest, left := int64(0), int64(0), s.GPUs
	sorted := slices.Clone(n.free)
	slices.Sort(sorted)
	for _, f := range sorted {
		if left == 0 {
			break
		}
		if f >= s.Share {
			left--
			rest += int64(f) * 100 / packing.Whole
			if f == packing.Whole {
				fresh++
			}
		}
	}
	if fresh > 0 {
		return whole(max(scoreMax/2-fresh, scoreMax/3), device)
	}
	return whole(max(scoreMax-rest/10, scoreMax/2), device)
}

// gradeClustering keeps pods that ask alike together.
func gradeClustering(n *node, s *packing.Shape) grade {
	device := n.tightest(s)
	if s.GPUs == 0 {
		return whole(0, device)
	}
	classes := 0
	for _, count := range n.classes {
		if count > 0 {
			classes++
		}
	}
	band := int64(0)
	switch here := n.classes[class(s)] > 0; {
	case here && classes == 1:
		band = scoreMax * 3 / 4
	case here:
		band = scoreMax * 2 / 4
	case classes == 0:
		band = scoreMax / 4
	}
	return whole(scoreMax/4*(scaleGPU-n.idle())/scaleGPU+band, device)
}

// randomly picks any node that admits the pod, and any device that does.
type randomly struct {
	ranked
	source *rand.Rand
}

func (r *randomly) place(c *cluster, s *packing.Shape) (int, int) {
	k := r.rank(c, s)
	count := 0
	for i := range k.grades {
		if k.grades[i].fits {
			count++
		}
	}
	if count == 0 {
		return -1, -1
	}
	node := -1
	for left := r.source.Intn(count); left >= 0; {
		if node++; k.grades[node].fits {
			left--
		}
	}
	device, seen := -1, 0
	for d, free := range c.nodes[node].free {
		if free >= s.Share {
			if seen++; r.source.Intn(seen) == 0 {
				device = d
			}
		}
	}
	return node, device
}

// typical is the mix that FGD weighs fragments by: the shapes of the whole list (memory
// aside), most frequent first, until 95 % of the pods are covered.
func typical(pods []pod) []weighted {
	counts := map[packing.Shape]int{}
	for i := range pods {
		s := pods[i].shape
		s.Memory = 0
		counts[s]++
	}
	mix := make([]weighted, 0, len(counts))
	for s, n := range counts {
		mix = append(mix, weighted{s, float64(n)})
	}
	slices.SortFunc(mix, func(a, b weighted) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), cmp.Compare(b.CPU, a.CPU), cmp.Compare(b.Share, a.Share),
			cmp.Compare(b.GPUs, a.GPUs), cmp.Compare(b.Models, a.Models))
	})
	sum, cut := 0.0, 0
	for sum < 0.95*float64(len(pods)) {
		sum += mix[cut].weight
		cut++
	}
	mix = mix[:cut]
	for i := range mix {
		mix[i].weight /= sum
	}
	return mix
}

type weighted struct {
	packing.Shape
	weight float64
}

// fgd is fragmentation gradient descent.
type fgd struct {
	mix  []weighted
	memo map[nodeShape]float64
}

// nodeShape is all that fragmentation depends on; more than 16 devices are not remembered.
type nodeShape struct {
	model int32
	cpu   int64
	free  [16]int16
}

func (f *fgd) grade(n *node, s *packing.Shape) grade {
	before := f.fragments(n.model, n.cpu, n.free)
	free := slices.Clone(n.free)
	score := func() int64 {
		gain := (before - f.fragments(n.model, n.cpu-s.CPU, free)) / packing.Whole
		return int64(scoreMax / (1 + math.Exp(-gain)))
	}
	if s.GPUs != 1 || s.Share == packing.Whole {
		for d, left := 0, s.GPUs; left > 0; d++ {
			if free[d] == packing.Whole {
				free[d] = 0
				left--
			}
		}
		return whole(score(), -1)
	}
	best, device := int64(0), -1
	for d := range free {
		if free[d] < s.Share {
			continue
		}
		free[d] -= s.Share
		if v := score(); device < 0 || v > best {
			best, device = v, d
		}
		free[d] += s.Share
	}
	return whole(best, device)
}

func (f *fgd) fragments(model int, cpu int64, free []int32) float64 {
	key := nodeShape{model: int32(model), cpu: cpu}
	known := len(free) <= len(key.free)
	if known {
		for d, v := range free {
			key.free[d] = int16(v)
		}
		slices.Sort(key.free[:len(free)])
		if v, ok := f.memo[key]; ok {
			return v
		}
	}
	idle := int64(0)
	for _, v := range free {
		idle += int64(v)
	}
	sum := 0.0
	for i := range f.mix {
		sum += f.mix[i].weight * float64(unusable(&f.mix[i].Shape, model, cpu, free, idle))
	}
	if known {
		f.memo[key] = sum
	}
	return sum
}

// unusable is the part of the idle devices that a shape cannot use.
func unusable(s *packing.Shape, model int, cpu int64, free []int32, idle int64) int64 {
	if s.GPUs == 0 || s.CPU > cpu || !s.Models.Has(model) {
		return idle
	}
	count, rest := int32(0), int64(0)
	for _, v := range free {
		if v >= s.Share {
			count++
		} else {
			rest += int64(v)
		}
	}
	if count < s.GPUs {
		return idle
	}
	return rest
}

// gradeAlike makes all nodes that admit a pod equal.
func gradeAlike(*node, *packing.Shape) grade { return grade{} }
