package jobspec

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// unit is a suffix of an amount of memory.
type unit struct {
	name  string
	bytes int64
}

var units = []unit{
	{"", 1}, {"B", 1},
	{"K", 1e3}, {"KB", 1e3}, {"M", 1e6}, {"MB", 1e6}, {"G", 1e9}, {"GB", 1e9}, {"T", 1e12}, {"TB", 1e12},
	{"Ki", 1 << 10}, {"KiB", 1 << 10}, {"Mi", 1 << 20}, {"MiB", 1 << 20},
	{"Gi", 1 << 30}, {"GiB", 1 << 30}, {"Ti", 1 << 40}, {"TiB", 1 << 40},
}

// thousandths reads a plain decimal number of at most three decimals, exactly.
func thousandths(text string) (int64, bool) {
	digits, negative := strings.CutPrefix(text, "-")
	whole, fraction, point := strings.Cut(digits, ".")
	if whole == "" && fraction == "" || point && fraction == "" || len(fraction) > 3 {
		return 0, false
	}
	for _, r := range whole + fraction {
		if r < '0' || r > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt("0"+whole+fraction+"000"[len(fraction):], 10, 64)
	if err != nil {
		return 0, false
	}
	if negative {
		n = -n
	}
	return n, true
}

// ParseCPU reads cores, such as 2 or 0.5, or thousandths of one, such as 500m, and gives
// millicores. The error is a fault with a hint; so are those of the other Parse functions.
func ParseCPU(text string) (int64, error) {
	const hint = "write cores, such as 2 or 0.5, or thousandths of one, such as 500m"
	if milli, ok := strings.CutSuffix(text, "m"); ok {
		n, err := strconv.ParseInt(milli, 10, 64)
		if err != nil {
			return 0, invalid("%s is not an amount of CPU", quoted(text)).Hint(hint)
		}
		return positive(n, text, hint)
	}
	n, ok := thousandths(text)
	if !ok {
		return 0, invalid("%s is not an amount of CPU", quoted(text)).Hint(hint)
	}
	return positive(n, text, hint)
}

// ParseShare reads a share of one device, such as 0.25, and gives thousandths, 1 to 999.
func ParseShare(text string) (int64, error) {
	const hint = "write a number between 0 and 1, such as 0.25, with at most three decimals"
	n, ok := thousandths(text)
	switch {
	case !ok:
		return 0, invalid("%s is not a share of a device", quoted(text)).Hint(hint)
	case n == 1000:
		return 0, invalid("a share of 1 is a whole device").Hint("leave the share out and set gpus to 1")
	case n <= 0 || n > 1000:
		return 0, invalid("a share of %s is out of range", text).Hint(hint)
	}
	return n, nil
}

// ParseBytes reads an amount of memory, such as 512Mi, 4Gi or 10GB, and gives bytes.
func ParseBytes(text string) (int64, error) {
	const hint = "write a number and a unit: K, M, G, T are powers of 1000, Ki, Mi, Gi, Ti of 1024, such as 512Mi"
	end := strings.LastIndexAny(text, "0123456789.") + 1
	number, suffix := text[:end], strings.TrimPrefix(text[end:], " ")
	n, ok := thousandths(number)
	if !ok {
		return 0, invalid("%s is not an amount of memory", quoted(text)).Hint(hint)
	}
	for _, u := range units {
		if u.name != suffix {
			continue
		}
		if n > math.MaxInt64/u.bytes {
			return 0, invalid("%s is too much memory", quoted(text)).Hint("use at most %s", FormatBytes(MemoryBytesMax))
		}
		return positive(n*u.bytes/1000, text, hint)
	}
	e := invalid("%s is not an amount of memory: there is no unit %s", quoted(text), quoted(suffix))
	if meant := meantUnit(suffix); meant != "" {
		return 0, e.Hint("write %s%s", number, meant)
	}
	return 0, e.Hint(hint)
}

// meantUnit guesses the unit that a wrong one stands for: "GBs" GB, "gb" GB, "g" G.
func meantUnit(suffix string) string {
	text := strings.ToLower(strings.TrimSpace(suffix))
	text = strings.TrimSuffix(strings.TrimSuffix(text, "s"), "yte")
	for _, u := range units {
		if u.name != "" && strings.ToLower(u.name) == text {
			return u.name
		}
	}
	return ""
}

// ParseDuration reads a duration such as 30s, 5m, 1h30m or 2d and gives milliseconds.
func ParseDuration(text string) (int64, error) {
	const hint = "write a number and a unit: ms, s, m, h or d, such as 90s or 1h30m"
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.ParseInt(days, 10, 32); err == nil {
			return positive(n*24*3600*1000, text, hint)
		}
	}
	if n, ok := thousandths(text); ok && n != 0 {
		return 0, invalid("%s has no unit", quoted(text)).Hint("write %ss for seconds", text)
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, invalid("%s is not a duration", quoted(text)).Hint(hint)
	}
	if d > 0 && d < time.Millisecond {
		return 0, invalid("%s is less than a millisecond", quoted(text)).Hint(hint)
	}
	return positive(d.Milliseconds(), text, hint)
}

// positive refuses a negative amount and 0, which in a spec means "not given".
func positive(n int64, text, hint string) (int64, error) {
	switch {
	case n < 0:
		return 0, invalid("%s is negative", text).Hint("%s", hint)
	case n == 0:
		return 0, invalid("%s is nothing", text).Hint("leave it out, or %s", hint)
	}
	return n, nil
}

// FormatBytes shows an amount of memory with the largest unit that keeps it short: 4Gi, 1.5Gi.
func FormatBytes(n int64) string {
	for _, u := range []unit{{"Ti", 1 << 40}, {"Gi", 1 << 30}, {"Mi", 1 << 20}, {"Ki", 1 << 10}} {
		if n >= u.bytes {
			return strings.TrimSuffix(strconv.FormatFloat(float64(n)/float64(u.bytes), 'f', 1, 64), ".0") + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// FormatDuration shows milliseconds as Go does, without empty parts: 1m, 1h30m, 250ms.
func FormatDuration(ms int64) string {
	if ms > math.MaxInt64/int64(time.Millisecond) || ms < math.MinInt64/int64(time.Millisecond) {
		return strconv.FormatInt(ms, 10) + "ms"
	}
	s := (time.Duration(ms) * time.Millisecond).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// formatThousandths writes thousandths without needless zeros: 1500 is 1.5.
func formatThousandths(milli int64) string {
	return strconv.FormatFloat(float64(milli)/1000, 'f', -1, 64)
}
