package plot

import (
	"math"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Steps draws values that hold until the next point (utilisation, queue length) over time in
// hours, and writes the file (.svg or .png). A series with more points than can be told
// apart is drawn as its mean over time per column, within the pale range of its values.
func Steps(title, yLabel string, series []Series, file string) error {
	if err := check(title, series); err != nil {
		return err
	}
	xs, ys := make([][]float64, len(series)), make([][]float64, len(series))
	marks := make([]mark, len(series))
	for i, s := range series {
		if !slices.IsSorted(s.X) {
			return invalid("%s: the series %q goes back in time", title, s.Name).Hint("sort its points by X")
		}
		xs[i], ys[i] = s.X, s.Y
		marks[i] = mark{name: s.Name, line: stroke(i, len(series))}
	}
	x0, x1, okX := span(xs...)
	y0, y1, okY := span(ys...)
	if !okX || !okY {
		return invalid("%s: no value is a finite number", title)
	}
	x, scale := hours(x0, x1)
	return save(file, pageWidth, pageHeight, func(c draw.Canvas) {
		f := layout(c, title, marks, x, linear(y0, y1, yLabel, ticksAbout))
		for i, s := range series {
			f.steps(stroke(i, len(series)), s, scale, i)
		}
	})
}

// steps draws one series.
func (f *frame) steps(style draw.LineStyle, s Series, scale float64, i int) {
	columns := f.columns()
	if len(s.X) <= 2*columns {
		f.StrokeLines(style, f.stairs(s, scale))
		return
	}
	mean, lo, hi := condense(s, scale, f.x.min, f.x.max, columns)
	var upper, lower []vg.Point
	for k := range mean.X {
		upper = append(upper, f.at(mean.X[k], hi[k]))
		lower = append(lower, f.at(mean.X[k], lo[k]))
	}
	slices.Reverse(lower)
	f.FillPolygon(pale(palette[i%len(palette)], 0x38), append(upper, lower...))
	var line []vg.Point
	for k := range mean.X {
		line = append(line, f.at(mean.X[k], mean.Y[k]))
	}
	f.StrokeLines(style, line)
}

// stairs are the corners of a series that holds each value until the next point.
func (f *frame) stairs(s Series, scale float64) []vg.Point {
	var line []vg.Point
	for k := range s.X {
		if !finite(s.X[k]) || !finite(s.Y[k]) {
			continue
		}
		p := f.at(s.X[k]*scale, s.Y[k])
		if n := len(line); n > 0 && line[n-1].Y != p.Y {
			line = append(line, vg.Point{X: p.X, Y: line[n-1].Y})
		}
		line = append(line, p)
	}
	return line
}

// condense gives, per column, the mean over time and the range of a series that holds each
// value until the next point. X is at the columns' middles, in scaled units.
func condense(s Series, scale, from, to float64, columns int) (mean Series, lo, hi []float64) {
	width := (to - from) / float64(columns)
	k, last := 0, math.NaN()
	for col := range columns {
		start := from + float64(col)*width
		end := start + width
		sum, held, low, high, at := 0.0, 0.0, last, last, start
		for ; k < len(s.X) && (s.X[k]*scale < end || col == columns-1); k++ {
			v, x := s.Y[k], s.X[k]*scale
			if !finite(v) || !finite(x) {
				continue
			}
			if finite(last) {
				sum, held = sum+last*(x-at), held+x-at
			}
			at, last = x, v
			low, high = least(low, v), most(high, v)
		}
		if !finite(last) {
			continue
		}
		if k < len(s.X) { // the value lasts beyond this column
			sum, held = sum+last*(end-at), held+end-at
		} else if held == 0 {
			break
		}
		average := last
		if held > 0 {
			average = sum / held
		}
		mean.X, mean.Y = append(mean.X, start+width/2), append(mean.Y, average)
		lo, hi = append(lo, low), append(hi, high)
	}
	return mean, lo, hi
}

// least and most treat not-a-number as absent.
func least(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return math.Min(a, b)
}

func most(a, b float64) float64 {
	if math.IsNaN(a) {
		return b
	}
	return math.Max(a, b)
}
