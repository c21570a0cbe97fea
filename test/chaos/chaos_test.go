package main

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"llmos/test/rig"
)

// TestShortRun is half a minute of what `make chaos` does for longer.
func TestShortRun(t *testing.T) {
	if testing.Short() {
		t.Skip("half a minute of real processes")
	}
	bin, err := rig.Programs()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.Command(filepath.Join(bin, "chaos"), "-bin", bin, "-minutes", "0.5", "-dir", dir)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		for _, name := range []string{"server1", "server2", "server3", "agent1", "agent2", "agent3"} {
			log, _ := os.ReadFile(filepath.Join(dir, name+".log"))
			t.Logf("--- %s\n%s", name, log[max(0, len(log)-4000):])
		}
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	var r report
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &r); err != nil {
		t.Fatalf("the last line is no report: %v", err)
	}
	if r.AckedOps == 0 || r.TasksStarted == 0 || len(r.Violations) != 0 {
		t.Errorf("the report of a good run is %+v", r)
	}
}

// TestTooLittle: a run that saw too little must not pass for a good one.
func TestTooLittle(t *testing.T) {
	full := func() *report {
		r := &report{AckedOps: 500, LeaderChanges: 5, TasksStarted: 1, TasksReplaced: 9, Faults: map[string]int{},
			Preemptions: 100, Claims: 30, Copies: 100, Dependents: 50, Looks: 200, Acked: map[string]int{"drain": 20, "policy": 20, "queues": 20}}
		for _, k := range faultKinds(true) {
			r.Faults[k.name] = 10
		}
		return r
	}
	if got := tooLittle(full(), minutesForFull, true); len(got) != 0 {
		t.Errorf("a full run is refused: %v", got)
	}
	for name, spoil := range map[string]func(*report){
		"acknowledged":   func(r *report) { r.AckedOps = 499 },
		"leader changes": func(r *report) { r.LeaderChanges = 4 },
		"isolate_leader": func(r *report) { r.Faults["isolate_leader"] = 9 },
		"lost nodes":     func(r *report) { r.TasksReplaced = 8 },
		"preemptions":    func(r *report) { r.Preemptions = 99 },
		"claims":         func(r *report) { r.Claims = 29 },
		"drains":         func(r *report) { r.Acked["drain"] = 19 },
		"looks":          func(r *report) { r.Looks = 199 },
		"saw nothing":    func(r *report) { r.TasksStarted = 0 },
	} {
		r := full()
		spoil(r)
		if got := tooLittle(r, minutesForFull, true); len(got) != 1 || !strings.Contains(got[0], name) {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

// TestJudge: each promise broken in the evidence is seen.
func TestJudge(t *testing.T) {
	dir := t.TempDir()
	e, err := newEvidence(dir)
	if err != nil {
		t.Fatal(err)
	}
	diary := "start a-1 1 0 x\nend a-1 1 0 ok\nstart b-1 1 0 x\nstart b-1 1 0 x\nconflict c-1 1 0 device=d\nstart ghost-1 1 0 x\n"
	if err := os.WriteFile(filepath.Join(e.dir, "diary"), []byte(diary), 0o644); err != nil {
		t.Fatal(err)
	}
	lines, err := e.lines()
	if err != nil {
		t.Fatal(err)
	}
	jobs := jobViews(t, `{"a-1":"r1","b-1":"r2","c-1":"r2","d-1":"nobody"}`)
	l := &load{history: []op{
		{kind: "submit", request: "r1", job: "a-1", outcome: acked},
		{kind: "submit", request: "r2", job: "b-1", outcome: acked},
		{kind: "submit", request: "r3", job: "e-1", outcome: acked},
	}}
	j := newJudge(nil, nil, e, l)
	got := strings.Join(append(j.submits(jobs), j.tasks(jobs, lines, &report{})...), "\n")
	for _, want := range []string{
		"acknowledged submit r3 (e-1) is lost", "submit r2 ran 2 times", "d-1 was submitted by nobody",
		"b-1 epoch 1 rank 0 started 2 times", "c-1 epoch 1 rank 0 found device=d held by another live task",
		"a task ran for the unknown job ghost-1",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("not seen: %s\nin:\n%s", want, got)
		}
	}
	if strings.Contains(got, "a-1") {
		t.Errorf("the good job is accused:\n%s", got)
	}
}
