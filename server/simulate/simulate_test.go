package simulate_test

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"fmt"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
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

// What every policy must keep, on the same small but crowded trace: every job ends, no device
// is held twice, no more work is done than there is room for, and the same input gives the
// same result.
func TestEveryPolicy(t *testing.T) {
	lines := ""
	for i := range 60 {
		lines += fmt.Sprintf("%d %d %d user%d\n", 40*i, 30+(i*i*37)%2000, []int{1, 1, 1, 2, 4, 8, 16}[i%7], i%5)
	}
	crowd := jobs(t, lines)
	for _, p := range simulate.Policies() {
		t.Run(p.Name, func(t *testing.T) {
			o := simulate.Options{Nodes: nodes(t, "3x8"), Jobs: crowd, Policy: p.Name}
			r := run(t, o)
			if r.Jobs != len(crowd) || len(r.Ends) != len(crowd) {
				t.Fatalf("%d of %d jobs ended", r.Jobs, len(crowd))
			}
			if r.Utilisation <= 0 || r.Utilisation > 1 || r.Goodput <= 0 || r.Goodput > 1 || r.Jain <= 0 || r.Jain > 1.000001 {
				t.Errorf("utilisation %v, goodput %v, Jain %v", r.Utilisation, r.Goodput, r.Jain)
			}
			for _, e := range r.Ends {
				if e.Start < e.Submit || e.Finish < e.Start+e.Work || e.Runs < 1 {
					t.Errorf("impossible: %+v", e)
				}
			}
			wantApart(t, r.Bars)
			if strings.HasPrefix(p.Name, "fifo") && r.Preemptions > 0 {
				t.Errorf("%d preemptions", r.Preemptions)
			}
			if again := run(t, o); fmt.Sprint(again.Ends) != fmt.Sprint(r.Ends) {
				t.Error("the same input gave another result")
			}
		})
	}
}

// wantApart fails when two bars of a row overlap: a device was held twice.
func wantApart(t *testing.T, bars []simulate.Bar) {
	t.Helper()
	byRow := map[int][]simulate.Bar{}
	for _, b := range bars {
		byRow[b.Row] = append(byRow[b.Row], b)
	}
	for row, in := range byRow {
		slices.SortFunc(in, func(a, b simulate.Bar) int { return int(a.From - b.From) })
		for i := 1; i < len(in); i++ {
			if in[i].From < in[i-1].To {
				t.Errorf("row %d: %+v and %+v", row, in[i-1], in[i])
			}
		}
	}
}

// A long job gives way to a short one when run times are known, loses what lies behind its
// last checkpoint, and pays for the restart.
func TestPreemptionIsCharged(t *testing.T) {
	lines := ""
	for i := range 30 { // what the users' jobs are like
		lines += fmt.Sprintf("%d 20 8 quick\n%d 3000 8 slow\n", 4000*i, 4000*i+30)
	}
	lines += "200000 9000 8 slow\n202000 20 8 quick\n"
	r := run(t, simulate.Options{Nodes: nodes(t, "1x8"), Policy: "las", Jobs: jobs(t, lines), Checkpoint: 600 * time.Second, Restart: 30 * time.Second})
	last := r.Ends[len(r.Ends)-1]
	if r.Preemptions != 1 || last.Runs != 2 || r.Ends[len(r.Ends)-2].User != "quick" {
		t.Fatalf("%d preemptions; the last to end is %+v", r.Preemptions, last)
	}
	lost := r.LostWork / 8
	if lost < 0 || lost >= 600 || r.Restarts != 8*30 {
		t.Errorf("%v s of work lost, %v device seconds of restarts", lost, r.Restarts)
	}
	if want := last.Work.Seconds() + lost + 30 + 20; last.Finish.Seconds()-last.Submit.Seconds() < want {
		t.Errorf("the long job took %v, at least %v s are due", last.Finish-last.Submit, want)
	}
}

// A job that no node could hold is left out and counted; a trace of such jobs is refused.
func TestImpossibleJobs(t *testing.T) {
	r := run(t, simulate.Options{Nodes: nodes(t, "2x4"), Policy: "fair", Jobs: jobs(t, "0 10 8 ann\n5 10 4 bob")})
	if r.Impossible != 1 || r.Jobs != 1 {
		t.Errorf("%d impossible, %d ended", r.Impossible, r.Jobs)
	}
	for what, o := range map[string]simulate.Options{
		"none fits":      {Nodes: nodes(t, "2x4"), Jobs: jobs(t, "0 10 8 ann")},
		"no nodes":       {Jobs: jobs(t, "0 10 1 ann")},
		"no jobs":        {Nodes: nodes(t, "2x4")},
		"unknown policy": {Nodes: nodes(t, "2x4"), Jobs: jobs(t, "0 10 1 ann"), Policy: "magic"},
	} {
		_, err := simulate.Run(o)
		if f := fault.From(err); err == nil || f.Fault.Kind != pb.ErrorKind_ERROR_KIND_INVALID || f.Fault.Hint == "" {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// The sample traces of every format run through.
func TestSampleTraces(t *testing.T) {
	for _, name := range []string{"philly.csv", "openb.csv", "pollux.csv", "history.csv"} {
		f, err := os.Open(filepath.Join("../trace/testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		tr, err := trace.Read(name, f)
		if err != nil {
			t.Fatal(err)
		}
		n := nodes(t, "8x8xH100-80GB")
		n[7].Model = "V100M16"
		r := run(t, simulate.Options{Nodes: n, Jobs: tr.Jobs})
		if r.Jobs != len(tr.Jobs) {
			t.Errorf("%s: %d of %d jobs ended, %d impossible", name, r.Jobs, len(tr.Jobs), r.Impossible)
		}
		files, err := simulate.Draw(t.TempDir(), []*simulate.Result{r})
		if err != nil || len(files) != 8 {
			t.Errorf("%s: %d drawings, %v", name, len(files), err)
		}
	}
}
