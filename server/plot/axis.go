package plot

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// tick is one mark of an axis; a minor one has a grid line and no label.
type tick struct {
	at    float64
	label string
	minor bool
}

// axis maps values to 0..1.
type axis struct {
	min, max float64
	log      bool
	label    string
	ticks    []tick
}

func (a axis) norm(v float64) float64 {
	if a.log {
		v = math.Max(v, a.min)
		return math.Log(v/a.min) / math.Log(a.max/a.min)
	}
	return (v - a.min) / (a.max - a.min)
}

const ticksAbout = 6 // wanted on an axis

// linear makes an axis over lo..hi with round ends. One that comes near zero starts there.
func linear(lo, hi float64, label string, wanted int) axis {
	if lo > 0 && lo < 0.5*hi {
		lo = 0
	}
	if hi <= lo {
		hi = lo + math.Max(math.Abs(lo), 1)
	}
	step := roundStep((hi - lo) / float64(wanted))
	a := axis{min: math.Floor(lo/step+1e-9) * step, max: math.Ceil(hi/step-1e-9) * step, label: label}
	a.mark(step)
	return a
}

// roundStep gives the smallest of 1, 2, 2.5 and 5 times a power of ten at or above least.
func roundStep(least float64) float64 {
	power := math.Pow(10, math.Floor(math.Log10(least)))
	for _, m := range []float64{1, 2, 2.5, 5} {
		if m*power >= least*(1-1e-9) {
			return m * power
		}
	}
	return 10 * power
}

func (a *axis) mark(step float64) {
	first := math.Ceil(a.min/step - 1e-9)
	for i := first; i*step <= a.max+step*1e-9; i++ {
		v := i * step
		if math.Abs(v) < step*1e-9 {
			v = 0
		}
		a.ticks = append(a.ticks, tick{at: v, label: numberIn(v, step, math.Max(math.Abs(a.min), math.Abs(a.max)))})
	}
}

// number writes a tick's value with as many decimals as the step needs, thousands as k and M.
func number(v, step float64) string { return numberIn(v, step, math.Abs(v)) }

// numberIn is number in the unit of the largest value of an axis.
func numberIn(v, step, largest float64) string {
	unit, suffix := 1.0, ""
	switch big := math.Max(largest, step); {
	case v == 0:
		return "0"
	case big >= 1e9:
		unit, suffix = 1e9, "G"
	case big >= 1e6:
		unit, suffix = 1e6, "M"
	case big >= 1e4:
		unit, suffix = 1e3, "k"
	}
	s := step / unit
	decimals := 0
	for decimals < 9 && math.Abs(s-math.Round(s)) > 1e-6*math.Max(s, 1e-300) {
		s *= 10
		decimals++
	}
	return strings.Replace(strconv.FormatFloat(v/unit, 'f', decimals, 64), "-", "\u2212", 1) + suffix
}

// timeSteps are the steps that people read clocks in: minutes, hours and days.
var timeSteps = map[string][]float64{
	"minutes": {1, 2, 5, 10, 15, 20, 30},
	"hours":   {0.5, 1, 2, 3, 4, 6, 12, 24, 48},
	"days":    {1, 2, 5, 7, 14, 28, 56, 91, 182, 364},
}

const wantedOfTime = 9

// hours makes a time axis over lo..hi hours, in the unit that reads best; scale turns hours
// into that unit.
func hours(lo, hi float64) (a axis, scale float64) {
	unit, scale := "hours", 1.0
	switch {
	case hi-lo <= 2:
		unit, scale = "minutes", 60
	case hi-lo > 14*24:
		unit, scale = "days", 1.0/24
	}
	lo, hi = lo*scale, hi*scale
	if lo > 0 && lo < 0.2*hi {
		lo = 0
	}
	if hi <= lo {
		hi = lo + 1
	}
	step := roundStep((hi - lo) / wantedOfTime)
	for _, s := range timeSteps[unit] {
		if (hi-lo)/s <= wantedOfTime {
			step = s
			break
		}
	}
	a = axis{min: lo, max: hi, label: fmt.Sprintf("time (%s)", unit)}
	a.mark(step)
	return a, scale
}

const decadesMost = 12 // of a log axis; what lies below is drawn at its left end

// logarithmic makes an axis over lo..hi, both positive, that ends at 1, 2 or 5 times a power of ten.
func logarithmic(lo, hi float64, label string) axis {
	lo = math.Max(lo, hi/math.Pow(10, decadesMost))
	a := axis{min: logEnd(lo, false), max: logEnd(hi, true), log: true, label: label}
	if a.max <= a.min*1.0001 {
		a.min, a.max = a.min/2, a.max*2
	}
	few := math.Log10(a.max/a.min) < 3
	many := math.Log10(a.max/a.min) > 7
	for d := math.Floor(math.Log10(a.min) + 1e-9); d <= math.Log10(a.max)+1e-9; d++ {
		for m := 1.0; m < 10; m++ {
			v := m * math.Pow(10, d)
			if v < a.min*0.9999 || v > a.max*1.0001 {
				continue
			}
			major := m == 1 && (!many || int(d)%2 == 0) || few && (m == 2 || m == 5)
			if major {
				a.ticks = append(a.ticks, tick{at: v, label: number(v, math.Min(v, math.Pow(10, d)))})
			} else if few || !many {
				a.ticks = append(a.ticks, tick{at: v, minor: true})
			}
		}
	}
	return a
}

// logEnd rounds v down, or up, to 1, 2 or 5 times a power of ten.
func logEnd(v float64, up bool) float64 {
	power := math.Pow(10, math.Floor(math.Log10(v)+1e-9))
	ends := []float64{1, 2, 5, 10}
	best := power
	for _, m := range ends {
		if up && m*power >= v*0.9999 {
			return m * power
		}
		if m*power <= v*1.0001 {
			best = m * power
		}
	}
	return best
}
