package simulate

import (
	"fmt"
	"path/filepath"

	"llmos/server/plot"
)

// Draw writes the drawings of several policies on one trace into a folder that exists:
// utilisation and waiting jobs over time, the distribution of completion times, and the
// Gantt chart of each policy; each as SVG and as PNG. It gives the names of the files.
func Draw(folder string, results []*Result) ([]string, error) {
	var used, waiting, jct []plot.Series
	for _, r := range results {
		u, q := plot.Series{Name: r.Policy}, plot.Series{Name: r.Policy}
		for _, p := range r.Load {
			u.X, q.X = append(u.X, p.At.Hours()), append(q.X, p.At.Hours())
			u.Y, q.Y = append(u.Y, 100*p.Busy/float64(max(1, r.Devices))), append(q.Y, float64(p.Pending))
		}
		hours := make([]float64, len(r.Ends))
		for i, e := range r.Ends {
			hours[i] = (e.Finish - e.Submit).Hours()
		}
		used, waiting = append(used, u), append(waiting, q)
		jct = append(jct, plot.Series{Name: r.Policy, Y: hours})
	}
	var files []string
	draw := func(name string, paint func(file string) error) error {
		for _, kind := range []string{".svg", ".png"} {
			file := filepath.Join(folder, name+kind)
			if err := paint(file); err != nil {
				return fmt.Errorf("draw %s: %w", name, err)
			}
			files = append(files, file)
		}
		return nil
	}
	if err := draw("utilisation", func(f string) error { return plot.Steps("Devices in use", "% of devices", used, f) }); err != nil {
		return files, err
	}
	if err := draw("waiting", func(f string) error { return plot.Steps("Waiting jobs", "jobs", waiting, f) }); err != nil {
		return files, err
	}
	if err := draw("completion", func(f string) error {
		return plot.Distribution("Job completion times", "hours from submit to end", jct, f)
	}); err != nil {
		return files, err
	}
	for _, r := range results {
		if len(r.Bars) == 0 || len(r.Rows) == 0 {
			continue // no job used a device
		}
		rows, bars := r.gantt()
		if err := draw("gantt-"+r.Policy, func(f string) error { return plot.Gantt("Cluster under "+r.Policy, rows, bars, f) }); err != nil {
			return files, err
		}
	}
	return files, nil
}

// Bounds of a Gantt chart: what lies beyond them cannot be told apart on a page.
const (
	ganttRowsMax = 1200 // then a row is a node, and beyond that only the first nodes are drawn
	ganttBarsMax = 40_000
)

// gantt gives the rows and bars as they are drawn.
func (r *Result) gantt() ([]string, []plot.Bar) {
	rows, rowOf := r.Rows, make([]int, len(r.Rows))
	for i := range rowOf {
		rowOf[i] = i
	}
	if len(rows) > ganttRowsMax {
		rows = nil
		for i, name := range r.Rows {
			if i == 0 || name != r.Rows[i-1] {
				rows = append(rows, name)
			}
			rowOf[i] = len(rows) - 1
		}
		rows = rows[:min(len(rows), ganttRowsMax)]
	}
	bars := make([]plot.Bar, 0, len(r.Bars))
	for _, b := range r.Bars {
		if rowOf[b.Row] < len(rows) {
			bars = append(bars, plot.Bar{Row: rowOf[b.Row], From: b.From.Hours(), To: b.To.Hours(), Group: b.User, Label: b.Job})
		}
	}
	for len(bars) > ganttBarsMax {
		bars = longer(bars)
	}
	return rows, bars
}

// longer leaves out the bars that are shorter than the mean.
func longer(bars []plot.Bar) []plot.Bar {
	sum := 0.0
	for _, b := range bars {
		sum += b.To - b.From
	}
	mean := sum / float64(len(bars))
	out := bars[:0]
	for _, b := range bars {
		if b.To-b.From >= mean {
			out = append(out, b)
		}
	}
	if len(out) == len(bars) { // all alike
		return thin(out)
	}
	return out
}
