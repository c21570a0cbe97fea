package jobspec

import (
	"strings"
	"time"
	_ "time/tzdata" // the zones of a host without a database of its own

	"github.com/robfig/cron/v3"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const cronHint = "write five fields: minute, hour, day of month, month, day of week; such as */5 * * * * or 0 3 * * 1-5; or @daily, or @every 10m"

const (
	cronBytesMax = 256 // of a schedule or the name of a time zone
	cronFields   = 5
)

var cronFieldNames = [cronFields]string{"minute", "hour", "day of month", "month", "day of week"}

// cronNicknames are words that other systems know, as the five fields that they mean.
var cronNicknames = []struct{ word, fields string }{
	{"@hourly", "0 * * * *"}, {"@daily", "0 0 * * *"}, {"@midnight", "0 0 * * *"}, {"@weekly", "0 0 * * 0"},
	{"@monthly", "0 0 1 * *"}, {"@yearly", "0 0 1 1 *"}, {"@annually", "0 0 1 1 *"},
}

// cronParser reads five fields, as the leader's controller does.
var cronParser = cron.NewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow)

// CronTimes reads a schedule and gives a function of a time to the next one that matches,
// in the schedule's time zone. The error is a fault with a hint, at schedule or time_zone.
func CronTimes(c *pb.CronSpec) (next func(time.Time) time.Time, err error) {
	schedule, wrong := parseCron(c.GetSchedule())
	if wrong != nil {
		return nil, wrong.At("schedule", 0)
	}
	zone, wrong := parseZone(c.GetTimeZone())
	if wrong != nil {
		return nil, wrong.At("time_zone", 0)
	}
	return func(after time.Time) time.Time { return schedule.Next(after.In(zone)) }, nil
}

func parseZone(name string) (*time.Location, *fault.Error) {
	if len(name) > cronBytesMax || name == "Local" {
		return nil, invalid("%s is not a time zone", quoted(name)).Hint("write its name, such as Europe/Berlin, or leave it out for UTC")
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, invalid("%s is not a time zone", quoted(name)).Hint("write its name, such as Europe/Berlin, or leave it out for UTC")
	}
	return zone, nil
}

func parseCron(text string) (cron.Schedule, *fault.Error) {
	if len(text) > cronBytesMax {
		return nil, invalid("the schedule is %d bytes long, at most %d", len(text), cronBytesMax).Hint(cronHint)
	}
	if span, every := strings.CutPrefix(text, "@every "); every {
		return parseEvery(span)
	}
	fields := strings.Fields(text)
	for _, n := range cronNicknames {
		if text == n.word {
			fields = strings.Fields(n.fields)
		}
	}
	if len(fields) != cronFields {
		return nil, invalid("%s has %d fields, not 5", quoted(text), len(fields)).Hint(cronHint)
	}
	// One field at a time, with any time in the others, so that the fault names the field.
	for i, f := range fields {
		alone := [cronFields]string{"*", "*", "*", "*", "*"}
		alone[i] = f
		var err error
		if strings.Contains(f, "=") || strings.Trim(f, ",") == "" {
			err = invalid("failed to read %s", f)
		} else {
			_, err = cronParser.Parse(strings.Join(alone[:], " "))
		}
		if err != nil {
			return nil, invalid("%s is not a %s", quoted(f), cronFieldNames[i]).Hint("%s", cronFieldHint(i))
		}
	}
	schedule, err := cronParser.Parse(strings.Join(fields, " "))
	if err != nil {
		return nil, invalid("%s is not a schedule", quoted(text)).Hint(cronHint)
	}
	// Next looks five years ahead; these begin with a leap year.
	if schedule.Next(time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)).IsZero() {
		return nil, invalid("%s matches no day of any year", quoted(text)).Hint("look at the day of month and the month")
	}
	return schedule, nil
}

// parseEvery reads the span of a schedule that does not go by the clock on the wall.
func parseEvery(span string) (cron.Schedule, *fault.Error) {
	d, err := time.ParseDuration(span)
	if err != nil || d < time.Second {
		return nil, invalid("%s is not a span of a second or more", quoted(span)).Hint("write it as 30s, 10m or 6h")
	}
	return cron.Every(d), nil
}

func cronFieldHint(i int) string {
	span := [cronFields]string{"0 to 59", "0 to 23", "1 to 31", "1 to 12 or jan to dec", "0 to 6 or sun to sat, 0 being Sunday"}[i]
	return "the " + cronFieldNames[i] + " is " + span + "; * is any, */5 every fifth, 1-5 a span and 1,3 a list"
}
