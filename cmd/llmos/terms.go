package main

import (
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// termFlags say when and where a job runs. They may also be given beside a job file, and
// then count more than what it says.
type termFlags struct {
	queue       string
	priority    string
	after       []string
	array       string
	cron        string
	timeLimit   string
	expected    string
	deadline    string
	checkpoint  string
	saves       string
	resume      string
	reservation string
	where       string
	within      string
}

func (t *termFlags) flags(f *pflag.FlagSet) {
	f.StringVar(&t.queue, "queue", "", "`QUEUE` of the tree, such as vision/detection (llmos queue ls)")
	f.StringVar(&t.priority, "priority", "normal", "`PRIORITY`: low, normal, high, urgent, or 0 to 100")
	f.StringArrayVar(&t.after, "after", nil, "wait until `JOB` has succeeded; JOB:any ended, JOB:failed failed; may be repeated")
	f.StringVar(&t.array, "array", "", "run `N` copies, each with its LLMOS_ARRAY_INDEX; N:P at most P at a time")
	f.StringVar(&t.cron, "cron", "", "start a copy by `SCHEDULE`, such as '0 3 * * *', in UTC")
	f.StringVar(&t.timeLimit, "time-limit", "", "stop it after `TIME`, such as 2h, and let it fail")
	f.StringVar(&t.expected, "expected", "", "`TIME` that it will probably run, for the scheduler")
	f.StringVar(&t.deadline, "deadline", "", "`TIME` by which it should be done, such as 2026-12-01T08:00")
	f.StringVar(&t.checkpoint, "checkpoint", "", "it saves itself every `TIME`: what a stop loses at most")
	f.StringVar(&t.saves, "checkpoint-path", "", "`FOLDER`, seen from the working one, where it saves itself (llmos checkpoints --help)")
	f.StringVar(&t.resume, "resume", "", "start from a checkpoint of another job, `JOB@STEP`; JOB for its newest")
	f.StringVar(&t.reservation, "reservation", "", "run in the reservation `NAME`")
	f.StringVar(&t.where, "where", "", "`CONDITION` on nodes, such as 'gpu_model = H100-80GB and not rack = r7'")
	f.StringVar(&t.within, "within", "", "all tasks in one `DOMAIN`: node, rack, zone or another label")
}

// apply puts the flags that were given into the spec.
func (t *termFlags) apply(a *app, set changedFlags, spec *pb.JobSpec) (faults jobspec.Faults) {
	fault := func(err error, field string) {
		if err != nil {
			faults = append(faults, atField(err, field))
		}
	}
	for _, d := range []struct {
		flag, text, field string
		into              *int64
	}{
		{"time-limit", t.timeLimit, "time_limit", &spec.TimeLimitMs}, {"expected", t.expected, "expected", &spec.ExpectedMs},
		{"checkpoint", t.checkpoint, "checkpoint.every", &spec.CheckpointEveryMs},
	} {
		if set.Changed(d.flag) {
			ms, err := jobspec.ParseDuration(d.text)
			fault(err, d.field)
			*d.into = ms
		}
	}
	if set.Changed("queue") {
		spec.Queue = t.queue
	}
	if set.Changed("reservation") {
		spec.Reservation = t.reservation
	}
	if set.Changed("priority") {
		p, err := jobspec.ParsePriority(t.priority)
		fault(err, "priority")
		spec.Priority = p
	}
	if set.Changed("deadline") {
		ms, err := jobspec.ParseTime(t.deadline, a.location)
		fault(err, "deadline")
		spec.DeadlineMs = ms
	}
	if set.Changed("cron") {
		spec.Cron = &pb.CronSpec{Schedule: t.cron}
	}
	if set.Changed("array") {
		array, err := parseArray(t.array)
		fault(err, "array")
		spec.Array = array
	}
	if set.Changed("after") {
		spec.After = nil
		for _, text := range t.after {
			dep, err := jobspec.ParseAfter(text)
			fault(err, "after")
			spec.After = append(spec.After, dep)
		}
	}
	if set.Changed("checkpoint-path") {
		if spec.Checkpoint == nil {
			spec.Checkpoint = &pb.CheckpointSpec{}
		}
		spec.Checkpoint.Path = t.saves
	}
	if set.Changed("resume") {
		r, err := jobspec.ParseResume(t.resume)
		fault(err, "resume")
		spec.Resume = r
	}
	t.place(set, spec, fault)
	return faults
}

// place puts the flags about nodes into the spec.
func (t *termFlags) place(set changedFlags, spec *pb.JobSpec, fault func(error, string)) {
	if !set.Changed("where") && !set.Changed("within") {
		return
	}
	if spec.Placement == nil {
		spec.Placement = &pb.PlacementSpec{}
	}
	if set.Changed("within") {
		spec.Placement.Within = t.within
	}
	if set.Changed("where") {
		e, err := jobspec.ParseWhere(t.where)
		fault(err, "where")
		spec.Placement.Where = e
	}
}

// parseArray reads 100, or 100:10.
func parseArray(text string) (*pb.ArraySpec, error) {
	count, parallel, two := strings.Cut(text, ":")
	n, err := strconv.ParseInt(count, 10, 32)
	p := int64(0)
	if err == nil && two {
		p, err = strconv.ParseInt(parallel, 10, 32)
	}
	if err != nil {
		return nil, invalid("%q is not a number of copies", text).Hint("write such as 100, or 100:10 for at most 10 at a time")
	}
	return &pb.ArraySpec{Count: int32(n), Parallel: int32(p)}, nil
}
