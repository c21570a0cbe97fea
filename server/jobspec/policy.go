package jobspec

import (
	"strconv"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// The words of a setting besides amounts.
const (
	wordDefault = "default" // sets a setting back
	wordOff     = "off"
)

// Setting is one setting of the scheduling policy, as people read and write it.
type Setting struct {
	Key     string                           // such as scheduler.backfill
	Default string                           // what holds when it is not set
	Means   string                           // one line
	get     func(*pb.SchedulerConfig) string // empty: not set
	set     func(*pb.SchedulerConfig, string) error
	clear   func(*pb.SchedulerConfig)
}

// Get gives the setting's value with its unit, and whether it was set.
func (s *Setting) Get(c *pb.SchedulerConfig) (value string, set bool) {
	if v := s.get(c); v != "" {
		return v, true
	}
	return s.Default, false
}

const (
	settingPrefix      = "scheduler."
	reservationsMaxTop = 1000
)

// Settings are all settings of the scheduling policy, in the order of the documentation.
var Settings = []*Setting{
	words("order", "whose turn is next: fair share, the order of submission, or least attained service",
		func(c *pb.SchedulerConfig) *string { return &c.Order }, "fair", "fifo", "las"),
	words("backfill", "who may go ahead of a job that waits for room",
		func(c *pb.SchedulerConfig) *string { return &c.Backfill }, "easy", "conservative", "none"),
	duration("hold_after", "30s", "wait after which a blocked job gets a reservation", false, func(c *pb.SchedulerConfig) *int64 { return &c.HoldAfterMs }),
	{Key: settingPrefix + "reservations_max", Default: "1 (easy), 100 (conservative)", Means: "blocked jobs that have a reservation at a time",
		get: func(c *pb.SchedulerConfig) string {
			if c.GetReservationsMax() == 0 {
				return ""
			}
			return strconv.Itoa(int(c.ReservationsMax))
		},
		set: func(c *pb.SchedulerConfig, text string) error {
			n, err := strconv.ParseInt(text, 10, 32)
			if err != nil || n < 1 || n > reservationsMaxTop {
				return invalid("%s is not a number from 1 to %d", quoted(text), reservationsMaxTop)
			}
			c.ReservationsMax = int32(n)
			return nil
		},
		clear: func(c *pb.SchedulerConfig) { c.ReservationsMax = 0 }},
	duration("usage_half_life", "7d", "after which past usage counts half in fair share; off: it does not count", true,
		func(c *pb.SchedulerConfig) *int64 { return &c.UsageHalfLifeMs }),
	{Key: settingPrefix + "preemption", Default: "on", Means: "whether jobs are ever stopped for other ones",
		get: func(c *pb.SchedulerConfig) string {
			if c.GetNoPreempt() {
				return wordOff
			}
			return ""
		},
		set: func(c *pb.SchedulerConfig, text string) error {
			if text != "on" && text != wordOff {
				return invalid("%s is neither on nor off", quoted(text))
			}
			c.NoPreempt = text == wordOff
			return nil
		},
		clear: func(c *pb.SchedulerConfig) { c.NoPreempt = false }},
	duration("min_run", "1m", "how long a job runs before it may be stopped for another one; off: not at all", true, func(c *pb.SchedulerConfig) *int64 { return &c.MinRunMs }),
	duration("restart", "30s", "assumed cost of a restart", false, func(c *pb.SchedulerConfig) *int64 { return &c.RestartMs }),
	duration("elastic_every", "1m", "between looks at the sizes of elastic jobs; off: they keep theirs", true, func(c *pb.SchedulerConfig) *int64 { return &c.ElasticEveryMs }),
	duration("avoid", "1h", "how long a job avoids a node on which it failed; off: it does not", true, func(c *pb.SchedulerConfig) *int64 { return &c.AvoidMs }),
	duration("claim", "2m", "how long room is kept for a job that preempts", false, func(c *pb.SchedulerConfig) *int64 { return &c.ClaimMs }),
}

// words makes a setting that is one of some words, the first being the default.
func words(key, means string, of func(*pb.SchedulerConfig) *string, known ...string) *Setting {
	return &Setting{Key: settingPrefix + key, Default: known[0], Means: means + " (" + strings.Join(known, ", ") + ")",
		get: func(c *pb.SchedulerConfig) string { return *of(c) },
		set: func(c *pb.SchedulerConfig, text string) error {
			if !contains(known, text) {
				e := invalid("%s is none of %s", quoted(text), strings.Join(known, ", "))
				if near, _ := suggest(text, known); near != "" {
					return e.Hint("did you mean %s?", near)
				}
				return e
			}
			*of(c) = text
			return nil
		},
		clear: func(c *pb.SchedulerConfig) { *of(c) = "" }}
}

// duration makes a setting that is a duration and may perhaps be off.
func duration(key, standard, means string, mayBeOff bool, of func(*pb.SchedulerConfig) *int64) *Setting {
	return &Setting{Key: settingPrefix + key, Default: standard, Means: means,
		get: func(c *pb.SchedulerConfig) string {
			switch ms := *of(c); {
			case ms == 0:
				return ""
			case ms < 0:
				return wordOff
			default:
				return FormatDuration(ms)
			}
		},
		set: func(c *pb.SchedulerConfig, text string) error {
			if text == wordOff && mayBeOff {
				*of(c) = -1
				return nil
			}
			ms, err := ParseDuration(text)
			if err != nil {
				return err
			}
			if ms > DurationMSMax {
				return invalid("%s is out of range", text).Hint("use at most %s", FormatDuration(DurationMSMax))
			}
			*of(c) = ms
			return nil
		},
		clear: func(c *pb.SchedulerConfig) { *of(c) = 0 }}
}

// Set reads KEY=VALUE into the policy; the value default sets the setting back. An unknown
// key is refused with the nearest one. The error is a fault at the key, with a hint.
func Set(c *pb.SchedulerConfig, assignment string) error {
	key, value, assigned := strings.Cut(assignment, "=")
	key, value = strings.TrimSpace(key), strings.TrimSpace(value)
	s, err := FindSetting(key)
	if err != nil {
		return err
	}
	if !assigned || value == "" {
		return invalid("%s has no value", s.Key).Hint("write %s=%s", s.Key, strings.Fields(s.Default)[0])
	}
	if value == wordDefault {
		s.clear(c)
		return nil
	}
	if err := s.set(c, value); err != nil {
		f := fault.From(err).At(s.Key, 0)
		if f.Fault.Hint == "" {
			f.Hint("its default is %s", s.Default)
		}
		return f
	}
	return nil
}

// FindSetting gives the setting of a key, which may leave scheduler. out.
func FindSetting(key string) (*Setting, error) {
	short := make([]string, len(Settings))
	for i, s := range Settings {
		if short[i] = strings.TrimPrefix(s.Key, settingPrefix); key == s.Key || key == short[i] {
			return s, nil
		}
	}
	e := invalid("there is no setting %s", quoted(key))
	if near, _ := suggest(strings.TrimPrefix(key, settingPrefix), short); near != "" {
		return nil, e.Hint("did you mean %s%s?", settingPrefix, near)
	}
	return nil, e.Hint("the settings are %s%s", settingPrefix, strings.Join(short, ", "+settingPrefix))
}

// ValidateConfig checks a policy from anywhere. The error is of type Faults.
func ValidateConfig(config *pb.SchedulerConfig) error {
	c := &checker{}
	if config == nil {
		c.add("", "there is no policy")
		return c.faults.err()
	}
	for _, s := range Settings {
		value, set := s.Get(config)
		if !set {
			continue
		}
		if err := s.set(&pb.SchedulerConfig{}, value); err != nil {
			c.faults = append(c.faults, fault.From(err).At(s.Key, 0))
		}
	}
	return c.faults.err()
}
