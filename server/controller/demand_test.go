package controller_test

import (
	"fmt"
	"strings"
	"testing"
)

// TestForecastDoesNotFlap runs a job whose memory climbs towards what it asked for with
// every start. The first attempt is stopped before it is killed; the second, which climbs
// the same way at once, is left alone for ten minutes, under a new leader too.
func TestForecastDoesNotFlap(t *testing.T) {
	r := newRig(t)
	r.do("hello n-a/1")
	r.do("settle")
	r.do(`log submit_job{request_id:"r" user:"u" spec{name:"leaks" kind:JOB_KIND_BATCH checkpoint_every_ms:60000 roles{name:"w" count:1 command:"x" resources{memory_bytes:1073741824}}}}`)
	r.do("settle")
	session, seq := 1, 0
	report := func(task, word string) {
		seq++
		r.do(fmt.Sprintf("report n-a/%d %d %s=%s", session, seq, task, word))
		r.do("settle")
	}
	climb := func(task string) (stopped bool) { // 8 MiB in 4 s
		for step := 1; step <= 100 && !stopped; step++ {
			r.do("wait 4s")
			out := r.do(fmt.Sprintf("progress n-a %s %d/1000 %d", task, step, 200+8*step))
			stopped = strings.Contains(out, "FORECAST")
			r.do("settle")
		}
		return stopped
	}
	report("leaks-1.e1.r0", "RUNNING")
	if !climb("leaks-1.e1.r0") {
		t.Fatal("the first attempt was not stopped")
	}
	report("leaks-1.e1.r0", "STOPPED")
	r.do("lead")
	session, seq = 2, 0
	r.do("hello n-a/2")
	r.do("settle")
	report("leaks-1.e2.r0", "RUNNING")
	if climb("leaks-1.e2.r0") {
		t.Error("the second attempt was stopped within seven minutes")
	}
}
