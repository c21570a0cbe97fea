package train

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"llmos/deploy/jobs/charlm/corpus"
	"llmos/deploy/jobs/charlm/model"
	"llmos/transport/collective"
)

var small = Options{Shape: model.Shape{Vocab: corpus.Vocab, Context: 6, Embed: 4, Hidden: 12}, Steps: 30, Batch: 48, Lanes: 4,
	Rate: 0.01, Seed: 5, SaveEvery: 7, Epoch: 1}

func text() *corpus.Corpus {
	var b strings.Builder
	for i := range 3000 {
		fmt.Fprintf(&b, "The %d task of job %d ended. ", i%17, i%29)
	}
	return &corpus.Corpus{Text: corpus.Encode(b.String()), Files: 1}
}

// recorder keeps what rank 0 reports, and can act at a step.
type recorder struct {
	losses map[int]float64
	notes  []string
	at     func(step int)
}

func (r *recorder) Note(format string, args ...any) {
	r.notes = append(r.notes, fmt.Sprintf(format, args...))
}
func (r *recorder) Done(Result) {}
func (r *recorder) Step(step, _ int, loss, _ float64) {
	r.losses[step] = loss
	if r.at != nil {
		r.at(step)
	}
}

// outcome is what one world of ranks came to.
type outcome struct {
	result Result
	errs   []error
	*recorder
}

// world runs Run on so many ranks over loopback. change gives each rank its own options and
// context.
func world(t *testing.T, n int, o Options, rec *recorder, change func(rank int, o *Options) context.Context) outcome {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if rec.losses == nil {
		rec.losses = map[int]float64{}
	}
	out := outcome{errs: make([]error, n), recorder: rec}
	var all sync.WaitGroup
	for rank := range n {
		o, ctx := o, context.Background()
		if change != nil {
			if c := change(rank, &o); c != nil {
				ctx = c
			}
		}
		c := collective.Config{Job: "charlm-1", Epoch: o.Epoch, Rank: rank, World: n, MasterAddr: "127.0.0.1",
			MasterPort: l.Addr().(*net.TCPAddr).Port, Key: make([]byte, 32), JoinWithin: 30 * time.Second}
		if rank == 0 {
			c.Listener = l
		}
		all.Go(func() {
			g, err := collective.Join(context.Background(), c)
			if err != nil {
				out.errs[rank] = err
				return
			}
			defer g.Close()
			mine := &recorder{losses: map[int]float64{}}
			if rank == 0 {
				mine = rec
			}
			res, err := Run(ctx, o, g, text(), mine)
			out.errs[rank] = err
			if rank == 0 {
				out.result = res
			}
		})
	}
	all.Wait()
	return out
}

func mustWorld(t *testing.T, n int, o Options) outcome {
	t.Helper()
	out := world(t, n, o, &recorder{}, nil)
	if err := errors.Join(out.errs...); err != nil {
		t.Fatal(err)
	}
	return out
}

// apart is the largest relative difference of two runs' losses.
func apart(t *testing.T, a, b outcome) float64 {
	t.Helper()
	worst := 0.0
	for step, loss := range a.losses {
		other, ok := b.losses[step]
		if !ok {
			continue
		}
		worst = max(worst, math.Abs(loss-other)/loss)
	}
	return worst
}

func TestLossDoesNotDependOnTheWorld(t *testing.T) {
	one := mustWorld(t, 1, small)
	if first, last := one.losses[1], one.losses[30]; math.Abs(first-math.Log(corpus.Vocab)) > 0.3 || last > first-1 {
		t.Errorf("the loss goes from %v to %v: nothing was learned", first, last)
	}
	four, again := mustWorld(t, 4, small), mustWorld(t, 4, small)
	if d := apart(t, four, again); d != 0 || four.result.Sample != again.result.Sample || four.result.HeldOutLoss != again.result.HeldOutLoss {
		t.Errorf("two equal runs differ by %g", d)
	}
	// With as many ranks as lanes even the rounding is the same.
	if d := apart(t, one, four); d != 0 || one.result.HeldOutLoss != four.result.HeldOutLoss {
		t.Errorf("1 rank and 4 ranks differ by %g", d)
	}
	for _, n := range []int{2, 3, 5} {
		if d := apart(t, one, mustWorld(t, n, small)); d > 1e-4 {
			t.Errorf("1 rank and %d ranks differ by %g", n, d)
		}
	}
}

// TestResumeChangesNothing stops a run after some steps and goes on in a new attempt: the
// losses must be those of a run that was never stopped.
func TestResumeChangesNothing(t *testing.T) {
	whole := mustWorld(t, 4, small)
	o := small
	o.Dir = t.TempDir()
	ctx, cancel := context.WithCancelCause(context.Background())
	stop := errors.New("asked to end")
	first := world(t, 4, o, &recorder{at: func(step int) {
		if step == 20 {
			cancel(stop)
		}
	}}, func(int, *Options) context.Context { return ctx })
	for rank, err := range first.errs {
		if err == nil {
			t.Fatalf("rank %d ended well although it was stopped", rank)
		}
	}
	o.Epoch = 2
	second := mustWorld(t, 4, o)
	if second.result.ResumedFrom < 20 || second.result.Epoch != 2 || second.result.World != 4 {
		t.Errorf("%+v, want it resumed from step 20 or later", second.result)
	}
	if _, ok := second.losses[10]; ok {
		t.Error("a step was taken twice")
	}
	if d := apart(t, whole, second); d != 0 || len(second.losses) == 0 || second.result.HeldOutLoss != whole.result.HeldOutLoss {
		t.Errorf("the resumed run differs by %g", d)
	}
	if len(second.notes) == 0 || !strings.HasSuffix(second.notes[0], ", saved by epoch 1") {
		t.Errorf("notes %q", second.notes)
	}
	text, err := os.ReadFile(filepath.Join(o.Dir, resultName))
	var res Result
	if err != nil || json.Unmarshal(text, &res) != nil || res.Steps != 30 || res.ResumedFrom != second.result.ResumedFrom || len(res.Sample) == 0 && small.Sample > 0 {
		t.Errorf("result.json %s (%v)", text, err)
	}
	third := mustWorld(t, 2, func() Options { o := o; o.Epoch = 3; return o }())
	if third.result.ResumedFrom != 30 || third.result.Loss <= 0 || len(third.losses) != 0 {
		t.Errorf("a finished run that is started again: %+v", third.result)
	}
}

// TestLostRankLosesNoStep lets one rank go away: the others must name it, and rank 0 must
// have saved the last step that was done.
func TestLostRankLosesNoStep(t *testing.T) {
	o := small
	o.Dir, o.SaveEvery = t.TempDir(), 1000
	ctx, cancel := context.WithCancel(context.Background())
	out := world(t, 3, o, &recorder{at: func(step int) {
		if step == 10 {
			cancel()
		}
	}}, func(rank int, _ *Options) context.Context {
		if rank == 2 {
			return ctx
		}
		return nil
	})
	for rank, err := range out.errs[:2] {
		var lost *collective.RankError
		if !errors.As(err, &lost) || lost.Rank != 2 {
			t.Errorf("rank %d: %v, want one that names rank 2", rank, err)
		}
	}
	o.Epoch = 2
	if next := mustWorld(t, 3, o); next.result.ResumedFrom < 10 {
		t.Errorf("resumed from %d, want 10 or later", next.result.ResumedFrom)
	}
}

func TestRanksMustAgree(t *testing.T) {
	out := world(t, 2, small, &recorder{}, func(rank int, o *Options) context.Context {
		o.Seed += uint64(rank)
		return nil
	})
	for _, err := range out.errs {
		if err == nil || err.Error() != "rank 1 was started with other options than rank 0" {
			t.Errorf("%v", err)
		}
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	for _, change := range []func(o *Options){
		func(o *Options) { o.Steps = 0 }, func(o *Options) { o.Batch = 0 }, func(o *Options) { o.Lanes = 49 },
		func(o *Options) { o.Rate = math.NaN() }, func(o *Options) { o.Sample = -1 }, func(o *Options) { o.SaveEvery = 0 },
		func(o *Options) { o.Shape.Hidden = 0 },
	} {
		o := small
		change(&o)
		if o.Check() == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}
