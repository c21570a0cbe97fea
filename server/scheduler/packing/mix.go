package packing

import (
	"math"
	"slices"
)

// Bounds of the mix.
const (
	// ShapesMax bounds the distinct shapes that a mix holds; openb's richest list has 330.
	ShapesMax = 1024
	// HalfLife is the number of arrivals after which an observation counts half. It is long
	// against the few thousand pods that fill a cluster of thousands of devices, and short
	// against a year of jobs.
	HalfLife = 50_000
	// RefreshMax bounds the arrivals between two times that the mix is due.
	RefreshMax = 2000

	// turnoverHalfLife is that of the ratio of departures to arrivals, in arrivals.
	turnoverHalfLife = 2000

	weightMax = 1e12 // of the newest observation, before all are scaled back
)

// Mix is the workload mix, learned as tasks arrive: each shape's share of the arrivals, the
// older ones counting less. The zero value is an empty mix. It is not safe for concurrent use.
type Mix struct {
	shapes   []Shape
	weights  []float64
	index    map[Shape]int
	unit     float64 // weight of the next observation; grows instead of all others shrinking
	arrivals uint64
	learned  uint64  // arrivals when the mix was last used
	came     float64 // arrivals of late
	left     float64 // departures of late
}

// Observe counts arriving tasks of one shape, whether or not they will find a place.
func (m *Mix) Observe(s Shape, tasks int) {
	if tasks <= 0 {
		return
	}
	if m.index == nil {
		m.index, m.unit = map[Shape]int{}, 1
	}
	n := float64(tasks)
	m.arrivals += uint64(tasks)
	fade := math.Exp2(-n / turnoverHalfLife)
	m.came, m.left = n+m.came*fade, m.left*fade
	at, known := m.index[s]
	if !known {
		if len(m.shapes) >= ShapesMax {
			m.dropLightest()
		}
		at = len(m.shapes)
		m.index[s] = at
		m.shapes = append(m.shapes, s)
		m.weights = append(m.weights, 0)
	}
	m.weights[at] += n * m.unit
	if m.unit *= math.Exp2(n / HalfLife); m.unit > weightMax {
		for i := range m.weights {
			m.weights[i] /= m.unit
		}
		m.unit = 1
	}
}

// Depart counts tasks that leave the places they had.
func (m *Mix) Depart(tasks int) { m.left += float64(max(0, tasks)) }

// Turnover is the part of the arrivals of late that was matched by departures: 0 while a
// cluster fills, 1 when as many leave as come.
func (m *Mix) Turnover() float64 {
	if m.came <= 0 {
		return 0
	}
	return min(1, m.left/m.came)
}

// dropLightest forgets the shape with the least weight, the oldest of equals.
func (m *Mix) dropLightest() {
	least := 0
	for i, w := range m.weights {
		if w < m.weights[least] {
			least = i
		}
	}
	delete(m.index, m.shapes[least])
	m.shapes = slices.Delete(m.shapes, least, least+1)
	m.weights = slices.Delete(m.weights, least, least+1)
	for i := least; i < len(m.shapes); i++ {
		m.index[m.shapes[i]] = i
	}
}

// Arrivals is the number of tasks observed.
func (m *Mix) Arrivals() uint64 { return m.arrivals }

// Due says whether so much has arrived since Learn last read the mix that prices should be
// learned anew: 10 tasks, a fifth of all, and at most RefreshMax.
func (m *Mix) Due() bool {
	if m.learned == 0 {
		return m.arrivals > 0
	}
	since := m.arrivals - m.learned
	return since >= RefreshMax || (since >= 10 && since*5 >= m.learned)
}

// part is one shape of a mix with its share of the arrivals.
type part struct {
	shape Shape
	share float64 // shares sum to 1
}

// parts gives the mix in the order of shapes and the arrivals it stands for, the older ones
// counting less. It marks the mix as used.
func (m *Mix) parts() (parts []part, seen float64) {
	m.learned = m.arrivals
	total := 0.0
	for _, w := range m.weights {
		total += w
	}
	parts = make([]part, len(m.shapes))
	for i := range parts {
		parts[i] = part{shape: m.shapes[i], share: m.weights[i] / total}
	}
	slices.SortFunc(parts, func(a, b part) int { return a.shape.compare(&b.shape) })
	return parts, total / max(m.unit, 1)
}
