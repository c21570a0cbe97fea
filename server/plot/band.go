package plot

import (
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const (
	dotsMost = 4000 // dots of one series; beyond, every k-th is drawn
	dotAlpha = 0x58 // so that the line shows above them
)

// Bands draws each band's mean as a line within its pale interval, the points as dots below
// them, and writes the file (.svg or .png). The i-th band and the i-th points share a colour.
func Bands(title, xLabel, yLabel string, bands []Band, points []Series, file string) error {
	if err := check(title, points); err != nil && len(points) > 0 {
		return err
	}
	var xs, ys [][]float64
	var marks []mark
	count := 0
	for i, b := range bands {
		if n := len(b.X); len(b.Mean) != n || len(b.Lo) != n || len(b.Hi) != n {
			return invalid("%s: the band %q has slices of unequal length", title, b.Name)
		}
		xs, ys = append(xs, b.X), append(ys, b.Mean, b.Lo, b.Hi)
		count += len(b.X)
		marks = append(marks, mark{name: b.Name, line: stroke(i, 1+i), fill: pale(palette[i%len(palette)], 0x38)})
	}
	for i, s := range points {
		xs, ys = append(xs, s.X), append(ys, s.Y)
		count += len(s.X)
		marks = append(marks, mark{name: s.Name, fill: pale(palette[i%len(palette)], dotAlpha), glyph: true})
	}
	if err := checkCounts(title, len(bands)+len(points), count); err != nil {
		return err
	}
	x0, x1, okX := span(xs...)
	y0, y1, okY := span(ys...)
	if !okX || !okY {
		return invalid("%s: no value is a finite number", title)
	}
	x := linear(x0, x1, xLabel, wantedOfTime)
	x.clip(x0, x1)
	return save(file, pageWidth, pageHeight, func(c draw.Canvas) {
		f := layout(c, title, marks, x, linear(y0, y1, yLabel, ticksAbout))
		for i, s := range points {
			f.dots(s, i)
		}
		for i, b := range bands {
			f.band(b, i)
		}
	})
}

// clip ends the axis at the data instead of at the next round number.
func (a *axis) clip(lo, hi float64) {
	if hi <= lo {
		return
	}
	if a.min < lo && a.min != 0 {
		a.min = lo
	}
	a.max = hi
	a.ticks = slices.DeleteFunc(a.ticks, func(t tick) bool { return t.at < a.min || t.at > a.max*(1+1e-9) })
}

func (f *frame) band(b Band, i int) {
	var upper, lower, line []vg.Point
	for k := range b.X {
		if !finite(b.X[k]) || !finite(b.Mean[k]) || !finite(b.Lo[k]) || !finite(b.Hi[k]) {
			continue
		}
		upper = append(upper, f.at(b.X[k], b.Hi[k]))
		lower = append(lower, f.at(b.X[k], b.Lo[k]))
		line = append(line, f.at(b.X[k], b.Mean[k]))
	}
	slices.Reverse(lower)
	if area := append(upper, lower...); len(area) > 2 {
		f.FillPolygon(pale(palette[i%len(palette)], 0x38), area)
	}
	f.StrokeLines(stroke(i, 1+i), line)
	if b.Beyond > b.Observed {
		x := f.atX(b.Observed)
		f.StrokeLine2(draw.LineStyle{Color: frameInk, Width: 0.8, Dashes: []vg.Length{3, 3}}, x, f.min.Y, x, f.max.Y)
	}
}

func (f *frame) dots(s Series, i int) {
	style := draw.GlyphStyle{Color: pale(palette[i%len(palette)], dotAlpha), Radius: 1.6, Shape: draw.CircleGlyph{}}
	for k := 0; k < len(s.X); k += len(s.X)/dotsMost + 1 {
		if finite(s.X[k]) && finite(s.Y[k]) {
			f.DrawGlyph(style, f.at(s.X[k], s.Y[k]))
		}
	}
}
