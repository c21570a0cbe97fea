package exec

import (
	"fmt"
	"strings"
	"testing"
)

func TestToldLines(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"@llmos checkpoint step=1200 path=ckpt/step-1200", "1200 ckpt/step-1200"},
		{"@llmos checkpoint path=my folder/a b step=3", "-1 my folder/a b step=3"},
		{"@llmos\tcheckpoint\tstep=7\tpath=x", "7 x"},
		{"@llmos checkpoint step=-2 path=x", "-1 x"},
		{"@llmos checkpoint step=5", ""},
		{"@llmos checkpoint step=5 path=", ""},
		{"@llmos checkpoints step=5 path=x", ""},
		{"@llmos step=5 path=x", ""},
		{"@llmos checkpoint path=" + strings.Repeat("x", toldPathMax+1), ""},
		{"@llmos checkpoint path=\xff", ""},
	} {
		var got string
		progress := false
		s := &progressScanner{publish: func(Progress) { progress = true }, told: func(t Told) { got = fmt.Sprintf("%d %s", t.Step, t.Path) }}
		s.take(c.line)
		if got != c.want {
			t.Errorf("%q: %q, want %q", c.line, got, c.want)
		}
		if is := strings.HasPrefix(c.line, "@llmos step") || strings.HasPrefix(c.line, "@llmos checkpoints"); progress != is {
			t.Errorf("%q is progress: %v", c.line, progress)
		}
	}
}

// TestToldReachesTheAgent: the newest lines are in the status, numbered, to the end of the task.
func TestToldReachesTheAgent(t *testing.T) {
	d := testDriver(t)
	dir := taskDir(t, d)
	h := start(t, d, dir, shell(dir, "echo @llmos step=4 steps=9; for i in 1 2 3 4 5 6 7 8 9 10; do echo @llmos checkpoint step=$i path=ckpt/$i; done"))
	var last Status
	for s := range h.Updates() {
		last = s
	}
	if n := len(last.Told); n != toldMax || last.Told[0].Number != 3 || last.Told[n-1] != (Told{Number: 10, Step: 10, Path: "ckpt/10"}) {
		t.Errorf("told: %+v", last.Told)
	}
	if last.Progress == nil || last.Progress.Steps != 9 {
		t.Errorf("the progress is %+v", last.Progress)
	}
}
