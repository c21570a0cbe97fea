package scheduler

import (
	"fmt"
	"strconv"
	"strings"
)

// The words of explanations: amounts as people write them.

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30
)

func cpus(milli int64) string {
	if milli == 1000 {
		return "1 CPU"
	}
	return decimal(milli) + " CPUs"
}

// decimal writes thousandths without trailing zeros.
func decimal(milli int64) string {
	s := fmt.Sprintf("%d.%03d", milli/1000, milli%1000)
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}

func bytes(n int64) string {
	switch {
	case n >= gib && n%gib == 0:
		return strconv.FormatInt(n/gib, 10) + " GiB"
	case n >= gib:
		return strconv.FormatFloat(float64(n)/gib, 'f', 1, 64) + " GiB"
	case n >= mib:
		return strconv.FormatInt(n/mib, 10) + " MiB"
	case n >= kib:
		return strconv.FormatInt(n/kib, 10) + " KiB"
	}
	return strconv.FormatInt(n, 10) + " bytes"
}

func ports(n int64) string { return plural(n, "port") }

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return strconv.FormatInt(n, 10) + " " + noun + "s"
}

// areFree is the verb that agrees with a number.
func areFree(n int64) string {
	if n == 1 {
		return strconv.FormatInt(n, 10) + " is free"
	}
	return strconv.FormatInt(n, 10) + " are free"
}

// gpus names an amount of whole devices, with the model when one is asked.
func gpus(n int64, model string) string {
	if model != "" {
		return plural(n, model+" GPU")
	}
	return plural(n, "GPU")
}

// listed joins at most most names and counts the rest.
func listed(names []string, most int) string {
	rest := 0
	if len(names) > most {
		names, rest = names[:most], len(names)-most
	}
	s := strings.Join(names, ", ")
	if rest > 0 {
		s += fmt.Sprintf(" and %d more", rest)
	}
	return s
}
