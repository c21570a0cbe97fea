package packing

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// optimum is the greatest worth over all vertices: every choice of as many tight
// constraints as there are variables is solved.
func optimum(columns []column, supply []float64) float64 {
	n, rows := len(columns), len(supply)
	// Constraints: rows first, then x_j >= 0.
	coefficient := func(constraint, variable int) float64 {
		if constraint >= rows {
			if constraint-rows == variable {
				return 1
			}
			return 0
		}
		for k, row := range columns[variable].rows {
			if int(row) == constraint {
				return columns[variable].uses[k]
			}
		}
		return 0
	}
	best := 0.0
	var choose func(from int, tight []int)
	choose = func(from int, tight []int) {
		if len(tight) == n {
			m := make([][]float64, n)
			for i, c := range tight {
				m[i] = make([]float64, n+1)
				for j := range n {
					m[i][j] = coefficient(c, j)
				}
				if c < rows {
					m[i][n] = supply[c]
				}
			}
			if x, ok := gauss(m); ok && feasible(columns, supply, x) {
				worth := 0.0
				for j := range x {
					worth += x[j] * columns[j].worth
				}
				best = max(best, worth)
			}
			return
		}
		for c := from; c < rows+n; c++ {
			choose(c+1, append(tight, c))
		}
	}
	choose(0, nil)
	return best
}

func gauss(m [][]float64) ([]float64, bool) {
	n := len(m)
	for c := range n {
		p := c
		for i := c; i < n; i++ {
			if math.Abs(m[i][c]) > math.Abs(m[p][c]) {
				p = i
			}
		}
		if math.Abs(m[p][c]) < 1e-9 {
			return nil, false
		}
		m[c], m[p] = m[p], m[c]
		for i := range n {
			if i != c {
				f := m[i][c] / m[c][c]
				for k := c; k <= n; k++ {
					m[i][k] -= f * m[c][k]
				}
			}
		}
	}
	x := make([]float64, n)
	for i := range n {
		x[i] = m[i][n] / m[i][i]
	}
	return x, true
}

func feasible(columns []column, supply, x []float64) bool {
	used := make([]float64, len(supply))
	for j := range x {
		if x[j] < -1e-9 {
			return false
		}
		for k, row := range columns[j].rows {
			used[row] += x[j] * columns[j].uses[k]
		}
	}
	for i := range supply {
		if used[i] > supply[i]+1e-7 {
			return false
		}
	}
	return true
}

// TestSimplexFindsTheOptimum compares with all vertices; many supplies are equal, so that
// ratios tie and vertices are degenerate.
func TestSimplexFindsTheOptimum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows := rapid.IntRange(1, 4).Draw(t, "rows")
		supply := make([]float64, rows)
		for i := range supply {
			supply[i] = float64(rapid.SampledFrom([]int{1, 1, 2, 5}).Draw(t, "supply"))
		}
		x := newSimplex(supply)
		for range rapid.IntRange(1, 4).Draw(t, "columns") {
			c := column{worth: float64(rapid.IntRange(-1, 6).Draw(t, "worth"))}
			for i := range rows {
				if u := rapid.IntRange(0, 3).Draw(t, "use"); u > 0 {
					c.rows, c.uses = append(c.rows, int32(i)), append(c.uses, float64(u))
				}
			}
			if len(c.rows) > 0 {
				x.pool = append(x.pool, c)
			}
		}
		for at := x.best(); at != -1; at = x.best() {
			if !x.enter(at) || x.pivots > 1000 {
				t.Fatalf("no optimum after %d pivots", x.pivots)
			}
		}
		if want := optimum(x.pool, supply); math.Abs(x.value-want) > 1e-6 {
			t.Fatalf("value %v, want %v", x.value, want)
		}
		// The duals prove it: they are feasible and price the supplies at the value.
		priced := 0.0
		for i := range supply {
			if x.dual[i] < -1e-6 {
				t.Fatalf("dual %v", x.dual)
			}
			priced += x.dual[i] * supply[i]
		}
		for i := range x.pool {
			if gain := x.reduced(&x.pool[i]); gain > 1e-6 {
				t.Fatalf("column %d still gains %v", i, gain)
			}
		}
		if math.Abs(priced-x.value) > 1e-6 {
			t.Fatalf("the duals price the supplies at %v, the value is %v", priced, x.value)
		}
	})
}

// TestBoundIsAbove: no way to put whole tasks on the devices of one node allocates more than
// the bound, and where everything fits the bound is the demand.
func TestBoundIsAbove(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		devices := rapid.IntRange(1, 3).Draw(t, "devices")
		cpu := int64(rapid.IntRange(1, 12).Draw(t, "cpu")) * 1000
		fleet := Fleet{{Name: "A", GPUs: int64(devices), CPU: cpu, Memory: 100}}
		var tasks []Counted
		var each []Shape
		demand := 0.0
		for range rapid.IntRange(1, 5).Draw(t, "tasks") {
			s := Shape{CPU: int64(rapid.IntRange(0, 4).Draw(t, "task cpu")) * 1000, GPUs: 1, Models: Any,
				Share: int32(rapid.SampledFrom([]int{200, 330, 470, 530, 700, 1000}).Draw(t, "share"))}
			if s.Share == Whole {
				s.GPUs = int32(rapid.IntRange(1, 2).Draw(t, "gpus"))
			}
			tasks = append(tasks, Counted{Shape: s, Tasks: 1})
			each = append(each, s)
			demand += float64(s.Demand()) / Whole
		}
		bound, ok := Bound(tasks, fleet)
		if !ok {
			t.Fatal("no optimum")
		}
		free := make([]int32, devices)
		for i := range free {
			free[i] = Whole
		}
		most := packed(each, free, cpu)
		if bound < most-1e-6 || bound > min(demand, float64(devices))+1e-6 {
			t.Fatalf("bound %v, but %v can be had of %v on %d devices", bound, most, demand, devices)
		}
	})
}

// packed is the most that can be allocated, by trying everything.
func packed(tasks []Shape, free []int32, cpu int64) float64 {
	if len(tasks) == 0 {
		return 0
	}
	s, best := &tasks[0], packed(tasks[1:], free, cpu)
	if s.CPU > cpu {
		return best
	}
	var place func(from int, left int32)
	place = func(from int, left int32) {
		if left == 0 {
			best = max(best, float64(s.Demand())/Whole+packed(tasks[1:], free, cpu-s.CPU))
			return
		}
		for i := from; i < len(free); i++ {
			if free[i] >= s.Share {
				free[i] -= s.Share
				place(i+1, left-1)
				free[i] += s.Share
			}
		}
	}
	place(0, s.GPUs)
	return best
}

// TestResidualsArePatterns: what a rest is worth never falls as it grows, and no two rests
// are worth more apart than together.
func TestResidualsArePatterns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var mix Mix
		for range rapid.IntRange(1, 6).Draw(t, "shapes") {
			mix.Observe(Shape{CPU: 1000, GPUs: 1, Share: int32(rapid.SampledFrom([]int{100, 125, 250, 330, 470, 650, 1000}).Draw(t, "share")),
				Models: Any}, rapid.IntRange(1, 9).Draw(t, "tasks"))
		}
		p := Learn(&mix, Fleet{{Name: "A", GPUs: 100, CPU: int64(rapid.IntRange(50, 400).Draw(t, "cpu")) * 1000, Memory: 100}})
		v := p.values[0]
		a := rapid.IntRange(0, Whole).Draw(t, "a")
		b := rapid.IntRange(0, Whole-a).Draw(t, "b")
		if v[a] > v[a+b] || v[a]+v[b] > v[a+b]+2 || v[a] < 0 || v[Whole] > Device+1 {
			t.Fatalf("rests of %d and %d are worth %d and %d, together %d; a device %d", a, b, v[a], v[b], v[a+b], v[Whole])
		}
	})
}

// TestScarcityLevels: restricted demand is spread so that no shift between models that it
// accepts would lower the higher load.
func TestScarcityLevels(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		fleet := Fleet{{GPUs: int64(rapid.IntRange(1, 50).Draw(t, "A"))}, {GPUs: int64(rapid.IntRange(1, 50).Draw(t, "B"))}, {GPUs: int64(rapid.IntRange(1, 50).Draw(t, "C"))}}
		parts := []part{{Shape{GPUs: 1, Share: Whole, Models: 3}, 0.2}, {Shape{GPUs: 1, Share: Whole, Models: 6}, 0.3}, {Shape{GPUs: 1, Share: Whole, Models: Any}, 0.5}}
		price := scarcity(parts, 1e6, fleet)
		sum := 0.0
		for m := range price {
			sum += price[m] * float64(fleet[m].GPUs)
			if price[m] < 0 || price[m] > 1 {
				t.Fatalf("prices %v", price)
			}
		}
		if want := 0.5 * fleet.devices(); sum > want*1.0001+1e-3 {
			t.Fatalf("prices %v put %v on the models, the demand is %v", price, sum, want)
		}
		// B is in both sets: if it is dearer than A and C, everything of both avoids it.
		if price[1] > price[0]+1e-3 && price[1] > price[2]+1e-3 && price[1] > 1e-3 {
			t.Fatalf("prices %v of fleet %v: demand stays where it is dearest", price, fleet)
		}
	})
}

func BenchmarkLearn(b *testing.B) {
	var mix Mix
	for i := range 300 {
		s := Shape{CPU: int64(1+i%17) * 1000, Memory: int64(i % 40), GPUs: 1, Share: int32(100 + i*37%90*10), Models: Any}
		if i%3 == 0 {
			s.Models = Models(1 + i%60)
		}
		if i%5 == 0 {
			s.Share = Whole
			s.GPUs = 1 << (i % 4)
		}
		mix.Observe(s, 1+i%13)
	}
	fleet := Fleet{}
	for m := range 7 {
		n := int64(100 * (m + 1))
		fleet = append(fleet, Capacity{GPUs: n, CPU: n * 12_000, Memory: n * 64})
	}
	for b.Loop() {
		Learn(&mix, fleet)
	}
}
