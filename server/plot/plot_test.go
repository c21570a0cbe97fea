package plot_test

import (
	"bytes"
	"fmt"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/server/plot"
)

// outDir is where the drawings of the tests go: PLOT_OUT keeps them for a person to look at.
func outDir(t *testing.T) string {
	if dir := os.Getenv("PLOT_OUT"); dir != "" {
		return dir
	}
	return t.TempDir()
}

// wave is a series with n points over so many hours, without randomness.
func wave(name string, n int, hours, level, swing float64) plot.Series {
	s := plot.Series{Name: name}
	for i := range n {
		x := hours * float64(i) / float64(n)
		s.X = append(s.X, x)
		s.Y = append(s.Y, level+swing*math.Sin(x/3)+swing/2*math.Sin(float64(i*i%97)))
	}
	return s
}

func skewed(name string, n int, middle, sigma float64) plot.Series {
	s := plot.Series{Name: name}
	for i := range n {
		u := (float64(i) + 0.5) / float64(n)
		s.Y = append(s.Y, middle*math.Exp(sigma*math.Log(u/(1-u))))
	}
	return s
}

func gantt(rows, perRow int) ([]string, []plot.Bar) {
	names := make([]string, rows)
	var bars []plot.Bar
	for r := range rows {
		names[r] = fmt.Sprintf("node-%03d", r)
		at := 0.0
		for k := range perRow {
			length := 1 + float64((r*7+k*13)%11)*20/float64(perRow)
			group := fmt.Sprintf("team-%c", 'a'+(r*3+k*k)%9)
			bars = append(bars, plot.Bar{Row: r, From: at, To: at + length, Group: group, Label: fmt.Sprintf("train-%d", k)})
			at += length + float64((r+k)%3)*0.3
		}
	}
	return names, bars
}

// drawings are one of each kind of chart, in their plain and their crowded form.
func drawings() map[string]func(file string) error {
	band := plot.Band{Name: "compute: 10.0 + 1.00 t cores", Observed: 60, Beyond: 100}
	dots := plot.Series{Name: "samples"}
	for x := 0.0; x <= 100; x++ {
		w := 2 + max(0, x-60)/8
		band.X, band.Mean = append(band.X, x), append(band.Mean, 10+x)
		band.Lo, band.Hi = append(band.Lo, 10+x-w), append(band.Hi, 10+x+w)
		if x <= 60 {
			dots.X, dots.Y = append(dots.X, x), append(dots.Y, 10+x+1.5*math.Sin(x*x))
		}
	}
	return map[string]func(string) error{
		"steps": func(f string) error {
			return plot.Steps("GPU utilisation by policy", "GPUs allocated (%)",
				[]plot.Series{wave("fifo", 80, 48, 62, 9), wave("fifo + easy backfill", 80, 48, 74, 8), wave("llmos", 80, 48, 88, 5)}, f)
		},
		"steps-dense": func(f string) error {
			return plot.Steps("Queued jobs", "jobs", []plot.Series{wave("fifo", 9000, 1800, 14_000, 3000), wave("llmos", 9000, 1800, 6000, 2500)}, f)
		},
		"steps-short": func(f string) error {
			return plot.Steps("Queued jobs", "jobs", []plot.Series{wave("llmos", 30, 1.2, 3, 2)}, f)
		},
		"distribution": func(f string) error {
			return plot.Distribution("Job completion time", "hours", []plot.Series{skewed("fifo", 9000, 4, 0.9), skewed("tiresias", 9000, 1.4, 0.8), skewed("llmos", 9000, 0.7, 0.7)}, f)
		},
		"distribution-few": func(f string) error {
			return plot.Distribution("Job completion time", "hours", []plot.Series{skewed("llmos", 12, 3, 0.2)}, f)
		},
		"gantt": func(f string) error {
			rows, bars := gantt(12, 9)
			return plot.Gantt("Cluster: llmos", rows, bars, f)
		},
		"gantt-dense": func(f string) error {
			rows, bars := gantt(70, 60)
			return plot.Gantt("Cluster: llmos", rows, bars, f)
		},
		"bands": func(f string) error {
			return plot.Bands("Forecast of train-1", "training time T", "cores", []plot.Band{band}, []plot.Series{dots}, f)
		},
		"groups": func(f string) error {
			return plot.Groups("Allocated GPUs when arrivals reach capacity", "GPUs allocated (%)", []string{"default", "cpu100", "gpushare40", "gpuspec33"}, []plot.Series{
				{Name: "BestFit", Y: []float64{93.1, 93, 92.2, 86.1}}, {Name: "FGD", Y: []float64{95.2, 95.2, 94, 87.8}},
				{Name: "llmos", Y: []float64{96.2, 96.2, 94.8, 95}}, {Name: "bound", Y: []float64{96.9, 96.9, 95.6, 96.5}}}, f)
		},
	}
}

func TestDrawings(t *testing.T) {
	dir := outDir(t)
	for name, draw := range drawings() {
		t.Run(name, func(t *testing.T) {
			svg, raster := filepath.Join(dir, name+".svg"), filepath.Join(dir, name+".png")
			if err := draw(svg); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(name, "-") || os.Getenv("PLOT_OUT") != "" { // pixels are slow under -race
				if err := draw(raster); err != nil {
					t.Fatal(err)
				}
				checkInked(t, raster)
			}
			text, err := os.ReadFile(svg)
			if err != nil {
				t.Fatal(err)
			}
			if bytes.Contains(text, []byte("NaN")) || bytes.Contains(text, []byte("Inf")) {
				t.Errorf("%s holds coordinates that are no numbers", svg)
			}
			if len(text) > 4<<20 {
				t.Errorf("%s has %d bytes", svg, len(text))
			}
		})
	}
}

// checkInked wants an image of the declared size with a good deal that is not paper.
func checkInked(t *testing.T, file string) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	img, err := png.Decode(f)
	if err != nil {
		t.Fatal(err)
	}
	b, inked := img.Bounds(), 0
	for y := b.Min.Y; y < b.Max.Y; y += 8 {
		for x := b.Min.X; x < b.Max.X; x += 8 {
			if r, g, bl, _ := img.At(x, y).RGBA(); r+g+bl < 3*0xe000 {
				inked++
			}
		}
	}
	if share := float64(64*inked) / float64(b.Dx()*b.Dy()); b.Dx() != 1440 || share < 0.005 {
		t.Errorf("%s: %v with %.2f %% inked", file, b, 100*share)
	}
}

func TestSameInputDrawsTheSameBytes(t *testing.T) {
	dir := t.TempDir()
	for name, draw := range drawings() {
		a, b := filepath.Join(dir, "a.svg"), filepath.Join(dir, "b.svg")
		if err := draw(a); err != nil {
			t.Fatal(err)
		}
		if err := draw(b); err != nil {
			t.Fatal(err)
		}
		x, _ := os.ReadFile(a)
		y, _ := os.ReadFile(b)
		if !bytes.Equal(x, y) {
			t.Errorf("%s: two drawings of one input differ", name)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	one := []plot.Series{{Name: "a", X: []float64{0, 1}, Y: []float64{1, 2}}}
	file := filepath.Join(dir, "x.svg")
	for _, c := range []struct {
		name, want string
		err        error
	}{
		{"kind of file", `kind ".pdf"`, plot.Steps("t", "y", one, filepath.Join(dir, "x.pdf"))},
		{"no folder", "write the drawing", plot.Steps("t", "y", one, filepath.Join(dir, "none", "x.svg"))},
		{"nothing", "nothing to draw", plot.Steps("t", "y", nil, file)},
		{"unequal", "2 X for 1 Y", plot.Steps("t", "y", []plot.Series{{X: []float64{0, 1}, Y: []float64{1}}}, file)},
		{"back in time", "goes back in time", plot.Steps("t", "y", []plot.Series{{X: []float64{1, 0}, Y: []float64{1, 2}}}, file)},
		{"no number", "finite", plot.Steps("t", "y", []plot.Series{{X: []float64{1}, Y: []float64{math.NaN()}}}, file)},
		{"log of zero", "above zero", plot.Distribution("t", "x", []plot.Series{{Y: []float64{0, -1}}}, file)},
		{"row", "row 3 of 1", plot.Gantt("t", []string{"n"}, []plot.Bar{{Row: 3, To: 1}}, file)},
		{"backward bar", "from 2 to 1", plot.Gantt("t", []string{"n"}, []plot.Bar{{From: 2, To: 1}}, file)},
		{"no rows", "not 0", plot.Gantt("t", nil, []plot.Bar{{To: 1}}, file)},
		{"below zero", "the value -1", plot.Groups("t", "y", []string{"g"}, []plot.Series{{Y: []float64{-1}}}, file)},
		{"groups", "2 values for 1", plot.Groups("t", "y", []string{"g"}, []plot.Series{{Y: []float64{1, 2}}}, file)},
		{"band", "unequal length", plot.Bands("t", "x", "y", []plot.Band{{X: []float64{1}}}, nil, file)},
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q in it", c.name, c.err, c.want)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("%s: a refused drawing left a file", c.name)
		}
	}
}

// Odd but lawful input draws without a fault.
func TestOddInput(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.svg")
	for name, err := range map[string]error{
		"one point":     plot.Steps("t", "y", []plot.Series{{X: []float64{5}, Y: []float64{0}}}, file),
		"constant":      plot.Steps("t", "y", []plot.Series{{X: []float64{0, 9}, Y: []float64{7, 7}}}, file),
		"negative":      plot.Steps("t", "y", []plot.Series{{X: []float64{0, 9}, Y: []float64{-7, -1}}}, file),
		"tiny":          plot.Steps("t", "y", []plot.Series{{X: []float64{0, 1e-6}, Y: []float64{1e-9, 2e-9}}}, file),
		"huge":          plot.Steps("t", "y", []plot.Series{{X: []float64{0, 1e6}, Y: []float64{1e15, 2e15}}}, file),
		"gaps":          plot.Steps("t", "y", []plot.Series{{X: []float64{0, 1, 2}, Y: []float64{1, math.NaN(), 3}}}, file),
		"one value":     plot.Distribution("t", "x", []plot.Series{{Y: []float64{3}}}, file),
		"empty beside":  plot.Distribution("t", "x", []plot.Series{{Y: []float64{3, 4}}, {}}, file),
		"many decades":  plot.Distribution("t", "x", []plot.Series{{Y: []float64{1e-30, 1, 1e9}}}, file),
		"instant bar":   plot.Gantt("t", []string{"n"}, []plot.Bar{{From: 1, To: 1, Group: "g"}}, file),
		"long title":    plot.Steps(strings.Repeat("long ", 60), "y", []plot.Series{{Name: strings.Repeat("name ", 60), X: []float64{0, 1}, Y: []float64{1, 2}}}, file),
		"zero bars":     plot.Groups("t", "y", []string{"g"}, []plot.Series{{Y: []float64{0}}}, file),
		"points alone":  plot.Bands("t", "x", "y", nil, []plot.Series{{X: []float64{1}, Y: []float64{1}}}, file),
		"<markup> text": plot.Steps("a < b & c", "y", []plot.Series{{Name: "<script>", X: []float64{0, 1}, Y: []float64{1, 2}}}, file),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if raw, _ := os.ReadFile(file); bytes.Contains(raw, []byte("<script>")) {
			t.Errorf("%s: text reaches the SVG as markup", name)
		}
	}
}
