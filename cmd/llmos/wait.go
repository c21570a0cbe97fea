package main

import (
	"context"
	"sync"
	"time"

	pb "llmos/proto/llmos/v1"
)

const logDrain = 10 * time.Second // for the last output of a job that has ended

// waiter stays with a job until it ends: it draws on the terminal, or writes plain lines.
type waiter struct {
	a    *app
	mu   sync.Mutex // held while anything is drawn
	n    narrator
	draw bool // the live line; not while output is printed
	on   bool // a live line stands on the terminal
}

// await watches the job to its end and gives its exit code as an exitStatus. When ctx ends
// first it leaves the job running and says how to stop it. tasks is how many the job has.
func (a *app) await(ctx context.Context, s *session, job string, tasks int, follow, asJSON bool) error {
	w := &waiter{a: a, n: narrator{tty: a.errTTY, tint: a.errTint()}, draw: a.errTTY && !follow}
	a.note("%s\n", job)
	logs := make(chan error, 1)
	logCtx, stopLogs := context.WithCancel(ctx)
	defer stopLogs()
	if follow {
		p := newLogPrinter(a, tasks > 1, asJSON)
		go func() {
			logs <- s.ReadLogs(logCtx, &pb.ReadLogsRequest{JobId: job, Rank: allRanks, Follow: true}, p.print)
		}()
	} else {
		logs <- nil
	}
	stopDrawing := w.drawing()
	err := s.WatchJob(ctx, job, func(v *pb.JobView) error { w.see(v); return nil })
	stopDrawing()
	if ctx.Err() != nil {
		return w.detach(job)
	}
	if err != nil {
		return reached(err, s.Servers())
	}
	select {
	case err := <-logs:
		if err != nil {
			a.note("llmos: some output could not be read: %v\n", err)
		}
	case <-time.After(logDrain):
		a.note("llmos: the rest of the output is late; llmos logs %s shows it\n", job)
	case <-ctx.Done():
		return w.detach(job)
	}
	return w.end(asJSON, follow)
}

func (w *waiter) see(v *pb.JobView) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.a.now()
	w.tell(w.n.see(v, now))
	w.redraw(now)
}

// tell writes lines above the live one. The caller holds mu.
func (w *waiter) tell(lines []string) {
	for _, line := range lines {
		w.clear()
		w.a.note("%s\n", line)
	}
}

// redraw writes the live line over the one that stands. The caller holds mu.
func (w *waiter) redraw(now time.Time) {
	if !w.draw || w.n.last == nil {
		return
	}
	if line := w.n.live(now, min(w.a.columns(), widthMax)-1); line != "" {
		w.a.note("\r\x1b[K%s", line)
		w.on = true
	}
}

// clear takes the live line away. The caller holds mu.
func (w *waiter) clear() {
	if w.on {
		w.a.note("\r\x1b[K")
		w.on = false
	}
}

// drawing redraws the live line, or tells what has lasted, until the function that it gives
// is called.
func (w *waiter) drawing() (stop func()) {
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		tick := time.NewTicker(spinnerEvery)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				w.mu.Lock()
				now := w.a.now()
				w.tell(w.n.settled(now))
				w.redraw(now)
				w.mu.Unlock()
			case <-done:
				return
			}
		}
	}()
	return func() {
		close(done)
		<-gone
		w.mu.Lock()
		w.clear()
		w.mu.Unlock()
	}
}

func (w *waiter) detach(job string) error {
	if w.a.errTTY {
		w.a.note("\r\x1b[K")
	}
	w.a.note("detached; %s goes on without you\n  llmos logs -f %s  # follow it again\n  llmos stop %s     # stop it\n", job, job, job)
	return exitStatus(exitInterrupted)
}

// end prints the summary and gives the job's exit code.
func (w *waiter) end(asJSON, follow bool) error {
	job := w.n.last.GetJob()
	w.a.note("%s\n", w.n.summary())
	code := exitOf(job)
	if code != exitOK && !follow && job.GetEpoch() > 0 {
		w.a.note("%s llmos logs %s\n", w.a.errTint().paint(faint, "hint:"), job.GetId())
	}
	if asJSON {
		if err := w.a.printJSON(w.n.last); err != nil {
			return err
		}
	}
	if code == exitOK {
		return nil
	}
	return exitStatus(code)
}
