package main

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

const (
	allRanks = -1       // every task of a job
	lineMax  = 64 << 10 // bytes of a line that are held back until it ends
)

func (a *app) logsCommand() *cobra.Command {
	var c connection
	req := &pb.ReadLogsRequest{}
	cmd := &cobra.Command{
		Use: "logs JOB", Short: "Print what a job's tasks print", Args: arguments(1, 1, "the ID or name of one job"),
		Long: "Print what the tasks of a job print: their standard output to standard output, their standard error to standard error.\n" +
			"Of several tasks every line begins with its rank.",
		Example: "  llmos logs train-1\n  llmos logs -f --rank 0 train-1\n  llmos logs --tail 20 train",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case req.Rank < allRanks:
				return invalid("--rank %d is negative", req.Rank).Hint("ranks count from 0; -1 means every rank")
			case req.TailLines < 0:
				return invalid("--tail %d is negative", req.TailLines)
			}
			req.JobId = args[0]
			return a.readLogs(cmd, &c, req)
		},
	}
	c.flags(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&req.Follow, "follow", "f", false, "go on until the job has ended")
	flags.Int32Var(&req.Rank, "rank", allRanks, "of rank `N` alone (-1: all)")
	flags.Int64Var(&req.TailLines, "tail", 0, "begin `N` lines before the end (0: at the beginning)")
	flags.Uint64Var(&req.Epoch, "attempt", 0, "of attempt `N` (0: the newest)")
	return cmd
}

func (a *app) readLogs(cmd *cobra.Command, c *connection, req *pb.ReadLogsRequest) error {
	s, err := a.open(cmd.Context(), c)
	if err != nil {
		return err
	}
	defer s.close()
	ctx := cmd.Context()
	asking, cancel := context.WithTimeout(ctx, c.timeout)
	view, err := s.GetJob(asking, &pb.GetJobRequest{JobId: req.JobId})
	cancel()
	if err != nil {
		return reached(err, s.Servers())
	}
	_, tasks := taskCounts(view)
	if int(req.Rank) >= tasks {
		return fault.New(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "%s has no rank %d: its ranks are 0 to %d", view.GetJob().GetId(), req.Rank, tasks-1)
	}
	req.JobId = view.GetJob().GetId()
	p := newLogPrinter(a, req.Rank == allRanks && tasks > 1, false)
	if err := s.ReadLogs(ctx, req, p.print); err != nil {
		if ctx.Err() != nil && req.Follow {
			return exitStatus(exitInterrupted)
		}
		return reached(err, s.Servers())
	}
	return p.flush()
}

// logPrinter writes chunks of output. Of several ranks it writes whole lines with the rank
// before them; a line is held back until it has ended or grown to lineMax.
type logPrinter struct {
	out, errOut      io.Writer
	outTint, errTint tint
	prefixed         bool
	partial          map[streamKey][]byte
	order            []streamKey // of partial, as first seen
}

// streamKey names one stream of one rank.
type streamKey struct {
	rank   int32
	stderr bool
}

// rankColours tell ranks apart on a terminal.
var rankColours = []string{"36", "35", "34", "33", "32", "31"}

// newLogPrinter writes tasks' standard output to ours and their standard error to ours;
// with toErr both go to our standard error, which leaves the other to JSON.
func newLogPrinter(a *app, prefixed, toErr bool) *logPrinter {
	p := &logPrinter{out: a.out, errOut: a.errOut, outTint: a.outTint(), errTint: a.errTint(), prefixed: prefixed, partial: map[streamKey][]byte{}}
	if toErr {
		p.out, p.outTint = p.errOut, p.errTint
	}
	return p
}

// print is called by one goroutine at a time.
func (p *logPrinter) print(c *pb.LogChunk) error {
	key := streamKey{c.Rank, c.Stderr}
	if !p.prefixed {
		out, _ := p.stream(key)
		_, err := out.Write(c.Data)
		return err
	}
	held, known := p.partial[key]
	if !known {
		p.order = append(p.order, key)
	}
	text := append(held, c.Data...)
	for {
		end := bytes.IndexByte(text, '\n') + 1
		if end == 0 && len(text) >= lineMax {
			end = len(text)
		}
		if end == 0 {
			break
		}
		if err := p.line(key, text[:end]); err != nil {
			return err
		}
		text = text[end:]
	}
	p.partial[key] = bytes.Clone(text)
	if c.End {
		return p.flush()
	}
	return nil
}

func (p *logPrinter) stream(key streamKey) (io.Writer, tint) {
	if key.stderr {
		return p.errOut, p.errTint
	}
	return p.out, p.outTint
}

func (p *logPrinter) line(key streamKey, text []byte) error {
	out, tint := p.stream(key)
	label := tint.paint(rankColours[int(key.rank)%len(rankColours)], fmt.Sprintf("[%d]", key.rank))
	_, err := fmt.Fprintf(out, "%s %s\n", label, bytes.TrimSuffix(text, []byte{'\n'}))
	return err
}

// flush writes what is held back of lines that did not end.
func (p *logPrinter) flush() error {
	for _, key := range p.order {
		if text := p.partial[key]; len(text) > 0 {
			p.partial[key] = nil
			if err := p.line(key, text); err != nil {
				return err
			}
		}
	}
	return nil
}
