package main

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"llmos/server/forecast"
	"llmos/server/plot"
)

const (
	secondsPerHour = 3600
	outlookPoints  = 200 // of a drawn band
)

const forecastLong = `Fit how a job's demand grows with its training time T, and predict it with an interval:
compute C = C0 + a*T, data D = D0 + b*T, scheduling work R = R0 + g*T. A slope counts only
where it is significant; elsewhere the level is predicted.

The leader's samples of a running job are fitted: agents measure every few seconds.
--samples reads measurements from a CSV file of seconds, resource and value; the resources
are cpu (cores), memory, gpu_memory, disk (bytes) and scheduling. --example needs no job.`

// forecastOptions are the flags of the verb.
type forecastOptions struct {
	example bool
	samples string
	out     string
	ahead   time.Duration
	format  format
}

func (a *app) forecastCommand() *cobra.Command {
	var o forecastOptions
	var c connection
	cmd := &cobra.Command{
		Use: "forecast [JOB]", Short: "Predict what a job will need as it goes on", Long: forecastLong,
		Args:    arguments(0, 1, "the ID or name of one job, or --example"),
		Example: "  llmos forecast train-1\n  llmos forecast train-1 --ahead 6h --out plots\n  llmos forecast train-1 --samples usage.csv\n  llmos forecast --example",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.example && (len(args) > 0 || o.samples != ""):
				return invalid("--example takes neither a job nor --samples").Hint("llmos forecast --example")
			case o.example:
				return a.forecastExample(&o)
			case len(args) == 0:
				return invalid("no job is named").Hint("%s", "llmos forecast JOB, or llmos forecast --example")
			case o.ahead < 0:
				return invalid("--ahead %s is in the past", o.ahead).Hint("it says how far beyond the last sample to look: --ahead 2h")
			case o.samples == "":
				return a.with(cmd, &c, func(ctx context.Context, s *session) error {
					return a.forecastJob(ctx, args[0], samplesOf(s, args[0]), &o)
				})
			}
			return a.forecastJob(cmd.Context(), args[0], a.samplesFile(o.samples), &o)
		},
	}
	f := cmd.Flags()
	f.BoolVar(&o.example, "example", false, "the worked example: T = 100, from samples of the first 60 hours")
	f.StringVar(&o.samples, "samples", "", "CSV `FILE` of seconds, resource, value")
	f.StringVar(&o.out, "out", "", "also draw each fit as SVG and PNG into this `DIR`ectory")
	f.DurationVar(&o.ahead, "ahead", 0, "how far beyond the last sample to predict (default: half of the time seen)")
	c.flags(cmd)
	o.format.flag(cmd)
	return cmd
}

// outlook is one resource of one job: what was seen, its fit, and how far to look.
type outlook struct {
	resource      forecast.Resource
	series        *forecast.Series
	times, values []float64
	until         float64 // seconds after the job's start
}

func (o *outlook) now() float64 { return o.times[len(o.times)-1] }

// peak is the largest value that a drawing shows.
func (o *outlook) peak() float64 {
	top := math.SmallestNonzeroFloat32
	for _, v := range o.values {
		top = math.Max(top, v)
	}
	return math.Max(top, math.Max(o.series.Predict(o.until).Hi, o.series.Predict(o.now()).Hi))
}

// outlooks fits the samples of every resource that has any, in the fixed order.
func outlooks(samples []measured, ahead time.Duration) []*outlook {
	var job forecast.Job
	byResource := map[forecast.Resource]*outlook{}
	for _, m := range samples {
		o := byResource[m.resource]
		if o == nil {
			o = &outlook{resource: m.resource, series: job.Of(m.resource)}
			byResource[m.resource] = o
		}
		o.series.Observe(m.seconds, m.value)
		o.times, o.values = append(o.times, m.seconds), append(o.values, m.value)
	}
	var out []*outlook
	for _, r := range forecast.Resources() {
		o := byResource[r]
		if o == nil {
			continue
		}
		o.until = o.now() + ahead.Seconds()
		if ahead == 0 {
			o.until = o.now() + math.Max((o.now()-o.times[0])/2, 60)
		}
		out = append(out, o)
	}
	return out
}

// forecastJob fits, prints and draws.
func (a *app) forecastJob(ctx context.Context, job string, source sampleSource, o *forecastOptions) error {
	samples, err := source(ctx)
	if err != nil {
		return err
	}
	all := outlooks(samples, o.ahead)
	if o.format.json {
		if err := a.forecastJSON(job, all); err != nil {
			return err
		}
	} else {
		a.showForecast(job, all)
	}
	return a.drawForecast("Forecast of "+job, all, o.out)
}

func (a *app) showForecast(job string, all []*outlook) {
	t := a.outTint()
	table := &table{header: []string{"RESOURCE", "SAMPLES", "AT T=0", "PER HOUR", "SURE", "PHASE", "NOW", "AT", "EXPECTED", "AT MOST"},
		right: map[int]bool{1: true, 2: true, 3: true, 5: true, 6: true, 7: true, 8: true, 9: true}}
	for _, o := range all {
		table.add(o.row()...)
	}
	a.printf("%s\n\n", t.paint(bold, oneLine(job)))
	a.show(table)
	columns := widthDefault
	if a.outTTY {
		columns = min(a.columns(), widthMax)
	}
	for _, o := range all {
		a.printf("\n%s  %s\n", t.paint(bold, o.resource.String()+" ("+unitOf(o.resource)+")"),
			t.paint(faint, fmt.Sprintf("%c seen  %c expected  %c 98 %% band  %c now", chartSeen, chartMean, chartBand, chartNow)))
		a.printf("%s", textChart(o, columns, func(v float64) string { return amount(o.resource, v) }))
		a.printf("%s\n", o.sentence())
	}
}

// row is the outlook's line of the table.
func (o *outlook) row() []cell {
	fit, end := o.series.Line(), o.series.Predict(o.until)
	changes, _, _ := o.series.Phase()
	text := func(v float64) cell { return plain(amount(o.resource, v)) }
	sure := cell{"no", faint}
	if o.series.Significant() {
		sure = cell{"yes", green}
	}
	return []cell{plain(o.resource.String()), plain(fmt.Sprint(len(o.values))), text(fit.Intercept), plain(signed(o.resource, fit.Slope*secondsPerHour)),
		sure, plain(fmt.Sprint(changes + 1)), text(o.values[len(o.values)-1]), plain(spanText(o.until)), text(end.Mean), text(end.Hi)}
}

// sentence says in words what the fit means for decisions.
func (o *outlook) sentence() string {
	fit := o.series.Line()
	changes, start, samples := o.series.Phase()
	slope := signed(o.resource, fit.Slope*secondsPerHour) + " an hour"
	doubt := ", give or take " + amount(o.resource, fit.SlopeError*secondsPerHour)
	since := ""
	if changes > 0 {
		since = ", since " + spanText(start)
	}
	switch {
	case fit.Rise != 0:
		return fmt.Sprintf("it goes in steps of %s every %s: %s", signed(o.resource, fit.Rise), spanText(fit.Every), slope)
	case !o.series.Warm():
		return fmt.Sprintf("%s in this phase%s: too few for a fit, so that the job's request is its bound", count(samples, "sample"), since)
	case o.series.Significant():
		return "the slope is " + slope + doubt + since
	}
	return "no significant slope (" + slope + doubt + since + "): the level is predicted"
}

// forecastLine is one resource in the JSON of the verb.
type forecastLine struct {
	Resource     string  `json:"resource"`
	Unit         string  `json:"unit"`
	Samples      int     `json:"samples"`
	Phase        int     `json:"phase"`
	PhaseStart   float64 `json:"phase_start_s"`
	Significant  bool    `json:"significant"`
	Intercept    float64 `json:"at_zero"`
	SlopePerHour float64 `json:"slope_per_hour"`
	SlopeError   float64 `json:"slope_error_per_hour"`
	Sigma        float64 `json:"sigma"`
	Now          float64 `json:"now"`
	At           float64 `json:"at_s"`
	Expected     float64 `json:"expected"`
	AtLeast      float64 `json:"at_least"`
	AtMost       float64 `json:"at_most"`
}

func (a *app) forecastJSON(job string, all []*outlook) error {
	answer := struct {
		Job       string         `json:"job"`
		Resources []forecastLine `json:"resources"`
	}{Job: job}
	for _, o := range all {
		fit, end := o.series.Line(), o.series.Predict(o.until)
		changes, start, _ := o.series.Phase()
		answer.Resources = append(answer.Resources, forecastLine{Resource: o.resource.String(), Unit: unitOf(o.resource), Samples: len(o.values),
			Phase: changes + 1, PhaseStart: start, Significant: o.series.Significant(), Intercept: fit.Intercept, SlopePerHour: fit.Slope * secondsPerHour,
			SlopeError: fit.SlopeError * secondsPerHour, Sigma: fit.Sigma, Now: o.values[len(o.values)-1], At: o.until,
			Expected: end.Mean, AtLeast: end.Lo, AtMost: end.Hi})
	}
	return json.NewEncoder(a.out).Encode(answer)
}

// drawForecast writes forecast-RESOURCE.svg and .png into dir; an empty dir: nothing.
func (a *app) drawForecast(title string, all []*outlook, dir string) error {
	if dir == "" {
		return nil
	}
	path, err := a.absolute(dir)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return invalid("make the directory of the drawings: %w", err).Hint("--out names a directory")
	}
	for _, o := range all {
		for _, kind := range []string{".svg", ".png"} {
			file := filepath.Join(path, "forecast-"+o.resource.String()+kind)
			if err := o.draw(title, file); err != nil {
				return err
			}
			a.note("drawn: %s\n", file)
		}
	}
	return nil
}

// draw writes one drawing: samples, fit and band, time in hours.
func (o *outlook) draw(title, file string) error {
	unit, scale := drawnUnit(o.resource, o.peak())
	seen := plot.Series{Name: "samples"}
	for k, t := range o.times {
		seen.X, seen.Y = append(seen.X, t/secondsPerHour), append(seen.Y, o.values[k]/scale)
	}
	_, start, _ := o.series.Phase()
	band := plot.Band{Name: "fit and 98 % band", Observed: o.now() / secondsPerHour, Beyond: o.until / secondsPerHour}
	for k := range outlookPoints + 1 {
		t := start + (o.until-start)*float64(k)/outlookPoints
		i := o.series.Predict(t)
		band.X, band.Mean = append(band.X, t/secondsPerHour), append(band.Mean, i.Mean/scale)
		band.Lo, band.Hi = append(band.Lo, i.Lo/scale), append(band.Hi, i.Hi/scale)
	}
	return plot.Bands(title+": "+o.resource.String(), "training time T (hours)", unit, []plot.Band{band}, []plot.Series{seen}, file)
}

// unitOf is the unit in words.
func unitOf(r forecast.Resource) string {
	switch r {
	case forecast.CPU:
		return "cores"
	case forecast.Scheduling:
		return "work"
	}
	return "bytes"
}

// drawnUnit gives the unit of an axis that reaches peak, and how many of it is one there.
func drawnUnit(r forecast.Resource, peak float64) (unit string, scale float64) {
	if unitOf(r) != "bytes" {
		return unitOf(r), 1
	}
	scale = 1.0
	for _, unit = range []string{"bytes", "KiB", "MiB", "GiB", "TiB", "PiB"} {
		if peak < 1024*scale {
			break
		}
		if unit != "PiB" {
			scale *= 1024
		}
	}
	return unit, scale
}

// amount writes a value of a resource briefly.
func amount(r forecast.Resource, v float64) string {
	if unitOf(r) == "bytes" {
		sign := ""
		if v < 0 {
			sign, v = "-", -v
		}
		return sign + bytesText(int64(math.Round(min(v, math.MaxInt64/2))))
	}
	if v != 0 && math.Abs(v) < 1 {
		return strings.TrimSuffix(fmt.Sprintf("%.2g", v), ".0")
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", v), ".0")
}

// signed is amount with its sign.
func signed(r forecast.Resource, v float64) string {
	if text := amount(r, v); v > 0 && text != "0" {
		return "+" + text
	}
	return amount(r, v)
}

// spanText writes seconds as people say them: 90s, 1.5h.
func spanText(seconds float64) string {
	switch {
	case seconds < 120:
		return fmt.Sprintf("%.0fs", seconds)
	case seconds < 2*secondsPerHour:
		return fmt.Sprintf("%.0fm", seconds/60)
	case seconds < 100*secondsPerHour:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", seconds/secondsPerHour), ".0") + "h"
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", seconds/secondsPerHour/24), ".0") + "d"
}
