package simulate_test

import (
	"fmt"
	"strings"
	"testing"

	"llmos/server/simulate"
	"llmos/server/trace"
)

// read makes a trace of lines "submit s, duration s, devices, user".
func jobs(t *testing.T, lines string) []trace.Job {
	t.Helper()
	var out []trace.Job
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		var submit, duration int64
		var gpus int
		var user string
		if _, err := fmt.Sscan(line, &submit, &duration, &gpus, &user); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		j := trace.Job{Name: fmt.Sprintf("j%d", len(out)), User: user, Submit: submit * 1000, Duration: duration * 1000, Tasks: 1, GPUs: gpus, GPUMilli: 1000}
		if gpus > 8 {
			j.Tasks, j.GPUs = gpus/8, 8
		}
		out = append(out, j)
	}
	return out
}

func run(t *testing.T, o simulate.Options) *simulate.Result {
	t.Helper()
	r, err := simulate.Run(o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func nodes(t *testing.T, shape string) []trace.Node {
	t.Helper()
	n, err := trace.ParseShape(shape)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// Two jobs of the whole node follow each other, and the figures can be worked out by hand.
func TestTwoJobsInARow(t *testing.T) {
	r := run(t, simulate.Options{Nodes: nodes(t, "1x8"), Policy: "fifo", Jobs: jobs(t, `
		0 100 8 ann
		50 100 8 bob`)})
	if r.Jobs != 2 || r.Makespan != 200 || r.Utilisation != 1 || r.Goodput != 1 || r.Preemptions != 0 {
		t.Errorf("got %+v", r)
	}
	if r.JCT.Mean != 125 || r.Queue.Mean != 25 || r.Slowdown.Mean != 1.25 {
		t.Errorf("got JCT %v, queue %v, slowdown %v", r.JCT, r.Queue, r.Slowdown)
	}
	if len(r.Bars) != 16 || len(r.Rows) != 8 {
		t.Errorf("%d bars in %d rows", len(r.Bars), len(r.Rows))
	}
}
