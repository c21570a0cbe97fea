package elastic

import "math"

// exactMax bounds the work of the exact choice: jobs x GPUs x sizes of a job.
const exactMax = 2_000_000

// share chooses the sizes of all offers within the total.
func share(offers []offer, total int) {
	sizes := 0
	for i := range offers {
		sizes += len(offers[i].choices)
	}
	if sizes*total <= exactMax {
		exact(offers, total)
		return
	}
	greedy(offers, total)
}

// exact chooses the sizes of the highest total value: a knapsack that takes one choice of
// each job, by dynamic programming over GPUs. Of equal sums the smaller sizes win.
func exact(offers []offer, total int) {
	best, next := make([]float64, total+1), make([]float64, total+1)
	picks := make([][]int32, len(offers))
	for i := range offers {
		pick := make([]int32, total+1)
		for room := range next {
			next[room] = math.Inf(-1)
			for k := range offers[i].choices {
				c := &offers[i].choices[k]
				if c.size.GPUs > room {
					break
				}
				if v := best[room-c.size.GPUs] + c.value; v > next[room] {
					next[room], pick[room] = v, int32(k)
				}
			}
		}
		picks[i] = pick
		best, next = next, best
	}
	room := total
	for i := len(offers) - 1; i >= 0; i-- {
		o := &offers[i]
		o.chosen = int(picks[i][room])
		room -= o.choices[o.chosen].size.GPUs
	}
}

// step is the best next enlargement of one offer.
type step struct {
	offer, to int
	gain      float64 // value per GPU
}

// greedy chooses sizes by the best gain of value per GPU, one enlargement after the other,
// each as large as its gain per GPU is best. Offers that start with a loss (to stop costs)
// count from that loss. A heap keeps the offers by their next enlargement.
func greedy(offers []offer, total int) {
	heap := make([]step, 0, len(offers))
	for i := range offers {
		if s, ok := offers[i].next(i, total); ok {
			heap = append(heap, s)
		}
	}
	for i := len(heap)/2 - 1; i >= 0; i-- {
		sink(heap, i)
	}
	for len(heap) > 0 {
		top := heap[0]
		o := &offers[top.offer]
		if more := o.choices[top.to].size.GPUs - o.choices[o.chosen].size.GPUs; more <= total {
			total -= more
			o.chosen = top.to
		}
		s, ok := o.next(top.offer, total)
		if !ok {
			s = heap[len(heap)-1]
			heap = heap[:len(heap)-1]
		}
		if len(heap) > 0 {
			heap[0] = s
			sink(heap, 0)
		}
	}
}

// next gives the enlargement of best gain per GPU within what is left.
func (o *offer) next(at, left int) (step, bool) {
	from := &o.choices[o.chosen]
	s := step{offer: at}
	for k := o.chosen + 1; k < len(o.choices); k++ {
		more := o.choices[k].size.GPUs - from.size.GPUs
		if more > left {
			break
		}
		if gain := (o.choices[k].value - from.value) / float64(more); gain > s.gain {
			s.gain, s.to = gain, k
		}
	}
	return s, s.gain > 0
}

// before orders steps: more gain first, then the first offer.
func (s step) before(t step) bool {
	if s.gain != t.gain {
		return s.gain > t.gain
	}
	return s.offer < t.offer
}

func sink(heap []step, i int) {
	for {
		first := i
		for c := 2*i + 1; c <= 2*i+2 && c < len(heap); c++ {
			if heap[c].before(heap[first]) {
				first = c
			}
		}
		if first == i {
			return
		}
		heap[i], heap[first] = heap[first], heap[i]
		i = first
	}
}
