package controller

import (
	"time"

	"github.com/robfig/cron/v3"

	pb "llmos/proto/llmos/v1"
)

// cronMissedMax bounds how many due times of one cron job are skipped over at a time, when
// the cluster was down for long: only the newest one fires.
const cronMissedMax = 10_000

// firing is when a cron job is due next: worked out once for each record of the job, since
// schedules and time zones are slow to read.
type firing struct {
	job  *pb.Job
	atMS int64
	ok   bool
}

func (d *due) cron(e *jobEntry) {
	j := e.job
	if e.firing.job != j {
		e.firing = firing{job: j}
		if s := d.c.scheduleOf(j); s != nil {
			e.firing.atMS, e.firing.ok = s.after(max(j.FiredMs, j.SubmittedMs))
		}
	}
	if !e.firing.ok || !d.reached(e.firing.atMS) {
		return
	}
	s := d.c.scheduleOf(j)
	newest := s.newest(e.firing.atMS, d.nowMS)
	d.commands = append(d.commands, &pb.Command{Op: &pb.Command_FireCron{FireCron: &pb.FireCron{JobId: j.Id, DueMs: newest}}})
	if later, ok := s.after(newest); ok {
		d.reached(later)
	}
}

// schedule is a cron job's schedule in its time zone.
type schedule struct {
	spec cron.Schedule
	zone *time.Location
	// daily: the hours are named, so that a time of day is meant. When clocks are set back
	// such a job does not run twice, and when they are set ahead over its time it runs all
	// the same an hour later. One that runs every so often goes by elapsed time.
	daily bool
}

// scheduleOf reads a job's schedule; nil for one that cannot be read, which the job file's
// check does not let through.
func (c *Controller) scheduleOf(j *pb.Job) *schedule {
	spec := j.GetSpec().GetCron()
	parsed, err := cron.ParseStandard(spec.GetSchedule())
	if err != nil {
		return nil
	}
	s := &schedule{spec: parsed, zone: time.UTC}
	if spec.GetTimeZone() != "" && c.cfg.Location != nil {
		if s.zone, err = c.cfg.Location(spec.GetTimeZone()); err != nil {
			return nil
		}
	}
	const everyHour = 1 << 63 // how package cron marks a star
	if fields, ok := parsed.(*cron.SpecSchedule); ok {
		s.daily = fields.Hour&everyHour == 0
		if fields.Location != time.Local { // the schedule names its own zone
			s.zone = fields.Location
		}
	}
	return s
}

// after gives the first due time after a time, Unix milliseconds. ok is false when there
// is none.
func (s *schedule) after(ms int64) (due int64, ok bool) {
	from := time.UnixMilli(ms).In(s.zone)
	if fields, known := s.spec.(*cron.SpecSchedule); known && s.daily {
		return daily(*fields, from)
	}
	at := s.spec.Next(from)
	return at.UnixMilli(), !at.IsZero()
}

// daily looks for the next time of day by the clock on the wall, as if it were never set.
func daily(fields cron.SpecSchedule, from time.Time) (due int64, ok bool) {
	fields.Location = time.UTC
	wall := onWall(from, time.UTC)
	for range 3 { // a time that was moved by the clock's being set may lie before
		wall = fields.Next(wall)
		if wall.IsZero() {
			return 0, false
		}
		at := onWall(wall, from.Location())
		at = at.Add(max(0, wall.Sub(onWall(at, time.UTC)))) // a time that the clock leaps over: as much later
		if at.After(from) {
			return at.UnixMilli(), true
		}
	}
	return 0, false
}

// onWall is the time at which the clock of a zone shows what t shows.
func onWall(t time.Time, zone *time.Location) time.Time {
	return time.Date(t.Year(), t.Month(), t.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), zone)
}

// newest gives the last due time that is not after now, of which first is one. It looks
// back from now, twice as far each time, since most of what was missed need not be gone through.
func (s *schedule) newest(first, nowMS int64) int64 {
	newest := first
	for back := int64(time.Minute / time.Millisecond); nowMS-back > first; back *= 2 {
		if at, ok := s.after(nowMS - back); ok && at <= nowMS {
			newest = at
			break
		}
	}
	for range cronMissedMax {
		later, ok := s.after(newest)
		if !ok || later > nowMS {
			break
		}
		newest = later
	}
	return newest
}
