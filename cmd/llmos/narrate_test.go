package main

import (
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// story is a job's life as its watcher sees it: it waits, runs, fails, runs again, ends.
func story() []*pb.JobView {
	step := func(epoch uint64, at int64) *pb.JobView {
		v := jobView("train-1", pb.JobState_JOB_STATE_RUNNING, 2, 0)
		v.Job.Epoch = epoch
		v.Attempt = &pb.Attempt{Epoch: epoch, State: pb.AttemptState_ATTEMPT_STATE_LIVE}
		if at > 0 {
			v.Progress = []*pb.Progress{{Step: at, Steps: 400, Values: map[string]float64{"loss": 4 - float64(at)/200, "tokens_per_s": 5400, "grad_norm": 0.5}}}
		}
		return v
	}
	waiting := jobView("train-1", pb.JobState_JOB_STATE_PENDING, 2, 0)
	waiting.Job.Epoch, waiting.Tasks, waiting.WaitingReason = 0, nil, "needs 2 devices; 1 is free"
	ending := step(1, 120)
	ending.Attempt.State, ending.Attempt.Cause = pb.AttemptState_ATTEMPT_STATE_ENDING, "rank 1: exit 3"
	again := jobView("train-1", pb.JobState_JOB_STATE_PENDING, 2, 0)
	again.Attempt, again.WaitingReason = ending.Attempt, "is being placed again"
	done := step(2, 400)
	done.Job.State, done.Job.StartedMs, done.Job.FinishedMs = pb.JobState_JOB_STATE_SUCCEEDED, 1000, 76_000
	return []*pb.JobView{waiting, waiting, step(1, 0), step(1, 10), step(1, 120), ending, again, step(2, 0), step(2, 100), step(2, 300), done}
}

// TestNarration tells one story to a pipe and to a terminal, a view every six seconds.
func TestNarration(t *testing.T) {
	var b strings.Builder
	for _, tty := range []bool{false, true} {
		n := &narrator{tty: tty}
		fmt.Fprintf(&b, "--- terminal: %v\n", tty)
		now := noon
		for _, v := range story() {
			for _, line := range n.see(v, now) {
				fmt.Fprintln(&b, line)
			}
			if line := n.live(now, 100); tty && line != "" {
				fmt.Fprintf(&b, "    %s\n", line)
			}
			now = now.Add(6 * time.Second)
		}
		fmt.Fprintln(&b, n.summary())
	}
	golden(t, "narration.golden", b.String())
}

func TestLiveLineFits(t *testing.T) {
	for _, tinted := range []tint{false, true} {
		for width := 20; width < 120; width++ {
			n := &narrator{tty: true, tint: tinted}
			for _, v := range story() {
				n.see(v, noon)
				line := n.live(noon, width)
				for _, code := range []string{"\x1b[" + green + "m", "\x1b[" + faint + "m", "\x1b[0m"} {
					line = strings.ReplaceAll(line, code, "")
				}
				if got := utf8.RuneCountInString(line); got > max(width, 40) || strings.Contains(line, "\n") {
					t.Fatalf("%d columns of %d: %q", got, width, line)
				}
			}
		}
	}
}

func TestSummaries(t *testing.T) {
	failed := jobView("a-1", pb.JobState_JOB_STATE_FAILED, 1, 0)
	failed.Job.StartedMs, failed.Job.FinishedMs, failed.Job.ExitCode, failed.Job.Reason = 1000, 13_000, 3, "rank 0: exit 3"
	stopped := jobView("a-1", pb.JobState_JOB_STATE_CANCELLED, 1, 0)
	stopped.Job.Reason = "stopped by u-1"
	unstartable := jobView("a-1", pb.JobState_JOB_STATE_FAILED, 1, 0)
	unstartable.Job.Reason = "rank 0: no such file"
	ok := jobView("a-1", pb.JobState_JOB_STATE_SUCCEEDED, 1, 0)
	for _, c := range []struct {
		view *pb.JobView
		want string
		code int
	}{
		{failed, "a-1 failed after 12s: rank 0: exit 3", 3},
		{stopped, "a-1 cancelled: stopped by u-1", exitFailed},
		{unstartable, "a-1 failed after 0s: rank 0: no such file", exitFailed},
		{ok, "a-1 succeeded in 0s", exitOK},
	} {
		n := &narrator{}
		n.see(c.view, noon)
		if got := n.summary(); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
		if got := exitOf(c.view.Job); got != c.code {
			t.Errorf("%q: exit code %d, want %d", c.want, got, c.code)
		}
	}
}
