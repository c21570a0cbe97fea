package main

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
)

const (
	plainEvery   = 10 * time.Second // between progress lines where there is no terminal
	waitSettles  = time.Second      // before a waiting reason is told: most jobs start at once
	barWidth     = 24               // columns of the bar
	valuesShown  = 4                // measured values behind it
	spinnerEvery = 100 * time.Millisecond
)

var spinner = []rune("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏")

// narrator turns the views of one job into what a person who waits for it reads. It prints
// nothing and asks no clock.
type narrator struct {
	tty    bool
	tint   tint
	last   *pb.JobView
	began  time.Time // first view
	waits  string    // why the job waits; empty when it does not
	since  time.Time // that it waits for that reason
	told   string    // newest waiting reason that was told
	newest *pb.Progress
	epoch  uint64           // newest attempt that was told of
	warned map[int32]string // by rank: the newest warning of its agent that was told
	cause  string           // newest cause of an attempt's end that was told
	plain  time.Time        // newest progress line
	timing rate
}

// rate is how fast the steps of one attempt went, from the first to the newest that was seen.
type rate struct {
	epoch           uint64
	first, newest   int64 // steps
	firstAt, seenAt time.Time
}

// see takes a view and gives what is new in it, a line each.
func (n *narrator) see(v *pb.JobView, now time.Time) []string {
	if n.last == nil {
		n.began = now
	}
	n.last = v
	job := v.GetJob()
	var news []string
	say := func(format string, args ...any) { news = append(news, job.GetId()+" "+fmt.Sprintf(format, args...)) }

	if att := v.Attempt; att.GetCause() != "" && att.Cause != n.cause && !job.StopRequested {
		n.cause = att.Cause
		if !client.Finished(job.State) {
			say("attempt %d ends: %s", att.Epoch, oneLine(withOthers(att.Cause, v)))
		}
	}
	n.wait(v, now)
	news = append(news, n.settled(now)...)
	switch {
	case job.GetState() == pb.JobState_JOB_STATE_RUNNING && job.Epoch > n.epoch:
		if running, all := taskCounts(v); running > 0 {
			n.epoch, n.told = job.Epoch, ""
			again := ""
			if job.Epoch > 1 {
				again = fmt.Sprintf(" again, attempt %d", job.Epoch)
			}
			say("runs%s: %s", again, count(all, "task"))
		}
	}
	for _, p := range v.Progress {
		if said := p.GetWarning() != ""; said != (n.warned[p.Rank] != "") {
			if n.warned == nil {
				n.warned = map[int32]string{}
			}
			if n.warned[p.Rank] = p.Warning; said {
				say("rank %d is warned: it %s", p.Rank, oneLine(p.Warning))
			}
		}
	}
	p := leading(v)
	if p != nil {
		n.newest = p
	}
	if p != nil && !n.tty && now.Sub(n.plain) >= plainEvery && !client.Finished(job.State) {
		n.plain = now
		say("%s", strings.Join(n.measures(p, now), ", "))
	}
	return news
}

// wait notes why the job waits, and since when for that reason.
func (n *narrator) wait(v *pb.JobView, now time.Time) {
	reason := ""
	if v.GetJob().GetState() == pb.JobState_JOB_STATE_PENDING {
		reason = oneLine(v.WaitingReason)
	}
	if reason != n.waits {
		n.waits, n.since = reason, now
	}
}

// settled gives a waiting reason that has lasted and that nothing on the screen shows.
func (n *narrator) settled(now time.Time) []string {
	if n.tty || n.waits == "" || n.waits == n.told || now.Sub(n.since) < waitSettles {
		return nil
	}
	n.told = n.waits
	return []string{n.last.GetJob().GetId() + " waits: " + n.waits}
}

// measures are the parts of a progress: step 120/400, eta 1m40s, loss 1.83, 5400 tokens/s.
func (n *narrator) measures(p *pb.Progress, now time.Time) []string {
	step := fmt.Sprintf("step %d", p.Step)
	if p.Steps > 0 {
		step += fmt.Sprintf("/%d", p.Steps)
	}
	parts := []string{step}
	if eta := n.remaining(p, now); eta > 0 {
		parts = append(parts, "eta "+age(eta))
	}
	return append(parts, values(p)...)
}

// values writes the measured values, loss and tokens_per_s first, at most valuesShown.
func values(p *pb.Progress) []string {
	names := slices.Sorted(maps.Keys(p.Values))
	slices.SortStableFunc(names, func(a, b string) int { return valueOrder(a) - valueOrder(b) })
	var out []string
	for _, name := range names[:min(len(names), valuesShown)] {
		if what, perSecond := strings.CutSuffix(name, "_per_s"); perSecond {
			out = append(out, valueText(p.Values[name])+" "+what+"/s")
		} else {
			out = append(out, name+" "+valueText(p.Values[name]))
		}
	}
	return out
}

func valueOrder(name string) int {
	switch name {
	case "loss":
		return 0
	case "tokens_per_s":
		return 1
	}
	return 2
}

// remaining extrapolates when the last step will be done; 0: not known.
func (n *narrator) remaining(p *pb.Progress, now time.Time) time.Duration {
	r := &n.timing
	if epoch := n.last.GetJob().GetEpoch(); r.firstAt.IsZero() || r.epoch != epoch || p.Step < r.newest {
		*r = rate{epoch: epoch, first: p.Step, newest: p.Step, firstAt: now, seenAt: now}
	}
	if p.Step > r.newest {
		r.newest, r.seenAt = p.Step, now
	}
	done, left := r.newest-r.first, p.Steps-p.Step
	if done <= 0 || left <= 0 {
		return 0
	}
	each := float64(r.seenAt.Sub(r.firstAt)) / float64(done)
	return max(time.Duration(each*float64(left))-now.Sub(r.seenAt), time.Second)
}

// live is the line that a terminal shows now, at most width columns; "" at the end.
func (n *narrator) live(now time.Time, width int) string {
	v := n.last
	job := v.GetJob()
	if job == nil || client.Finished(job.State) {
		return ""
	}
	spin := string(spinner[int(now.Sub(n.began)/spinnerEvery)%len(spinner)])
	running, all := taskCounts(v)
	waited := age(now.Sub(n.began))
	p := leading(v)
	switch {
	case job.GetSpec().GetArray() != nil:
		text := fmt.Sprintf("%s copies have ended", copiesText(job))
		if job.CopiesFailed > 0 {
			text += fmt.Sprintf(", %d failed", job.CopiesFailed)
		}
		return clip(fmt.Sprintf("%s %s %s %s", spin, job.Id, waited, text), width)
	case job.State == pb.JobState_JOB_STATE_PENDING:
		text := "waits for a placement"
		if v.WaitingReason != "" {
			text = "waits: " + oneLine(v.WaitingReason)
		}
		return clip(fmt.Sprintf("%s %s %s %s", spin, job.Id, waited, text), width)
	case job.State == pb.JobState_JOB_STATE_STOPPING:
		return clip(fmt.Sprintf("%s %s %s is being stopped, %d of %d tasks run", spin, job.Id, waited, running, all), width)
	case p == nil:
		return clip(fmt.Sprintf("%s %s %s %d of %d tasks run", spin, job.Id, waited, running, all), width)
	case p.Steps <= 0:
		return clip(spin+" "+job.Id+"  "+strings.Join(n.measures(p, now), "  "), width)
	}
	done := int(barWidth * min(max(p.Step, 0), p.Steps) / p.Steps)
	head := fmt.Sprintf("%s %3d%%  ", job.Id, 100*min(max(p.Step, 0), p.Steps)/p.Steps)
	tail := clip("  "+strings.Join(n.measures(p, now), "  "), max(width-utf8.RuneCountInString(head)-barWidth, 1))
	return head + n.tint.paint(green, strings.Repeat("━", done)) + n.tint.paint(faint, strings.Repeat("─", barWidth-done)) + tail
}

// summary is the last line: how the job ended.
func (n *narrator) summary() string {
	job := n.last.GetJob()
	state := jobState(job)
	text := fmt.Sprintf("%s %s", job.GetId(), n.tint.paint(stateColour(state), state))
	took := age(jobDuration(job))
	switch job.GetState() {
	case pb.JobState_JOB_STATE_SUCCEEDED:
		text += " in " + took
		if p := n.newest; p != nil {
			text += ", " + strings.Join(append([]string{stepText(p)}, values(p)...), ", ")
		}
	case pb.JobState_JOB_STATE_FAILED:
		text += " after " + took + ": " + oneLine(withOthers(firstOf(job.Reason, n.cause, "a task failed"), n.last))
	default:
		if reason := oneLine(job.GetReason()); reason != "" {
			text += ": " + reason
		}
	}
	if job.GetEpoch() > 1 {
		text += fmt.Sprintf(" (%d attempts)", job.Epoch)
	}
	return text
}

func stepText(p *pb.Progress) string {
	if p.Steps > 0 {
		return fmt.Sprintf("step %d/%d", p.Step, p.Steps)
	}
	return fmt.Sprintf("step %d", p.Step)
}

// withOthers adds to the failure of one rank what became of the others of its gang.
func withOthers(cause string, v *pb.JobView) string {
	if _, tasks := taskCounts(v); tasks < 2 || !failureOfRank.MatchString(cause) {
		return cause
	}
	return cause + "; others were stopped"
}

// failureOfRank is how the replicated state words that a task failed by itself.
var failureOfRank = regexp.MustCompile(`^rank \d+: (exit \d+|signal \d+|could not start)$`)
