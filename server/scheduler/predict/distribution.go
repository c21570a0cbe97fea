package predict

import (
	"math"
	"slices"
)

// Distribution is a discrete distribution of run times in milliseconds, ascending.
type Distribution struct {
	values  []float64
	weights []float64
	total   float64
	after   float64 // the age that is certain
	Jobs    int     // finished jobs of the narrowest group that has any
	From    string  // that group, in words
}

// tailPoints stand for the tail beyond what history knows.
const tailPoints = 8

// After gives the distribution of the run time of a job of the key, given that it has run
// for ageMS and still runs. Each level of groups speaks with its own jobs and with two more
// that stand for the wider levels, so that a few own runs soon outweigh all others. A job
// that has outlived nearly all that are known has a tail P(T > t | T > a) = a/t: what has
// lasted long will last as long again (Harchol-Balter and Downey, Exploiting process
// lifetime distributions, TOCS 1997).
func (h *History) After(k Key, ageMS int64) Distribution {
	var chain [levels]*group
	d := Distribution{after: float64(max(ageMS, 0))}
	for i, key := range k.chain() {
		if e := h.groups[key]; e != nil {
			chain[i] = e.Value.(*group)
			if d.From == "" {
				d.Jobs, d.From = chain[i].n, levelNames[i]
			}
		}
	}
	if d.From == "" {
		return d
	}
	room := 0
	for _, g := range chain {
		if g != nil {
			room += len(g.sorted)
		}
	}
	d.values, d.weights = make([]float64, 0, room), make([]float64, 0, room)
	d.merge(chain, shares(chain))
	d.tail()
	return d
}

// shares gives the weight of one run of each level.
func shares(chain [levels]*group) [levels]float64 {
	var out [levels]float64
	left := 1.0 // of one job's weight: what wider levels may speak for
	scale := 0.0
	for i, g := range chain {
		if g == nil {
			continue
		}
		n := float64(len(g.sorted))
		if scale == 0 {
			scale = n + pull // the total is so many jobs
		}
		own := left * n / (n + pull)
		if last(chain, i) {
			own = left
		}
		out[i] = scale * own / n
		left -= own
	}
	return out
}

func last(chain [levels]*group, i int) bool {
	for _, g := range chain[i+1:] {
		if g != nil {
			return false
		}
	}
	return true
}

// merge takes the runs longer than the age from every level, in ascending order.
func (d *Distribution) merge(chain [levels]*group, weight [levels]float64) {
	var left [levels][]int64
	for i, g := range chain {
		if g == nil {
			continue
		}
		left[i] = g.sorted
		if d.after > 0 {
			first, _ := slices.BinarySearch(g.sorted, int64(d.after)+1)
			left[i] = g.sorted[first:]
		}
	}
	for {
		best, least := -1, int64(math.MaxInt64)
		for i, runs := range left {
			if len(runs) > 0 && (best < 0 || runs[0] < least) {
				best, least = i, runs[0]
			}
		}
		if best < 0 {
			return
		}
		d.values = append(d.values, float64(least))
		d.weights = append(d.weights, weight[best])
		d.total += weight[best]
		left[best] = left[best][1:]
	}
}

// tail adds what is missing of one job's weight as the tail beyond the age.
func (d *Distribution) tail() {
	missing := 1 - d.total
	if missing <= 0 || d.after <= 0 {
		return
	}
	known := *d
	d.values, d.weights, d.total = nil, nil, 1
	i := 0
	for p := range tailPoints {
		v := d.after / (1 - (float64(p)+0.5)/tailPoints)
		for i < len(known.values) && known.values[i] <= v {
			d.values, d.weights = append(d.values, known.values[i]), append(d.weights, known.weights[i])
			i++
		}
		d.values, d.weights = append(d.values, v), append(d.weights, missing/tailPoints)
	}
	d.values, d.weights = append(d.values, known.values[i:]...), append(d.weights, known.weights[i:]...)
}

// Quantile gives the least run time that the share q (0..1) of jobs does not exceed, in
// milliseconds; 0 of an empty distribution.
func (d Distribution) Quantile(q float64) float64 {
	sum := 0.0
	for i, v := range d.values {
		sum += d.weights[i]
		if sum >= q*d.total*(1-1e-12) {
			return v
		}
	}
	if n := len(d.values); n > 0 {
		return d.values[n-1]
	}
	return 0
}

// Mean gives E[T | T > age] in milliseconds; 0 of an empty distribution.
func (d Distribution) Mean() float64 {
	if d.total == 0 {
		return 0
	}
	sum := 0.0
	for i, v := range d.values {
		sum += v * d.weights[i]
	}
	return sum / d.total
}

// Gittins gives the index of a job with this distribution and attained service (the age):
// the largest ratio, over every further slice of service, of the chance that the job ends
// within it to the service that it is expected to take (Gittins, Bandit processes and
// dynamic allocation indices, 1979; as a queueing policy Aalto, Ayesta and Righter, On the
// Gittins index in the M/G/1 queue, 2009). Serving the job of the largest index first
// minimises mean completion time on one server when lengths are unknown. Per millisecond;
// +Inf when the next slice is sure to end it at no cost; 0 of an empty distribution.
func (d Distribution) Gittins() float64 {
	best, ended, spent := 0.0, 0.0, 0.0
	for i, v := range d.values {
		ended += d.weights[i]
		spent += d.weights[i] * (v - d.after)
		if i+1 < len(d.values) && d.values[i+1] == v {
			continue
		}
		service := spent + (d.total-ended)*(v-d.after)
		if service <= 0 {
			return math.Inf(1)
		}
		best = max(best, ended/service)
	}
	return best
}
