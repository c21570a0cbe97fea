package main

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"llmos/server/forecast"
)

// usage is what the samples of one job look like: a flat demand, one that grows, one that
// grows and then holds, and one in steps.
func usage(samples int) []measured {
	var out []measured
	wobble := func(i int) float64 { return math.Sin(float64(i * i)) }
	for i := range samples {
		t := float64(i) * 30
		out = append(out,
			measured{forecast.CPU, t, 7.5 + 0.3*wobble(i)},
			measured{forecast.HostMemory, t, (24+6*t/3600)*(1<<30) + 1e8*wobble(i+1)},
			measured{forecast.DeviceMemory, t, 72e9*math.Min(1, 0.2+t/1500) + 5e7*wobble(i+2)},
			measured{forecast.Disk, t, 1e9 + 14e9*math.Floor(t/1500)})
	}
	return out
}

func TestForecastText(t *testing.T) {
	a, out, _ := testApp()
	a.showForecast("train-1", outlooks(usage(361), 0))
	golden(t, "forecast.golden", out.String())
}

// On a terminal no line is wider than it.
func TestForecastOnTerminal(t *testing.T) {
	for _, width := range []int{widthMin, 60, 200} {
		a, out, _ := testApp()
		a.outTTY, a.columns = true, func() int { return width }
		a.getenv = func(name string) (string, bool) { return "1", name == "NO_COLOR" }
		for _, o := range outlooks(usage(200), 0) {
			out.Reset()
			a.printf("%s", textChart(o, width, func(v float64) string { return amount(o.resource, v) }))
			for _, line := range strings.Split(out.String(), "\n") {
				if n := utf8.RuneCountInString(line); n > width {
					t.Errorf("%d columns on a terminal of %d: %s", n, width, line)
				}
			}
		}
	}
}

// Whatever the samples, a chart has its rows and the verb does not fall over.
func TestForecastOfAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var samples []measured
		at := 0.0
		for range rapid.IntRange(1, 80).Draw(t, "samples") {
			at += rapid.Float64Range(1e-3, 1e6).Draw(t, "gap")
			samples = append(samples, measured{forecast.Disk, at, rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(0, 1e18)).Draw(t, "value")})
		}
		a, out, _ := testApp()
		a.showForecast("any", outlooks(samples, 0))
		if strings.Contains(out.String(), "NaN") || strings.Count(out.String(), "\n") < chartRows+6 {
			t.Fatalf("got\n%s", out.String())
		}
	})
}

// What reads samples takes every file that is written by the rules, and any faulty field is
// named with its own line.
func TestReadSamples(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		lines := rapid.IntRange(1, 30).Draw(t, "lines")
		for i := range lines {
			fmt.Fprintf(&text, "%d, %s, %g\n", i*10, rapid.SampledFrom(forecast.Resources()).Draw(t, "resource"), rapid.Float64Range(0, 1e15).Draw(t, "value"))
		}
		got, err := readSamples("f", strings.NewReader(text.String()))
		if err != nil || len(got) != lines {
			t.Fatalf("%d samples of %d, %v", len(got), lines, err)
		}
		bad := rapid.IntRange(1, lines).Draw(t, "faulty line")
		all := strings.Split(text.String(), "\n")
		all[bad-1] = rapid.SampledFrom([]string{"x,cpu,1", "1,cpu,NaN", "1,cpu,1e999", "1,CPU,1", "1,cpu", "1,cpu,1,1", "-1,cpu,1"}).Draw(t, "fault")
		if _, err = readSamples("f", strings.NewReader(strings.Join(all, "\n"))); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("f:%d:", bad)) {
			t.Fatalf("line %d is %q: got %v", bad, all[bad-1], err)
		}
	})
}

func TestExampleComesFromTheFit(t *testing.T) {
	a, out, _ := testApp()
	if err := a.forecastExample(&forecastOptions{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"C = C0 + a*T = 10 + 1*100 = 110 cores", "D = D0 + b*T = 10 + 1*100 = 110 GB", "R = R0 + g*T = 10 + 0.05*100 = 15 units"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out)
		}
	}
	before := exampleLines[0].slope
	exampleLines[0].slope = 2
	defer func() { exampleLines[0].slope = before }()
	out.Reset()
	if err := a.forecastExample(&forecastOptions{}); err != nil || !strings.Contains(out.String(), "10 + 2*100 = 210 cores") {
		t.Errorf("another slope changes nothing: %v\n%s", err, out)
	}
}
