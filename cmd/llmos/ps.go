package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"llmos/proto/client"
	pb "llmos/proto/llmos/v1"
)

const (
	jobsShown = 1000        // lines of ps without --limit
	leftLeast = time.Minute // a prediction of less says little
	pagesMost = 64          // of jobs that are asked for, since the copies of an array are jobs
)

// psFlags are the flags of `ps`.
type psFlags struct {
	c      connection
	f      format
	all    bool
	stale  bool
	copies bool
	limit  int32
}

func (a *app) psCommand() *cobra.Command {
	o := &psFlags{}
	cmd := &cobra.Command{
		Use: "ps", Short: "List jobs", Args: arguments(0, 0, "no arguments"),
		Long: "List the jobs that wait or run, with what they do or why they wait; -a lists finished ones too.\n" +
			"An array is one line, unless --copies asks for each; a cron job says when its next copy starts.",
		Example: "  llmos ps\n  llmos ps -a\n  llmos ps --copies\n  llmos ps -o json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd, &o.c, func(ctx context.Context, s *session) error {
				jobs, err := o.list(ctx, s)
				if err != nil {
					return err
				}
				return a.print(&o.f, jobs, func() { a.showJobs(jobs, nodeNames(ctx, s, jobs), o.all, o.copies) })
			})
		},
	}
	o.c.flags(cmd)
	o.f.flag(cmd)
	cmd.Flags().BoolVarP(&o.all, "all", "a", false, "finished jobs too")
	cmd.Flags().BoolVar(&o.copies, "copies", false, "every copy of an array")
	cmd.Flags().BoolVar(&o.stale, "stale", false, "what the asked server knows, without asking the leader")
	cmd.Flags().Int32VarP(&o.limit, "limit", "n", 0, "at most `N` jobs (0: 1000)")
	return cmd
}

// list asks for jobs until there are as many lines as there may be. For a table, the copies
// of an array do not count.
func (o *psFlags) list(ctx context.Context, s *session) (*pb.ListJobsResponse, error) {
	req := &pb.ListJobsRequest{All: o.all, Stale: o.stale, Limit: o.limit}
	all, err := s.ListJobs(ctx, req)
	if err != nil || o.f.json || o.copies {
		return all, err
	}
	most := int(o.limit)
	if most == 0 {
		most = jobsShown
	}
	for page := 1; all.More && page < pagesMost && len(linesOf(all.Jobs, false)) < most; page++ {
		next, err := s.ListJobs(ctx, &pb.ListJobsRequest{All: o.all, Stale: o.stale, Limit: o.limit, After: all.Jobs[len(all.Jobs)-1].GetJob().GetId()})
		if err != nil {
			return nil, err
		}
		all.Jobs, all.More, all.Index = append(all.Jobs, next.Jobs...), next.More, next.Index
		if len(next.Jobs) == 0 {
			break
		}
	}
	return all, nil
}

// nodeNames gives the names of the nodes that the jobs run on; an ID serves where it fails.
func nodeNames(ctx context.Context, s *session, jobs *pb.ListJobsResponse) map[string]string {
	for _, v := range jobs.Jobs {
		if v.GetJob().GetState() == pb.JobState_JOB_STATE_RUNNING {
			return allNodeNames(ctx, s)
		}
	}
	return map[string]string{}
}

func (a *app) showJobs(jobs *pb.ListJobsResponse, nodes map[string]string, all, copies bool) {
	if len(jobs.Jobs) == 0 {
		if all {
			a.note("no jobs yet; a first one: llmos run -- echo hello\n")
		} else {
			a.note("no jobs wait or run; llmos ps -a lists finished ones\n")
		}
		return
	}
	a.show(a.jobTable(jobs, nodes, copies))
	if jobs.More {
		a.note("there are more jobs; --limit shows them\n")
	}
}

// line is one line of ps: a job, or an array with its copies.
type line struct {
	view   *pb.JobView
	copies []*pb.JobView // of an array, as far as they were listed
}

// linesOf puts the copies of each array that is listed into its line; with each they have
// lines of their own, too.
func linesOf(views []*pb.JobView, each bool) []line {
	copies := map[string][]*pb.JobView{}
	isArray := map[string]bool{}
	for _, v := range views {
		isArray[v.GetJob().GetId()] = v.GetJob().GetSpec().GetArray() != nil
		if parent := v.GetJob().GetParent(); parent != "" {
			copies[parent] = append(copies[parent], v)
		}
	}
	var lines []line
	for _, v := range views {
		if parent := v.GetJob().GetParent(); each || parent == "" || !isArray[parent] {
			lines = append(lines, line{view: v, copies: copies[v.GetJob().GetId()]})
		}
	}
	return lines
}

func (a *app) jobTable(jobs *pb.ListJobsResponse, nodes map[string]string, copies bool) *table {
	t := &table{header: []string{"ID", "STATE", "QUEUE", "TASKS", "GPUS", "PROGRESS", "AGE", "WHY/NODE"}}
	for _, l := range linesOf(jobs.Jobs, copies) {
		v := l.view
		job := v.GetJob()
		state := jobState(job)
		tasks, progress, where := "-", progressText(v), whereText(v, nodes)
		switch {
		case job.GetSpec().GetArray() != nil:
			progress, where = copiesText(job), l.stateText()
		case job.GetSpec().GetCron() != nil:
			progress, where = copyCount(int(job.Copies)), a.cronText(v)
		default:
			running, all := taskCounts(v)
			tasks = fmt.Sprintf("%d/%d", running, all)
			progress = a.progressCell(v, progress)
			where += a.outlookText(v)
			if stall := a.stallText(v); stall != "" {
				where += "; " + stall
			}
		}
		t.add(plain(job.GetId()), cell{state, stateColour(state)}, plain(queueOf(job)), plain(tasks), plain(gpuText(v)),
			plain(progress), plain(age(a.since(job.GetSubmittedMs()))), plain(where))
	}
	return t
}

func copyCount(n int) string {
	if n == 1 {
		return "1 copy"
	}
	return fmt.Sprintf("%d copies", n)
}

func queueOf(job *pb.Job) string { return firstOf(job.GetSpec().GetQueue(), queueDefault) }

// copiesText says how many copies of an array have ended: 40/100.
func copiesText(job *pb.Job) string {
	all := max(job.GetSpec().GetArray().GetCount(), job.GetCopies())
	return fmt.Sprintf("%d/%d", job.GetCopies()-job.GetCopiesUnfinished(), all)
}

// stateText counts the copies of an array by what they do: 10 run, 50 wait, 38 succeeded, 2 failed.
func (l line) stateText() string {
	job := l.view.GetJob()
	if client.Finished(job.GetState()) && job.GetCopiesFailed() == 0 {
		return endText(job)
	}
	running := 0
	for _, c := range l.copies {
		if s := c.GetJob().GetState(); s == pb.JobState_JOB_STATE_RUNNING || s == pb.JobState_JOB_STATE_STOPPING {
			running++
		}
	}
	text := ""
	add := func(n int, what string) {
		if n > 0 {
			text += fmt.Sprintf(", %d %s", n, what)
		}
	}
	unfinished := int(job.GetCopiesUnfinished())
	add(running, "run")
	add(unfinished-running, "wait")
	add(int(job.GetCopies()-job.GetCopiesUnfinished()-job.GetCopiesFailed()), "succeeded")
	add(int(job.GetCopiesFailed()), "failed")
	if text == "" {
		return firstOf(job.GetReason(), "its copies are being made")
	}
	return text[2:]
}

// cronText says when a cron job starts its next copy.
func (a *app) cronText(v *pb.JobView) string {
	job := v.GetJob()
	if client.Finished(job.GetState()) {
		return endText(job)
	}
	text := job.GetSpec().GetCron().GetSchedule()
	if zone := job.GetSpec().GetCron().GetTimeZone(); zone != "" {
		text += " " + zone
	}
	if v.ExpectedStartMs > 0 {
		text = "next " + a.whenText(v.ExpectedStartMs) + ", by " + text
	}
	if n := job.GetCopiesUnfinished(); n > 0 {
		text += fmt.Sprintf("; %d unfinished", n)
	}
	return text
}

// outlookText is behind the reason of a job that waits when it is expected to start, and
// behind the nodes of one that runs when it is expected to end.
func (a *app) outlookText(v *pb.JobView) string {
	switch {
	case v.GetJob().GetState() == pb.JobState_JOB_STATE_PENDING && v.ExpectedStartMs > a.now().UnixMilli():
		return "; expected at " + a.clock(v.ExpectedStartMs)
	case v.GetJob().GetState() == pb.JobState_JOB_STATE_RUNNING && v.ExpectedEndMs > a.now().Add(leftLeast).UnixMilli():
		return ", about " + age(time.Duration(v.ExpectedEndMs-a.now().UnixMilli())*time.Millisecond) + " left"
	}
	return ""
}
