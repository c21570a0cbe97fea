package plot

import (
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Distribution draws the share of values at or below x for each series' Y, x on a
// logarithmic axis, and writes the file (.svg or .png). Values at or below zero count, at
// the axis' left end. X of the series is not read.
func Distribution(title, xLabel string, series []Series, file string) error {
	points, sorted, marks := 0, make([][]float64, len(series)), make([]mark, len(series))
	lo, hi := math.Inf(1), math.Inf(-1)
	for i, s := range series {
		for _, v := range s.Y {
			if finite(v) {
				sorted[i] = append(sorted[i], v)
			}
			if finite(v) && v > 0 {
				lo, hi = math.Min(lo, v), math.Max(hi, v)
			}
		}
		slices.Sort(sorted[i])
		points += len(sorted[i])
		marks[i] = mark{name: s.Name, line: stroke(i, len(series))}
	}
	if err := checkCounts(title, len(series), points); err != nil {
		return err
	}
	if lo > hi {
		return invalid("%s: no value is above zero, so that a logarithmic axis has nothing to show", title)
	}
	x, y := logarithmic(lo, hi, xLabel), linear(0, 100, "share at or below (%)", 5)
	return save(file, pageWidth, pageHeight, func(c draw.Canvas) {
		f := layout(c, title, marks, x, y)
		for i := range series {
			f.StrokeLines(stroke(i, len(series)), f.shares(sorted[i]))
		}
	})
}

// shares are the corners of an empirical distribution, thinned to what can be told apart.
func (f *frame) shares(sorted []float64) []vg.Point {
	n := len(sorted)
	if n == 0 {
		return nil
	}
	line := []vg.Point{{X: f.atX(sorted[0]), Y: f.min.Y}}
	least := (f.max.X - f.min.X) / vg.Length(2*f.columns())
	for i, v := range sorted {
		p := f.at(v, 100*float64(i+1)/float64(n))
		last := line[len(line)-1]
		if p.X-last.X < least && p.Y-last.Y < least && i < n-1 {
			continue
		}
		line = append(line, vg.Point{X: p.X, Y: last.Y}, p)
	}
	return append(line, vg.Point{X: f.max.X, Y: line[len(line)-1].Y})
}
