package main

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	pb "llmos/proto/llmos/v1"
)

// someUse is a look at someJobs and someNodes with what their tasks use.
func someUse() topLook {
	jobs := someJobs().Jobs[:3]
	sample := func(cpu, mem, gpuMem int64, percent int32) *pb.Sample {
		return &pb.Sample{CpuMilli: cpu, MemoryBytes: mem << 20, GpuMemoryBytes: gpuMem << 30, GpuPercent: percent}
	}
	train := jobs[0]
	train.Progress[0].Sample, train.Progress[0].TimeMs = sample(3900, 9000, 61, 80), noon.UnixMilli()-40_000
	train.Progress[1].Sample, train.Progress[1].TimeMs = sample(4000, 9100, 62, 96), noon.UnixMilli()-1000
	train.Stalls = []*pb.Stall{{Rank: 1, Step: 1, FrontStep: 120, SinceMs: noon.UnixMilli() - 95_000}}
	jobs[1].Progress = []*pb.Progress{{Rank: 0, Sample: sample(200, 64, 0, -1)}}
	return topLook{nodes: someNodes().Nodes, jobs: jobs}
}

// TestTop holds what top shows in a pipe, and with a job's ranks.
func TestTop(t *testing.T) {
	a, _, _ := testApp()
	b := newTopBoard(a)
	for range 3 {
		b.take(someUse())
	}
	text := b.render(0, 0)
	b.key("enter")
	golden(t, "top.golden", text+"\nwith the ranks of the first job:\n"+b.render(0, 0))
}

func TestTopKeys(t *testing.T) {
	a, _, _ := testApp()
	b := newTopBoard(a)
	b.take(someUse())
	chosen := func() string {
		for _, line := range strings.Split(b.render(120, 40), "\n") {
			if id, marked := strings.CutPrefix(line, "▸"); marked {
				return strings.Fields(id)[0]
			}
		}
		return ""
	}
	for _, step := range []struct{ key, want string }{
		{"", "train-1"}, {"up", "train-1"}, {"down", "a-rather-long-name-for-a-job-17"}, {"down", "second-1"}, {"down", "second-1"}, {"k", "a-rather-long-name-for-a-job-17"},
	} {
		if b.key(step.key); chosen() != step.want {
			t.Errorf("after %q %s is chosen, want %s", step.key, chosen(), step.want)
		}
	}
	for range topOrders {
		b.key("s")
	}
	if b.sorted != 0 {
		t.Errorf("the orders do not come round")
	}
	if b.key("enter"); !b.ranks {
		t.Errorf("enter does not show the ranks")
	}
	if !b.key("esc") || b.ranks || b.key("q") || b.key("ctrl+c") {
		t.Errorf("esc leaves the ranks, q and ctrl+c the program")
	}
}

func TestKeyNames(t *testing.T) {
	for typed, want := range map[string]string{"q": "q", "\x1b[A\x1b[Bs": "up down s", "\x1bOB": "down", "\x1b": "esc", "\r": "enter", "\x03": "ctrl+c", "\x1b[15~": "", "j\x1b[A": "j up"} {
		if got := strings.Join(keyNames([]byte(typed)), " "); got != want {
			t.Errorf("%q is %q, want %q", typed, got, want)
		}
	}
}

// TestTopFits: no line is wider than the terminal, no more lines than it has, and a look that
// failed leaves the last one on the screen.
func TestTopFits(t *testing.T) {
	a, _, _ := testApp()
	b := newTopBoard(a)
	b.take(someUse())
	b.take(topLook{err: errors.New("nobody answers")})
	for _, size := range [][2]int{{120, 8}, {160, 40}} {
		text := b.render(size[0], size[1])
		lines := strings.Split(text, "\n")
		if len(lines) > size[1] {
			t.Errorf("%d lines on %d", len(lines), size[1])
		}
		for _, line := range lines {
			if n := utf8.RuneCountInString(line); n > size[0] {
				t.Errorf("%d columns on %d: %s", n, size[0], line)
			}
		}
		if !strings.Contains(text, "nobody answers") || !strings.Contains(text, "gpu-1") {
			t.Errorf("a failed look is not told, or wiped the screen:\n%s", text)
		}
	}
}
