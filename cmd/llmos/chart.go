package main

import (
	"math"
	"strings"
	"unicode/utf8"

	"llmos/server/forecast"
)

// Size of a chart in characters.
const (
	chartRows     = 9
	chartColsMost = 72
	chartColsMin  = 16
)

// The characters of a chart.
const (
	chartSeen = '•'
	chartMean = '─'
	chartBand = '░'
	chartNow  = '┊'
)

// textChart draws samples, and from the phase's start to the end of the outlook the fit
// with its band, in so many columns with the labels. label writes a value.
func textChart(o *outlook, columns int, label func(float64) string) string {
	from, to := o.times[0], o.until
	top := o.peak()
	labels := []string{label(top), label(top / 2), label(0)}
	wide := 0
	for _, l := range labels {
		wide = max(wide, utf8.RuneCountInString(l))
	}
	cols := max(min(columns-wide-2, chartColsMost), chartColsMin)
	g := newGrid(cols, from, to, top)
	_, start, _ := o.series.Phase()
	for c := range cols {
		if t := g.time(c); t >= start {
			g.fill(c, o.series.Predict(t))
		}
	}
	for r, line := range g.cell {
		if c := g.column(o.now()); line[c] == ' ' {
			g.cell[r][c] = chartNow
		}
	}
	for k, t := range o.times {
		g.cell[g.row(o.values[k])][g.column(t)] = chartSeen
	}
	return g.text(labels, wide) + timeAxis(from, to, cols, wide)
}

// grid is the data area of a chart: row 0 is at the top.
type grid struct {
	cell          [chartRows][]rune
	from, to, top float64
}

func newGrid(cols int, from, to, top float64) *grid {
	g := &grid{from: from, to: to, top: top}
	for r := range g.cell {
		g.cell[r] = []rune(strings.Repeat(" ", cols))
	}
	return g
}

func (g *grid) cols() int { return len(g.cell[0]) }

func (g *grid) time(c int) float64 {
	return g.from + (g.to-g.from)*(float64(c)+0.5)/float64(g.cols())
}

func (g *grid) column(t float64) int {
	c := int(float64(g.cols()) * (t - g.from) / math.Max(g.to-g.from, math.SmallestNonzeroFloat64))
	return max(min(c, g.cols()-1), 0)
}

func (g *grid) row(v float64) int {
	return max(min(int(math.Round((1-v/g.top)*(chartRows-1))), chartRows-1), 0)
}

// fill draws the band and the mean of one column.
func (g *grid) fill(c int, i forecast.Interval) {
	for r := g.row(i.Hi); r <= g.row(i.Lo); r++ {
		g.cell[r][c] = chartBand
	}
	g.cell[g.row(i.Mean)][c] = chartMean
}

func (g *grid) text(labels []string, wide int) string {
	var b strings.Builder
	for r, line := range g.cell {
		l := ""
		switch r {
		case 0:
			l = labels[0]
		case chartRows / 2:
			l = labels[1]
		case chartRows - 1:
			l = labels[2]
		}
		edge := "│"
		if l != "" {
			edge = "┤"
		}
		b.WriteString(strings.Repeat(" ", wide-utf8.RuneCountInString(l)) + l + " " + edge + strings.TrimRight(string(line), " ") + "\n")
	}
	return b.String()
}

// timeAxis is the line below the chart with the times of both ends.
func timeAxis(from, to float64, cols, wide int) string {
	pad := strings.Repeat(" ", wide+1)
	left, right := spanText(from), spanText(to)
	gap := max(cols-utf8.RuneCountInString(left)-utf8.RuneCountInString(right), 1)
	return pad + "└" + strings.Repeat("─", cols) + "\n" + pad + " " + left + strings.Repeat(" ", gap) + right + "\n"
}
