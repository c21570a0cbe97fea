package jobspec

import (
	"strings"
	"time"
)

// The ways in which a point in time may be written, with a zone and without.
var (
	zonedLayouts = []string{time.RFC3339, "2006-01-02T15:04Z07:00", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04Z07:00"}
	plainLayouts = []string{"2006-01-02T15:04:05", "2006-01-02T15:04", "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02"}
)

// The span of the times that can be written: outside of it a number is probably a slip.
const (
	instantYearMin = 2000
	instantYearMax = 2200
)

// ParseTime reads a point in time, such as 2026-12-01T08:00Z, and gives Unix milliseconds.
// One without a zone is in zone; without that it is refused, for the file may be read
// elsewhere. The error is a fault with a hint.
func ParseTime(text string, zone *time.Location) (int64, error) {
	const hint = "write the date, the time and the zone, such as 2026-12-01T08:00Z or 2026-12-01T09:00+01:00"
	text = strings.TrimSpace(text)
	for _, layout := range zonedLayouts {
		if t, err := time.Parse(layout, text); err == nil {
			return bounded(t, text)
		}
	}
	for _, layout := range plainLayouts {
		in := zone
		if in == nil {
			in = time.UTC
		}
		t, err := time.ParseInLocation(layout, text, in)
		if err != nil {
			continue
		}
		if zone == nil {
			return 0, invalid("%s has no time zone", quoted(text)).Hint("write %s for UTC, or an offset such as +01:00", t.Format("2006-01-02T15:04Z07:00"))
		}
		return bounded(t, text)
	}
	return 0, invalid("%s is not a time", quoted(text)).Hint(hint)
}

func bounded(t time.Time, text string) (int64, error) {
	if y := t.UTC().Year(); y < instantYearMin || y > instantYearMax {
		return 0, invalid("%s is out of range", quoted(text)).Hint("use a year from %d to %d", instantYearMin, instantYearMax)
	}
	return t.UnixMilli(), nil
}
