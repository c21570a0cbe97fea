package main

import (
	"fmt"
	"math"
	"strconv"

	"llmos/server/forecast"
)

// The mission's worked example: each demand at T = 0 and its growth per hour, looked at
// after 100 hours. Samples are taken on these lines, once an hour, for 60 hours.
const (
	exampleHours = 100
	exampleSeen  = 60
)

var exampleLines = []struct {
	letter, growth string // of the model
	resource       forecast.Resource
	unit           string
	zero, slope    float64
}{
	{"C", "a", forecast.CPU, "cores", 10, 1},
	{"D", "b", forecast.Disk, "GB", 10, 1},
	{"R", "g", forecast.Scheduling, "units of scheduling work", 10, 0.05},
}

// exampleDigits is how many digits of a fitted coefficient are shown: more than the fit's
// own error would be noise.
const exampleDigits = 3

// forecastExample feeds the example's samples to the fit and prints what the fit says.
func (a *app) forecastExample(o *forecastOptions) error {
	var samples []measured
	for T := 0.0; T <= exampleSeen; T++ {
		for _, l := range exampleLines {
			samples = append(samples, measured{l.resource, T * secondsPerHour, (l.zero + l.slope*T) * exampleScale(l.unit)})
		}
	}
	all := outlooks(samples, 0)
	for _, e := range all {
		e.until = exampleHours * secondsPerHour
	}
	if o.format.json {
		if err := a.forecastJSON("example", all); err != nil {
			return err
		}
		return a.drawForecast("Worked example", all, o.out)
	}
	a.printf("Fitted on line from %d samples of each demand over %d hours; predicted at T = %d hours:\n\n", exampleSeen+1, exampleSeen, exampleHours)
	for _, l := range exampleLines {
		for _, e := range all {
			if e.resource == l.resource {
				fit, end, scale := e.series.Line(), e.series.Predict(e.until), exampleScale(l.unit)
				a.printf("  %s = %s0 + %s*T = %s + %s*%d = %s %s  %s\n", l.letter, l.letter, l.growth, digits(fit.Intercept/scale),
					digits(fit.Slope*secondsPerHour/scale), exampleHours, digits(end.Mean/scale), l.unit,
					a.outTint().paint(faint, fmt.Sprintf("(98 %% of values within %s .. %s)", digits(end.Lo/scale), digits(end.Hi/scale))))
			}
		}
	}
	a.printf("\nThe mission prints 12.5 for its third line; 10 + 0.05*100 is 15.\n")
	return a.drawForecast("Worked example", all, o.out)
}

// exampleScale is how many of the samples' unit is one of the example's.
func exampleScale(unit string) float64 {
	if unit == "GB" {
		return 1e9
	}
	return 1
}

// digits writes v with so many significant digits, without trailing zeroes.
func digits(v float64) string {
	if v == 0 {
		return "0"
	}
	scale := math.Pow(10, exampleDigits-1-math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(math.Round(v*scale)/scale, 'f', -1, 64)
}
