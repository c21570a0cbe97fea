package plot

import (
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

const groupsMost = 60 // groups of bars side by side

// Groups draws one group of bars per label, one bar per series in each, with its value
// above it, and writes the file (.svg or .png). Series[i].Y[g] is the bar of series i in
// group g; not-a-number leaves a gap. Negative values are refused: bars start at zero.
func Groups(title, yLabel string, labels []string, series []Series, file string) error {
	if len(labels) == 0 || len(labels) > groupsMost {
		return invalid("%s: bars come in 1 to %d groups, not %d", title, groupsMost, len(labels))
	}
	top, marks := 0.0, make([]mark, len(series))
	for i, s := range series {
		if len(s.Y) != len(labels) {
			return invalid("%s: the series %q has %d values for %d groups", title, s.Name, len(s.Y), len(labels))
		}
		for _, v := range s.Y {
			if v < 0 || math.IsInf(v, 0) {
				return invalid("%s: the series %q has the value %g", title, s.Name, v).Hint("bars show values from zero upwards")
			}
			if finite(v) {
				top = math.Max(top, v)
			}
		}
		marks[i] = mark{name: s.Name, fill: palette[i%len(palette)]}
	}
	if err := checkCounts(title, len(series), len(series)*len(labels)); err != nil {
		return err
	}
	x := axis{min: 0, max: float64(len(labels))}
	return save(file, pageWidth, pageHeight, func(c draw.Canvas) {
		f := layout(c, title, marks, x, linear(0, top, yLabel, ticksAbout))
		below := write(textSize, softInk, -0.5, -1)
		slot := (f.max.X - f.min.X) / vg.Length(len(labels))
		for g, label := range labels {
			f.FillText(below, vg.Point{X: f.atX(float64(g) + 0.5), Y: f.min.Y - 5}, fit(below.Width, label, slot-4))
			f.group(g, series)
		}
	})
}

func (f *frame) group(g int, series []Series) {
	const share = 0.8 // of its slot that a group fills
	width := share / float64(len(series))
	above := write(smallSize, softInk, -0.5, 0)
	for i, s := range series {
		if math.IsNaN(s.Y[g]) {
			continue
		}
		from := float64(g) + (1-share)/2 + float64(i)*width
		x0, x1, y := f.atX(from), f.atX(from+width*0.92), f.atY(s.Y[g])
		f.FillPolygon(palette[i%len(palette)], box(x0, f.min.Y, x1, y))
		value := short(s.Y[g])
		if above.Width(value) <= (x1-x0)*1.25 {
			f.FillText(above, vg.Point{X: (x0 + x1) / 2, Y: y + 2}, value)
		}
	}
}

// short writes a value with three significant digits.
func short(v float64) string {
	if v == 0 {
		return "0"
	}
	digits := math.Floor(math.Log10(v))
	return number(v, math.Pow(10, math.Max(digits-2, -6)))
}
