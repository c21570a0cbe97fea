package packing

import "math"

// A column of the linear programme: what one unit of an activity uses of some rows, and
// what it is worth.
type column struct {
	rows  []int32
	uses  []float64 // by place in rows; not negative
	worth float64
}

// simplex maximises sum worth*x over columns with sum uses*x <= supply, x >= 0, by the
// revised simplex method with a dense inverse. Columns may be added while it runs (column
// generation). Supplies are positive, so that the slacks are a first basis. Ties in the
// ratio test are broken lexicographically, which excludes cycles.
type simplex struct {
	rows    int
	inverse [][]float64 // of the basis
	basic   []float64   // value of the basic variable of each row
	in      []int       // column in each row's basis; negative: the slack of row -in-1
	dual    []float64   // by row
	value   float64
	pool    []column
	pivots  int
	entry   []float64 // scratch: the entering column in terms of the basis
}

const (
	reducedLeast = 1e-7  // reduced worth from which a column enters
	pivotLeast   = 1e-9  // least pivot
	tieWidth     = 1e-10 // relative difference below which two ratios tie
)

func newSimplex(supply []float64) *simplex {
	n := len(supply)
	x := &simplex{rows: n, inverse: make([][]float64, n), basic: append([]float64(nil), supply...),
		in: make([]int, n), dual: make([]float64, n), entry: make([]float64, n)}
	cells := make([]float64, n*n)
	for i := range n {
		x.inverse[i] = cells[i*n : (i+1)*n]
		x.inverse[i][i] = 1
		x.in[i] = -i - 1
	}
	return x
}

// reduced is what one unit of the column would gain at the present duals.
func (x *simplex) reduced(c *column) float64 {
	gain := c.worth
	for k, row := range c.rows {
		gain -= x.dual[row] * c.uses[k]
	}
	return gain
}

// best gives the column of the pool with the greatest gain, -1 when none gains.
func (x *simplex) best() int {
	best, most := -1, reducedLeast
	for i := range x.pool {
		if gain := x.reduced(&x.pool[i]); gain > most {
			best, most = i, gain
		}
	}
	for row := range x.rows { // a slack enters where its dual became negative
		if gain := -x.dual[row]; gain > most {
			best, most = -row-2, gain
		}
	}
	return best
}

// enter brings a column of the pool, or the slack of row -at-2, into the basis. It fails
// when the programme is unbounded, which supplies and uses that are positive exclude.
func (x *simplex) enter(at int) bool {
	gain := x.expand(at)
	leave := x.leaving()
	if leave < 0 {
		return false
	}
	pivot := x.inverse[leave]
	scale := 1 / x.entry[leave]
	for k := range pivot {
		pivot[k] *= scale
	}
	x.basic[leave] *= scale
	for i := range x.rows {
		if f := x.entry[i]; i != leave && f != 0 {
			row := x.inverse[i]
			for k, p := range pivot {
				if p != 0 {
					row[k] -= f * p
				}
			}
			x.basic[i] = max(0, x.basic[i]-f*x.basic[leave])
		}
	}
	for k, p := range pivot {
		x.dual[k] += gain * p
	}
	x.value += gain * x.basic[leave]
	x.in[leave] = at
	if at < 0 {
		x.in[leave] = at + 1
	}
	x.pivots++
	return true
}

// expand writes the entering column in terms of the basis and gives its gain.
func (x *simplex) expand(at int) float64 {
	if at < 0 {
		row := -at - 2
		for i := range x.rows {
			x.entry[i] = x.inverse[i][row]
		}
		return -x.dual[row]
	}
	c := &x.pool[at]
	for i := range x.rows {
		sum := 0.0
		for k, row := range c.rows {
			sum += x.inverse[i][row] * c.uses[k]
		}
		x.entry[i] = sum
	}
	return x.reduced(c)
}

// leaving is the ratio test.
func (x *simplex) leaving() int {
	leave, least := -1, math.Inf(1)
	for i := range x.rows {
		if x.entry[i] <= pivotLeast {
			continue
		}
		ratio := x.basic[i] / x.entry[i]
		tied := leave >= 0 && math.Abs(ratio-least) <= tieWidth*(1+math.Abs(least))
		if leave < 0 || (!tied && ratio < least) || (tied && x.lexLess(i, leave)) {
			leave, least = i, ratio
		}
	}
	return leave
}

// lexLess compares the rows of two candidates to leave, each over its pivot.
func (x *simplex) lexLess(i, j int) bool {
	a, b := x.inverse[i], x.inverse[j]
	for k := range x.rows {
		p, q := a[k]/x.entry[i], b[k]/x.entry[j]
		if p != q {
			return p < q
		}
	}
	return false
}
