package jobspec

import (
	"fmt"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// priorityWords are the priorities that have a name.
var priorityWords = []struct {
	word  string
	value int32
}{{"low", 25}, {"normal", PriorityDefault}, {"high", 75}, {"urgent", 90}}

// ParsePriority reads low, normal, high, urgent, or a number from 0 to 100.
func ParsePriority(text string) (int32, error) {
	words := make([]string, len(priorityWords))
	for i, p := range priorityWords {
		if text == p.word {
			return p.value, nil
		}
		words[i] = p.word
	}
	n, _, err := ParseSpan(text)
	if err != nil || strings.Contains(text, "..") {
		e := invalid("%s is not a priority", quoted(text))
		if near, _ := suggest(text, words); near != "" {
			return 0, e.Hint("did you mean %s?", near)
		}
		return 0, e.Hint("write low, normal, high, urgent, or a number from 0 to %d", PriorityMax)
	}
	return n, nil
}

func (d *decoder) priority(n *node, field string, into *int32) {
	if n.shape == number {
		d.integer(into)(n, field)
		return
	}
	var word string
	d.text(&word)(n, field)
	if n.shape != text {
		return
	}
	v, err := ParsePriority(word)
	if err != nil {
		d.at(n, field, err)
		return
	}
	*into = v
}

// timeRules are the fields that say when a job runs and how long.
func (d *decoder) timeRules(s *pb.JobSpec) []rule {
	return []rule{
		{"after", func(n *node, field string) { d.after(n, field, s) }},
		{"array", func(n *node, field string) { d.array(n, field, s) }},
		{"cron", func(n *node, field string) { d.cron(n, field, s) }},
		{"time_limit", d.amount(&s.TimeLimitMs, ParseDuration)},
		{"expected", d.amount(&s.ExpectedMs, ParseDuration)},
		{"deadline", d.instant(&s.DeadlineMs)},
		{"preemptible", func(n *node, field string) {
			may := true
			d.boolean(&may)(n, field)
			s.NoPreempt = !may
		}},
		{"min_run", d.amount(&s.MinRunMs, ParseDuration)},
		{"checkpoint", func(n *node, field string) { d.checkpoint(n, field, s) }},
		{"resume", func(n *node, field string) { d.resume(n, field, s) }},
		{"repair", func(n *node, field string) {
			if n.text == "none" {
				s.RepairMs = -1
				return
			}
			d.amount(&s.RepairMs, ParseDuration)(n, field)
		}},
		{"reservation", d.text(&s.Reservation)},
	}
}

// instant reads a point in time with its zone.
func (d *decoder) instant(into *int64) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != text {
			d.wrong(n, field, "a time").Hint("such as 2026-12-01T08:00Z")
			return
		}
		v, err := ParseTime(n.text, nil)
		if err != nil {
			d.at(n, field, err)
			return
		}
		*into = v
	}
}

// afterWords are the conditions on a dependency's end.
var afterWords = []struct {
	word string
	kind pb.DependencyKind
}{
	{"ok", pb.DependencyKind_DEPENDENCY_KIND_OK}, {"any", pb.DependencyKind_DEPENDENCY_KIND_ANY},
	{"failed", pb.DependencyKind_DEPENDENCY_KIND_FAILED},
}

// ParseAfter reads a dependency as a flag gives it: prepare, or prepare:any.
func ParseAfter(text string) (*pb.Dependency, error) {
	job, on, given := strings.Cut(text, ":")
	dep := &pb.Dependency{Job: job, Kind: pb.DependencyKind_DEPENDENCY_KIND_OK}
	if !given {
		return dep, nil
	}
	for _, w := range afterWords {
		if on == w.word {
			dep.Kind = w.kind
			return dep, nil
		}
	}
	return nil, invalid("%s is none of ok, any, failed", quoted(on)).Hint("write such as prepare:any")
}

func (d *decoder) after(n *node, field string, s *pb.JobSpec) {
	items := []*node{n}
	if n.shape == list {
		items = n.items
	}
	if len(items) > AfterMax {
		d.add(field, n.line, "the job waits for %d jobs, at most %d", len(items), AfterMax)
		return
	}
	for i, item := range items {
		at := field
		if n.shape == list {
			at = fmt.Sprintf("%s[%d]", field, i)
		}
		d.lines[at] = item.line
		dep := &pb.Dependency{Kind: pb.DependencyKind_DEPENDENCY_KIND_OK}
		s.After = append(s.After, dep)
		switch item.shape {
		case text:
			dep.Job = item.text
		case mapping:
			on := ""
			d.mapping(item, at+".", []rule{{"job", d.text(&dep.Job)}, {"on", d.oneOf(&on, "ok", "any", "failed")}})
			for _, w := range afterWords {
				if on == w.word {
					dep.Kind = w.kind
				}
			}
		default:
			d.wrong(item, at, "the name of a job, or {job: NAME, on: ok, any or failed}")
		}
	}
}

func (d *decoder) array(n *node, field string, s *pb.JobSpec) {
	s.Array = &pb.ArraySpec{}
	if n.shape == mapping {
		d.mapping(n, field+".", []rule{{"count", d.integer(&s.Array.Count)}, {"parallel", d.integer(&s.Array.Parallel)}})
		return
	}
	d.integer(&s.Array.Count)(n, field)
}

func (d *decoder) cron(n *node, field string, s *pb.JobSpec) {
	s.Cron = &pb.CronSpec{}
	if n.shape != mapping {
		d.text(&s.Cron.Schedule)(n, field)
		return
	}
	overlap := ""
	d.mapping(n, field+".", []rule{{"schedule", d.text(&s.Cron.Schedule)}, {"time_zone", d.text(&s.Cron.TimeZone)},
		{"overlap", d.oneOf(&overlap, "skip", "allow", "replace")}})
	s.Cron.Overlap = map[string]pb.CronOverlap{"skip": pb.CronOverlap_CRON_OVERLAP_SKIP, "allow": pb.CronOverlap_CRON_OVERLAP_ALLOW,
		"replace": pb.CronOverlap_CRON_OVERLAP_REPLACE}[overlap]
}
