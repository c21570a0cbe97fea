package plot

import (
	"image/color"
	"math"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// mark is an entry of the legend.
type mark struct {
	name  string
	line  draw.LineStyle // Width 0: a filled swatch of the colour fill
	fill  color.Color
	glyph bool // a dot
}

// frame is the data area of a chart between two axes.
type frame struct {
	draw.Canvas
	x, y     axis
	min, max vg.Point
}

func (f *frame) at(x, y float64) vg.Point { return vg.Point{X: f.atX(x), Y: f.atY(y)} }
func (f *frame) atX(x float64) vg.Length {
	return f.min.X + vg.Length(f.x.norm(x))*(f.max.X-f.min.X)
}
func (f *frame) atY(y float64) vg.Length {
	return f.min.Y + vg.Length(f.y.norm(y))*(f.max.Y-f.min.Y)
}

// layout draws everything but the data: paper, title, legend, grid and axes.
func layout(c draw.Canvas, title string, marks []mark, x, y axis) *frame {
	style := write(textSize, softInk, -1, -0.35)
	left := vg.Length(0)
	for _, t := range y.ticks {
		left = max(left, style.Width(t.label))
	}
	return layoutWith(c, title, marks, x, y, left)
}

// layoutWith is layout with the room that the labels left of the data need.
func layoutWith(c draw.Canvas, title string, marks []mark, x, y axis, left vg.Length) *frame {
	c.FillPolygon(paper, []vg.Point{c.Min, {X: c.Max.X, Y: c.Min.Y}, c.Max, {X: c.Min.X, Y: c.Max.Y}})
	top := c.Max.Y - margin
	style := boldly(write(titleSize, ink, 0, -1))
	c.FillText(style, vg.Point{X: c.Min.X + margin, Y: top}, fit(style.Width, title, c.Max.X-c.Min.X-2*margin))
	top -= titleSize * 1.25
	if len(marks) > 0 {
		top = legend(c, marks, top-4)
	}
	top -= textSize
	label := write(textSize, softInk, 0, -1)
	if y.label != "" { // read horizontally above the axis: no turned heads
		c.FillText(label, vg.Point{X: c.Min.X + margin, Y: top}, y.label)
		top -= textSize * 2.3
	}
	f := &frame{Canvas: c, x: x, y: y, max: vg.Point{X: c.Max.X - margin - 10, Y: top}}
	f.min = vg.Point{X: c.Min.X + margin + left + 6, Y: c.Min.Y + margin + textSize*1.3}
	if x.label != "" {
		f.min.Y += textSize * 1.6
		c.FillText(write(textSize, softInk, -0.5, 0), vg.Point{X: (f.min.X + f.max.X) / 2, Y: c.Min.Y + margin*0.8}, x.label)
	}
	f.grid()
	return f
}

// grid draws the lines and labels of both axes.
func (f *frame) grid() {
	line := draw.LineStyle{Color: gridInk, Width: gridWidth}
	faint := draw.LineStyle{Color: pale(gridInk, 0x80), Width: gridWidth}
	below := write(textSize, softInk, -0.5, -1)
	for _, t := range f.x.ticks {
		x, style := f.atX(t.at), line
		if t.minor {
			style = faint
		}
		f.StrokeLine2(style, x, f.min.Y, x, f.max.Y)
		f.FillText(below, vg.Point{X: x, Y: f.min.Y - 5}, t.label)
	}
	beside := write(textSize, softInk, -1, -0.35)
	for _, t := range f.y.ticks {
		y := f.atY(t.at)
		f.StrokeLine2(line, f.min.X, y, f.max.X, y)
		f.FillText(beside, vg.Point{X: f.min.X - 6, Y: y}, t.label)
	}
	f.StrokeLine2(draw.LineStyle{Color: frameInk, Width: 0.8}, f.min.X, f.min.Y, f.max.X, f.min.Y)
}

// legend draws the marks in rows from top downwards and gives where the last row ends.
func legend(c draw.Canvas, marks []mark, top vg.Length) vg.Length {
	const gap = 16
	style := write(textSize, ink, 0, -0.35)
	x, y := c.Min.X+margin, top-textSize
	for _, m := range marks {
		if m.name == "" {
			continue
		}
		name := fit(style.Width, m.name, (c.Max.X-c.Min.X)/2)
		width := swatchWidth + 5 + style.Width(name)
		if x+width > c.Max.X-margin && x > c.Min.X+margin {
			x, y = c.Min.X+margin, y-textSize*1.5
		}
		swatch(c, m, x, y)
		c.FillText(style, vg.Point{X: x + swatchWidth + 5, Y: y}, name)
		x += width + gap
	}
	return y - textSize*0.6
}

func swatch(c draw.Canvas, m mark, x, y vg.Length) {
	switch {
	case m.glyph:
		c.DrawGlyph(draw.GlyphStyle{Color: m.fill, Radius: 2.4, Shape: draw.CircleGlyph{}}, vg.Point{X: x + swatchWidth/2, Y: y})
	case m.line.Width > 0:
		if m.fill != nil {
			c.FillPolygon(m.fill, box(x, y-4, x+swatchWidth, y+4))
		}
		style := m.line
		style.Width = lineWidth * 1.4
		c.StrokeLine2(style, x, y, x+swatchWidth, y)
	default:
		c.FillPolygon(m.fill, box(x+4, y-4.5, x+swatchWidth, y+4.5))
	}
}

func box(x0, y0, x1, y1 vg.Length) []vg.Point {
	return []vg.Point{{X: x0, Y: y0}, {X: x1, Y: y0}, {X: x1, Y: y1}, {X: x0, Y: y1}}
}

// fit shortens text to a width, the last character being an ellipsis.
func fit(width func(string) vg.Length, s string, most vg.Length) string {
	if width(s) <= most {
		return s
	}
	runes := []rune(s)
	lo, hi := 0, len(runes)
	for lo < hi {
		mid := (lo + hi + 1) / 2
		if width(string(runes[:mid])+"\u2026") <= most {
			lo = mid
		} else {
			hi = mid - 1
		}
	}
	if lo == 0 {
		return ""
	}
	return string(runes[:lo]) + "\u2026"
}

// columns is how many points across the data area can be told apart.
func (f *frame) columns() int { return int(math.Ceil(float64(f.max.X-f.min.X) * pngDPI / 72 / 2)) }
