package controller

import (
	"testing"
	"time"
	_ "time/tzdata" // as package server has it

	pb "llmos/proto/llmos/v1"
)

func scheduleFor(t *testing.T, text string) *schedule {
	t.Helper()
	c := &Controller{cfg: Config{Location: time.LoadLocation}}
	s := c.scheduleOf(&pb.Job{Spec: &pb.JobSpec{Cron: &pb.CronSpec{Schedule: text, TimeZone: "America/New_York"}}})
	if s == nil {
		t.Fatalf("%q cannot be read", text)
	}
	return s
}

// TestClocksSet asks for what is due over the days in which the clock is set, in 2026 on
// March 8 from 2:00 to 3:00 and on November 1 from 2:00 back to 1:00.
func TestClocksSet(t *testing.T) {
	for _, c := range []struct {
		schedule, from string
		want           []string
	}{
		{"30 1 * * *", "2026-10-31T12:00:00-04:00", []string{"2026-11-01T01:30:00-04:00", "2026-11-02T01:30:00-05:00"}},
		{"30 2 * * *", "2026-03-07T12:00:00-05:00", []string{"2026-03-08T03:30:00-04:00", "2026-03-09T02:30:00-04:00"}},
		{"15,45 * * * *", "2026-11-01T01:30:00-04:00", []string{"2026-11-01T01:45:00-04:00", "2026-11-01T01:15:00-05:00", "2026-11-01T01:45:00-05:00"}},
		{"30 * * * *", "2026-03-08T01:00:00-05:00", []string{"2026-03-08T01:30:00-05:00", "2026-03-08T03:30:00-04:00"}},
		{"0 9 * * 1-5", "2026-03-06T10:00:00-05:00", []string{"2026-03-09T09:00:00-04:00"}},
	} {
		s := scheduleFor(t, c.schedule)
		from, err := time.Parse(time.RFC3339, c.from)
		if err != nil {
			t.Fatal(err)
		}
		at := from.UnixMilli()
		for _, want := range c.want {
			next, ok := s.after(at)
			if got := time.UnixMilli(next).In(s.zone).Format(time.RFC3339); !ok || got != want {
				t.Errorf("%q after %s: %s, want %s", c.schedule, time.UnixMilli(at).In(s.zone).Format(time.RFC3339), got, want)
			}
			at = next
		}
	}
}

// TestNewestMissed holds the newest due time that was missed against going through all.
func TestNewestMissed(t *testing.T) {
	now := time.Date(2026, 11, 3, 10, 7, 30, 0, time.UTC).UnixMilli()
	for _, text := range []string{"* * * * *", "30 1 * * *", "0 0 1 * *", "0 9 * * 1-5", "*/7 3 * * *"} {
		s := scheduleFor(t, text)
		for _, days := range []int64{0, 1, 3, 40} {
			first, ok := s.after(now - days*dayMS - 3_600_000)
			if !ok || first > now {
				continue
			}
			want := first
			for next, ok := s.after(want); ok && next <= now; next, ok = s.after(want) {
				want = next
			}
			if got := s.newest(first, now); got != want {
				t.Errorf("%q, %d days: %s, want %s", text, days, time.UnixMilli(got), time.UnixMilli(want))
			}
		}
	}
}
