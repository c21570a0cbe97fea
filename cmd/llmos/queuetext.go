package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// queueTable shows the tree: children below their parent, indented. bare leaves out what a
// server that does not lead cannot know.
func queueTable(views []*pb.QueueView, bare bool) *table {
	t := &table{header: []string{"QUEUE", "WEIGHT", "SHARE", "FAIR", "RUNNING", "PENDING", "PAST", "QUOTA"},
		right: map[int]bool{1: true, 2: true, 3: true, 4: true, 5: true, 6: true}}
	sorted := slices.SortedStableFunc(slices.Values(views), func(a, b *pb.QueueView) int {
		return slices.Compare(strings.Split(a.GetQueue().GetName(), "/"), strings.Split(b.GetQueue().GetName(), "/"))
	})
	for _, v := range sorted {
		q := v.GetQueue()
		path := strings.Split(q.GetName(), "/")
		share, fair, past := percent(v.Share), percent(v.FairShare), hoursText(v.PastUsage)
		if bare {
			share, fair, past = "-", "-", "-"
		}
		t.add(plain(strings.Repeat("  ", len(path)-1)+path[len(path)-1]), plain(fmt.Sprint(q.GetWeight())), plain(share), plain(fair),
			plain(bounded(v.Running, q.GetRunningMax())), plain(bounded(v.Pending, q.GetPendingMax())), plain(past), plain(quotaText(v, bare)))
	}
	return t
}

// bounded is a number and, where there is one, its bound: 3/20.
func bounded(n, most int32) string {
	if most == 0 {
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%d/%d", n, most)
}

func percent(share float64) string { return fmt.Sprintf("%.0f%%", 100*share) }

// hoursText writes hours in three digits or so.
func hoursText(hours float64) string {
	switch {
	case hours <= 0:
		return "-"
	case hours < 0.1:
		return "<0.1"
	case hours < 100:
		return strings.TrimSuffix(fmt.Sprintf("%.1f", hours), ".0")
	}
	return fmt.Sprintf("%.0f", hours)
}

// quotaText is what the queue holds of what it is guaranteed: gpu 12/16, memory 1Ti/2Ti.
func quotaText(v *pb.QueueView, bare bool) string {
	var parts []string
	for _, l := range v.GetQueue().GetLimits() {
		used := int64(0)
		for _, u := range v.Used {
			if u.GetResource() == l.GetResource() {
				used = u.GetNominal()
			}
		}
		text := l.GetResource() + " "
		if !bare {
			text += jobspec.FormatQuota(l.GetResource(), used) + "/"
		}
		text += jobspec.FormatQuota(l.GetResource(), l.GetNominal())
		if l.GetBorrow() >= 0 {
			text += " (borrows " + amountOrNone(l.GetResource(), l.GetBorrow()) + ")"
		}
		parts = append(parts, text)
	}
	if len(parts) == 0 {
		return "-"
	}
	return strings.Join(parts, ", ")
}

func amountOrNone(resource string, amount int64) string {
	if amount == 0 {
		return "none"
	}
	return "up to " + jobspec.FormatQuota(resource, amount)
}

const (
	dayMS         = 24 * 60 * 60 * 1000
	milliMSInHour = 1000 * 60 * 60 * 1000 // thousandths of a device times milliseconds
)

func (a *app) usageCommand() *cobra.Command {
	var c connection
	var f format
	var days int64
	cmd := &cobra.Command{
		Use: "usage", Short: "Show the GPU hours of queues and users", Args: arguments(0, 0, "no arguments"),
		Long: "Show what queues and users have used: GPU hours, CPU core hours and jobs that ended. Running jobs are\n" +
			"counted up to the last end of a day, UTC.",
		Example: "  llmos queue usage\n  llmos queue usage --days 7\n  llmos queue usage -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if days < 0 {
				return invalid("--days %d is negative", days)
			}
			return a.with(cmd, &c, func(ctx context.Context, s *session) error {
				req := &pb.ListUsageRequest{}
				if days > 0 {
					req.FromDay = max(a.now().UnixMilli()/dayMS-days+1, 0)
				}
				resp, err := s.ListUsage(ctx, req)
				if err != nil {
					return err
				}
				return a.print(&f, resp, func() { a.showUsage(resp.Days) })
			})
		},
	}
	c.flags(cmd)
	f.flag(cmd)
	cmd.Flags().Int64Var(&days, "days", 0, "only the last `N` days, today included (default: all that is kept, 400)")
	return cmd
}

func (a *app) showUsage(days []*pb.UsageDay) {
	if len(days) == 0 {
		a.note("nothing has been used yet\n")
		return
	}
	a.show(usageTable(days))
	first, last := days[0].Day, days[len(days)-1].Day
	day := func(d int64) string { return time.UnixMilli(d * dayMS).UTC().Format(time.DateOnly) }
	a.note("from %s to %s, UTC\n", day(first), day(last))
}

// usageTable sums over the days, by queue and user; who used most comes first.
func usageTable(days []*pb.UsageDay) *table {
	type who struct{ queue, user string }
	place := map[who]int{}
	var sums []*pb.UsageDay
	all := &pb.UsageDay{}
	for _, d := range days {
		key := who{d.GetQueue(), d.GetUser()}
		i, known := place[key]
		if !known {
			i = len(sums)
			place[key] = i
			sums = append(sums, &pb.UsageDay{Queue: d.GetQueue(), User: d.GetUser()})
		}
		for _, sum := range []*pb.UsageDay{sums[i], all} {
			sum.GpuMilliMs, sum.CpuMilliMs, sum.Jobs = sum.GpuMilliMs+d.GetGpuMilliMs(), sum.CpuMilliMs+d.GetCpuMilliMs(), sum.Jobs+d.GetJobs()
		}
	}
	slices.SortStableFunc(sums, func(x, y *pb.UsageDay) int {
		return cmp.Or(cmp.Compare(y.GpuMilliMs, x.GpuMilliMs), cmp.Compare(y.CpuMilliMs, x.CpuMilliMs), strings.Compare(x.Queue, y.Queue), strings.Compare(x.User, y.User))
	})
	t := &table{header: []string{"QUEUE", "USER", "GPU HOURS", "CPU HOURS", "JOBS"}, right: map[int]bool{2: true, 3: true, 4: true}}
	row := func(queue, user string, d *pb.UsageDay) {
		t.add(plain(queue), plain(user), plain(hoursText(float64(d.GpuMilliMs)/milliMSInHour)), plain(hoursText(float64(d.CpuMilliMs)/milliMSInHour)), plain(fmt.Sprint(d.Jobs)))
	}
	for _, d := range sums {
		row(firstOf(d.Queue, queueDefault), firstOf(d.User, "-"), d)
	}
	if len(sums) > 1 {
		row("all", "", all)
	}
	return t
}
