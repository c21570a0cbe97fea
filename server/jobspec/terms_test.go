package jobspec

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	pb "llmos/proto/llmos/v1"
)

func TestParseTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		text string
		zone *time.Location
		want string // in UTC, or what the fault says
	}{
		{"2026-12-01T08:00Z", nil, "2026-12-01T08:00:00Z"}, {"2026-12-01T08:00:30Z", nil, "2026-12-01T08:00:30Z"},
		{"2026-12-01 09:00+01:00", nil, "2026-12-01T08:00:00Z"}, {"2026-12-01T09:00", berlin, "2026-12-01T08:00:00Z"},
		{"2026-07-01 10:00", berlin, "2026-07-01T08:00:00Z"}, {"2026-12-01", berlin, "2026-11-30T23:00:00Z"},
		{"2026-12-01T08:00", nil, "has no time zone (hint: write 2026-12-01T08:00Z for UTC"}, {"2026-13-01T08:00Z", nil, "is not a time"},
		{"soon", berlin, "is not a time"}, {"0026-12-01T08:00Z", nil, "use a year from 2000 to 2200"}, {"", nil, "is not a time"},
	} {
		ms, err := ParseTime(c.text, c.zone)
		got := time.UnixMilli(ms).UTC().Format(time.RFC3339)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%q: %s, want %s", c.text, got, c.want)
		}
	}
}

func TestParseWords(t *testing.T) {
	for text, want := range map[string]int32{"low": 25, "normal": 50, "high": 75, "urgent": 90, "0": 0, "100": 100, "7": 7} {
		if got, err := ParsePriority(text); err != nil || got != want {
			t.Errorf("priority %s is %d (%v), want %d", text, got, err, want)
		}
	}
	for text, want := range map[string]string{"hihg": "did you mean high?", "1..3": "is not a priority", "": "is not a priority", "top": "write low, normal"} {
		if _, err := ParsePriority(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("priority %q: %v, want %q", text, err, want)
		}
	}
	for text, want := range map[string]string{"a": "OK", "a:ok": "OK", "a:any": "ANY", "a:failed": "FAILED", "a:never": "none of ok, any, failed"} {
		dep, err := ParseAfter(text)
		got := dep.GetKind().String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("after %s: %s, want %s", text, got, want)
		}
	}
}

// TestCronTimes asks for the next times in the schedule's zone, over a change of the clock.
func TestCronTimes(t *testing.T) {
	at := func(text string) time.Time {
		v, err := time.Parse(time.RFC3339, text)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, c := range []struct{ schedule, zone, after, want string }{
		{"*/5 * * * *", "", "2026-11-24T03:02:00Z", "2026-11-24T03:05:00Z"},
		{"0 3 * * *", "Europe/Berlin", "2026-11-24T03:02:00Z", "2026-11-25T02:00:00Z"},
		{"0 3 * * mon-fri", "", "2026-11-27T03:00:00Z", "2026-11-30T03:00:00Z"},
		{"@daily", "Europe/Berlin", "2026-11-24T03:02:00Z", "2026-11-24T23:00:00Z"}, {"@every 6h", "", "2026-11-24T03:02:00Z", "2026-11-24T09:02:00Z"},
		{"0 0 29 2 *", "", "2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z"},
	} {
		next, err := CronTimes(&pb.CronSpec{Schedule: c.schedule, TimeZone: c.zone})
		if err != nil {
			t.Errorf("%s: %v", c.schedule, err)
			continue
		}
		if got := next(at(c.after)).UTC().Format(time.RFC3339); got != c.want {
			t.Errorf("%s after %s: %s, want %s", c.schedule, c.after, got, c.want)
		}
	}
	for schedule, want := range map[string]string{"": "has 0 fields", "TZ=UTC": "1 fields", "CRON_TZ=UTC * * * *": "is not a minute", ", * * * *": "is not a minute",
		"* * * * 8": "is not a day of week", "1-0 * * * *": "is not a minute", "*/0 * * * *": "is not a minute", "* 24 * * *": "is not a hour",
		"0 0 31 4 *": "matches no day", "@every 1ms": "not a span of a second", strings.Repeat("1,", 300) + "1 * * * *": "bytes long"} {
		if _, err := CronTimes(&pb.CronSpec{Schedule: schedule}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", schedule, err, want)
		}
	}
	if _, err := CronTimes(&pb.CronSpec{Schedule: "* * * * *", TimeZone: "Local"}); err == nil {
		t.Error("the zone of whatever server this is was taken")
	}
}

// TestSettings sets every setting, reads it back, and sets it back to its default.
func TestSettings(t *testing.T) {
	values := map[string]string{"order": "las", "backfill": "none", "hold_after": "1m30s", "reservations_max": "7", "usage_half_life": "off",
		"preemption": "off", "min_run": "off", "restart": "5s", "elastic_every": "off", "avoid": "off", "claim": "3m"}
	config := &pb.SchedulerConfig{}
	for _, s := range Settings {
		short := strings.TrimPrefix(s.Key, settingPrefix)
		if value, set := s.Get(config); set || value != s.Default {
			t.Errorf("%s is %s before it is set", s.Key, value)
		}
		if err := Set(config, short+"="+values[short]); err != nil {
			t.Errorf("%s: %v", s.Key, err)
		}
		if value, set := s.Get(config); !set || value != values[short] {
			t.Errorf("%s is %s, and was set to %q", s.Key, value, values[short])
		}
	}
	if err := ValidateConfig(config); err != nil {
		t.Errorf("what was set does not validate: %v", err)
	}
	// Every field of the policy has a setting.
	config.ModifyIndex = 1
	fields := config.ProtoReflect()
	for i := range fields.Descriptor().Fields().Len() {
		if f := fields.Descriptor().Fields().Get(i); !fields.Has(f) {
			t.Errorf("no setting sets %s", f.Name())
		}
	}
	config.ModifyIndex = 0
	for _, s := range Settings {
		if err := Set(config, s.Key+" = default"); err != nil {
			t.Errorf("%s: %v", s.Key, err)
		}
	}
	if !proto.Equal(config, &pb.SchedulerConfig{}) {
		t.Errorf("set back, the policy is %v", config)
	}
	for assignment, want := range map[string]string{"bakfill=easy": "did you mean scheduler.backfill?", "hold_after=soon": "scheduler.hold_after: ", "order=": "has no value",
		"reservations_max=0": "from 1 to 1000", "preemption=no": "neither on nor off", "hold_after=off": "not a duration", "claim=999d": "use at most", "order=fiar": "did you mean fair?"} {
		if err := Set(config, assignment); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", assignment, err, want)
		}
	}
	for want, c := range map[string]*pb.SchedulerConfig{"no policy": nil, "scheduler.order": {Order: "x"}, "scheduler.hold_after": {HoldAfterMs: -5}, "scheduler.reservations_max": {ReservationsMax: -1}} {
		if err := ValidateConfig(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", c, err, want)
		}
	}
}
