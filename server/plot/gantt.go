package plot

import (
	"cmp"
	"image/color"
	"slices"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
)

// Sizes of a Gantt chart's rows in points.
const (
	rowHigh     = vg.Length(16)
	rowLow      = vg.Length(3)
	ganttHigh   = vg.Length(1200) // rows get thinner beyond
	otherGroups = "other"
)

// Gantt draws the bars of each row over time in hours, coloured by group, and writes the
// file (.svg or .png). The groups with the largest share of time have a colour each; the
// rest share grey. The first row is at the top.
func Gantt(title string, rows []string, bars []Bar, file string) error {
	if err := checkBars(title, rows, bars); err != nil {
		return err
	}
	x0, x1 := bars[0].From, bars[0].To
	for _, b := range bars {
		x0, x1 = min(x0, b.From), max(x1, b.To)
	}
	x, scale := hours(x0, x1)
	colours, marks := groupColours(bars)
	row := min(rowHigh, max(rowLow, ganttHigh/vg.Length(len(rows))))
	height := min(max(vg.Length(len(rows))*row, 120), ganttHigh) + 110
	y := axis{min: float64(len(rows)), max: 0}
	every := max(1, int((textSize*1.15)/(min(ganttHigh, vg.Length(len(rows))*row)/vg.Length(len(rows)))+0.999))
	style := write(smallSize, softInk, -1, -0.35)
	names := make([]string, len(rows))
	for i := 0; i < len(rows); i += every {
		names[i] = fit(style.Width, rows[i], pageWidth/5)
	}
	y.ticks = []tick{{at: 0, label: widest(names, style.Width)}} // makes room; drawn below as rows
	return save(file, pageWidth, height, func(c draw.Canvas) {
		f := layoutRows(c, title, marks, x, y, names, style)
		f.bars(bars, colours, scale)
	})
}

func checkBars(title string, rows []string, bars []Bar) error {
	if len(rows) == 0 || len(rows) > rowsMost {
		return invalid("%s: a Gantt chart has 1 to %d rows, not %d", title, rowsMost, len(rows)).Hint("draw fewer nodes")
	}
	for i, b := range bars {
		switch {
		case b.Row < 0 || b.Row >= len(rows):
			return invalid("%s: bar %d is in row %d of %d", title, i, b.Row, len(rows))
		case !finite(b.From) || !finite(b.To) || b.To < b.From:
			return invalid("%s: bar %d goes from %g to %g hours", title, i, b.From, b.To)
		}
	}
	return checkCounts(title, 1, len(bars))
}

func widest(names []string, width func(string) vg.Length) string {
	best := ""
	for _, n := range names {
		if width(n) > width(best) {
			best = n
		}
	}
	return best
}

// groupColours gives every group its colour: by time held, the largest first; ties by name.
func groupColours(bars []Bar) (map[string]color.NRGBA, []mark) {
	held := map[string]float64{}
	var groups []string
	for _, b := range bars {
		if _, known := held[b.Group]; !known {
			groups = append(groups, b.Group)
		}
		held[b.Group] += b.To - b.From
	}
	slices.SortFunc(groups, func(a, b string) int {
		return cmp.Or(cmp.Compare(held[b], held[a]), cmp.Compare(a, b))
	})
	colours := map[string]color.NRGBA{}
	var marks []mark
	for i, g := range groups {
		if i >= len(palette) {
			colours[g] = otherInk
			continue
		}
		colours[g] = palette[i]
		marks = append(marks, mark{name: g, fill: palette[i]})
	}
	if len(groups) > len(palette) {
		marks = append(marks, mark{name: otherGroups, fill: otherInk})
	}
	return colours, marks
}

// layoutRows is layout with a row's name in place of each tick.
func layoutRows(c draw.Canvas, title string, marks []mark, x, y axis, names []string, style draw.TextStyle) *frame {
	room := y.ticks[0].label
	y.ticks = []tick{{at: y.min, label: ""}, {at: y.max, label: ""}}
	f := layoutWith(c, title, marks, x, y, style.Width(room))
	for i, name := range names {
		if name != "" {
			f.FillText(style, vg.Point{X: f.min.X - 6, Y: f.atY(float64(i) + 0.5)}, name)
		}
	}
	return f
}

// bars fills the bars group by group, each group as one path: a trace has tens of thousands.
func (f *frame) bars(bars []Bar, colours map[string]color.NRGBA, scale float64) {
	sorted := slices.Clone(bars)
	slices.SortStableFunc(sorted, func(a, b Bar) int {
		return cmp.Or(cmp.Compare(a.Group, b.Group), cmp.Compare(a.Row, b.Row), cmp.Compare(a.From, b.From))
	})
	for i := 0; i < len(sorted); {
		group := sorted[i].Group
		var path vg.Path
		for i < len(sorted) && sorted[i].Group == group {
			i = f.addBar(&path, sorted, i, scale)
		}
		f.SetColor(colours[group])
		f.Fill(path)
	}
	style := write(smallSize, paper, -0.5, -0.35)
	for _, b := range bars {
		x0, x1 := f.atX(b.From*scale), f.atX(b.To*scale)
		if b.Label == "" || f.atY(float64(b.Row))-f.atY(float64(b.Row+1)) < smallSize || style.Width(b.Label) > x1-x0-4 {
			continue
		}
		style.Color = readable(colours[b.Group])
		f.FillText(style, vg.Point{X: (x0 + x1) / 2, Y: f.atY(float64(b.Row) + 0.5)}, b.Label)
	}
}

// addBar adds the i-th bar, joined with those after it in its row that no eye could part,
// and gives the index of the next.
func (f *frame) addBar(path *vg.Path, sorted []Bar, i int, scale float64) int {
	const apart = vg.Length(72.0 / pngDPI / 2)
	b := sorted[i]
	x0, x1 := f.atX(b.From*scale), f.atX(b.To*scale)
	next := i + 1
	for next < len(sorted) && sorted[next].Group == b.Group && sorted[next].Row == b.Row &&
		(x1-x0 < 4*apart || sorted[next].Label == "") && f.atX(sorted[next].From*scale)-x1 < apart {
		x1 = max(x1, f.atX(sorted[next].To*scale))
		next++
	}
	x1 = max(x1, x0+apart)
	high := f.atY(float64(b.Row))
	low := f.atY(float64(b.Row + 1))
	gap := (high - low) * 0.1
	if x1-x0 > 3*apart {
		x1 -= apart // a hair between neighbours
	}
	for k, p := range box(x0, low+gap, x1, high-gap) {
		if k == 0 {
			path.Move(p)
		} else {
			path.Line(p)
		}
	}
	path.Close()
	return next
}

// readable is ink or paper, whichever stands out more on c (luminance of ITU-R BT.601).
func readable(c color.NRGBA) color.Color {
	if 0.299*float64(c.R)+0.587*float64(c.G)+0.114*float64(c.B) > 140 {
		return ink
	}
	return paper
}
