// Package plot draws the few charts that llmos shows, as SVG or PNG files: steps over time,
// distributions, forecast bands, a cluster's Gantt chart and grouped bars. It draws with the
// vector canvases of gonum.org/v1/plot/vg and lays out title, legend, axes and grid itself:
// gonum's own plot type would link PDF, TeX and twelve fonts into the program. It computes
// no statistics but the order of values for a distribution, and it knows nothing of jobs.
// cmd/llmos (simulate, forecast) and the benches call it.
package plot

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgimg"
	"gonum.org/v1/plot/vg/vgsvg"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// Limits of one drawing. What lies above them is refused, not silently cut.
const (
	seriesMost = 64        // series or bands of a chart
	rowsMost   = 20_000    // rows of a Gantt chart
	pointsMost = 5_000_000 // points or bars of a chart
)

// Series is one named sequence of points, ordered by X. X of Steps is in hours; in a
// Distribution only Y counts, in Groups Y[i] is the height of the bar in group i.
type Series struct {
	Name string
	X    []float64
	Y    []float64
}

// Band is a mean with an interval around it; the four slices have one length.
type Band struct {
	Name             string
	X, Mean, Lo, Hi  []float64
	Observed, Beyond float64 // X at which observation ends (Beyond > Observed: a line is drawn there)
}

// Bar is one occupation of a row of a Gantt chart. From and To are hours; bars of one Group
// (queue or user) share a colour; Label is written into the bar where it fits.
type Bar struct {
	Row      int
	From, To float64
	Group    string
	Label    string
}

// save renders the drawing to the kind of file that its extension names. Nothing is written
// when drawing fails.
func save(file string, width, height vg.Length, paint func(draw.Canvas)) error {
	var out bytes.Buffer
	switch ext := strings.ToLower(filepath.Ext(file)); ext {
	case ".svg":
		c := vgsvg.New(width, height)
		paint(draw.New(c))
		if _, err := c.WriteTo(&out); err != nil {
			return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "draw %s: %w", file, err)
		}
	case ".png":
		c := vgimg.NewWith(vgimg.UseWH(width, height), vgimg.UseDPI(pngDPI))
		paint(draw.New(c))
		if _, err := (vgimg.PngCanvas{Canvas: c}).WriteTo(&out); err != nil {
			return fault.New(pb.ErrorKind_ERROR_KIND_INTERNAL, "draw %s: %w", file, err)
		}
	default:
		return invalid("%s: there is no drawing of the kind %q", file, ext).Hint("name a file that ends in .svg or .png")
	}
	if err := os.WriteFile(file, out.Bytes(), 0o644); err != nil {
		return invalid("write the drawing: %w", err).Hint("name a folder that exists and that you may write to")
	}
	return nil
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...)
}

// check refuses what cannot be drawn, naming the series.
func check(title string, series []Series) error {
	points := 0
	for _, s := range series {
		if len(s.X) != len(s.Y) {
			return invalid("%s: the series %q has %d X for %d Y", title, s.Name, len(s.X), len(s.Y))
		}
		points += len(s.Y)
	}
	return checkCounts(title, len(series), points)
}

func checkCounts(title string, series, points int) error {
	switch {
	case points == 0:
		return invalid("%s: there is nothing to draw", title).Hint("give at least one series with one point")
	case series > seriesMost:
		return invalid("%s: %d series are more than the %d that a chart can show", title, series, seriesMost).Hint("draw fewer")
	case points > pointsMost:
		return invalid("%s: %d points are more than the %d that a chart takes", title, points, pointsMost).Hint("thin them out")
	}
	return nil
}

func finite(v float64) bool { return !math.IsNaN(v) && !math.IsInf(v, 0) }

// span is the range of the finite values; ok is false when there are none.
func span(values ...[]float64) (lo, hi float64, ok bool) {
	lo, hi = math.Inf(1), math.Inf(-1)
	for _, vs := range values {
		for _, v := range vs {
			if finite(v) {
				lo, hi = math.Min(lo, v), math.Max(hi, v)
			}
		}
	}
	return lo, hi, lo <= hi
}
