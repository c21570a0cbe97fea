// Package train is the loop of synchronous data-parallel training: every rank computes the
// gradient of its part of the same global batch, the gradients are added up over the ranks,
// and every rank takes the same step. So all ranks always hold the same parameters, and the
// loss does not depend on how many ranks there are beyond rounding. Rank 0 reports, saves
// and samples. It is called by the program charlm; the sums are package collective's.
package train

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"time"

	"llmos/deploy/jobs/charlm/checkpoint"
	"llmos/deploy/jobs/charlm/corpus"
	"llmos/deploy/jobs/charlm/model"
)

// Options say what is trained and how. All ranks must have the same.
type Options struct {
	Shape  model.Shape
	Steps  int
	Batch  int     // samples of all ranks together in one step
	Lanes  int     // parts of the batch whose gradients are added up separately; see gradient
	Rate   float64 // learning rate at its highest
	Seed   uint64
	Sample int // characters of text to make at the end

	// Of rank 0 only:
	SaveEvery int    // steps between checkpoints
	Dir       string // of the checkpoints and the result; empty: none are kept
	Epoch     uint64
}

// warmupSteps is how long the learning rate rises; afterwards it falls to rateFloor of its
// highest along a cosine.
const (
	warmupSteps = 20
	rateFloor   = 0.1
)

// Check says what is wrong with the options.
func (o Options) Check() error {
	switch {
	case o.Steps < 1 || o.Steps > 1_000_000_000:
		return fmt.Errorf("%d steps, want 1 to 1,000,000,000", o.Steps)
	case o.Batch < 1 || o.Batch > 1<<20:
		return fmt.Errorf("a batch of %d samples, want 1 to %d", o.Batch, 1<<20)
	case o.Lanes < 1 || o.Lanes > o.Batch:
		return fmt.Errorf("%d lanes for a batch of %d samples", o.Lanes, o.Batch)
	case !(o.Rate > 0) || o.Rate > 10:
		return fmt.Errorf("a learning rate of %v, want more than 0 and at most 10", o.Rate)
	case o.Sample < 0 || o.Sample > 1<<20:
		return fmt.Errorf("a sample of %d characters, want 0 to %d", o.Sample, 1<<20)
	case o.SaveEvery < 1:
		return fmt.Errorf("a checkpoint every %d steps, want at least 1", o.SaveEvery)
	}
	return o.Shape.Check()
}

// Ranks is what the loop needs of the group; *collective.Group is one.
type Ranks interface {
	Rank() int
	Size() int
	AllReduce(ctx context.Context, data []float32) error
	Broadcast(ctx context.Context, root int, data []float32) error
	AllGather(ctx context.Context, mine []byte) ([][]byte, error)
}

// Reporter hears of progress on rank 0. Its methods are called in the loop and must be quick.
type Reporter interface {
	Note(format string, args ...any)
	Step(step, steps int, loss, tokensPerSecond float64)
	Done(Result)
}

// Result is what a finished run leaves behind.
type Result struct {
	Loss        float64 `json:"loss"`          // mean over the last steps, in nats a character
	HeldOutLoss float64 `json:"held_out_loss"` // on text that was never trained on
	TokensPerS  float64 `json:"tokens_per_s"`  // characters trained on by all ranks
	Steps       int     `json:"steps"`
	ResumedFrom int     `json:"resumed_from"` // step; 0 when the run began at the beginning
	Epoch       uint64  `json:"epoch"`
	World       int     `json:"world"`
	Sample      string  `json:"sample,omitempty"`
}

// run is one rank's training.
type run struct {
	Options
	ranks  Ranks
	text   *corpus.Corpus
	net    *model.Net
	adam   *model.Adam
	store  *checkpoint.Store // of rank 0, when there is a folder
	report Reporter
	grad   []float32 // of all parameters, and the loss as the last element
	lane   []float32 // the same, of one lane
	step   int       // steps that are done
	saved  int       // step of the newest checkpoint
	losses []float64 // of the steps of this process

	lastLoss float64 // of the checkpoint that this process began from
	begun    time.Time
	from     int
}

// Run trains until all steps are done, and returns the result on rank 0. When ctx ends or
// another rank dies, rank 0 saves the last step that is done before Run returns the error.
func Run(ctx context.Context, o Options, ranks Ranks, text *corpus.Corpus, report Reporter) (Result, error) {
	if err := o.Check(); err != nil {
		return Result{}, err
	}
	net, err := model.New(o.Shape, o.Seed)
	if err != nil {
		return Result{}, err
	}
	n := o.Shape.Params()
	r := &run{Options: o, ranks: ranks, text: text, net: net, adam: model.NewAdam(n), report: report,
		grad: make([]float32, n+1), lane: make([]float32, n+1)}
	if r.leads() && o.Dir != "" {
		if r.store, err = checkpoint.Open(o.Dir, o.Epoch); err != nil {
			return Result{}, err
		}
	}
	if err := r.agree(ctx); err != nil {
		return Result{}, err
	}
	if err := r.resume(ctx); err != nil {
		return Result{}, err
	}
	r.begun, r.from = time.Now(), r.step
	if err := r.loop(ctx); err != nil {
		return Result{}, errors.Join(err, r.save())
	}
	if err := r.save(); err != nil || !r.leads() {
		return Result{}, err
	}
	return r.finish()
}

func (r *run) leads() bool { return r.ranks.Rank() == 0 }

// agree makes sure that all ranks train the same model on the same text.
func (r *run) agree(ctx context.Context) error {
	o := r.Options
	o.Dir, o.SaveEvery, o.Epoch = "", 0, 0
	words, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("describe the run: %w", err)
	}
	sum := sha256.Sum256(words)
	all, err := r.ranks.AllGather(ctx, append(sum[:], r.text.Digest()...))
	if err != nil {
		return err
	}
	for rank, other := range all {
		if len(other) < len(sum) || string(other[:len(sum)]) != string(all[0][:len(sum)]) {
			return fmt.Errorf("rank %d was started with other options than rank 0", rank)
		}
		if string(other) != string(all[0]) {
			return fmt.Errorf("rank %d reads other text than rank 0 (digests %s and %s): -corpus must name the same files on every node",
				rank, other[len(sum):], all[0][len(sum):])
		}
	}
	return nil
}

// resume brings all ranks to the newest checkpoint. Rank 0 alone reads it, so that no two
// ranks can find different ones.
func (r *run) resume(ctx context.Context) error {
	var st checkpoint.State
	var loadErr error
	answer := int64(-1)
	if r.store != nil {
		var found bool
		var notes []string
		st, found, notes, loadErr = r.store.Load(r.shape())
		for _, note := range notes {
			r.report.Note("%s", note)
		}
		if found && len(st.Params) != len(r.net.Params) {
			loadErr = fmt.Errorf("the checkpoint of step %d has %d parameters, want %d", st.Step, len(st.Params), len(r.net.Params))
		}
		if loadErr != nil {
			return loadErr
		}
		if found {
			answer, r.lastLoss = int64(st.Step), st.Loss
			copy(r.net.Params, st.Params)
			copy(r.adam.M, st.M)
			copy(r.adam.V, st.V)
		}
	}
	all, err := r.ranks.AllGather(ctx, binary.BigEndian.AppendUint64(nil, uint64(answer)))
	if err != nil {
		return err
	}
	if len(all[0]) != 8 {
		return fmt.Errorf("rank 0 says %d bytes about where to begin, want 8", len(all[0]))
	}
	step := int64(binary.BigEndian.Uint64(all[0]))
	if step < 0 {
		return nil
	}
	for _, v := range [][]float32{r.net.Params, r.adam.M, r.adam.V} {
		if err := r.ranks.Broadcast(ctx, 0, v); err != nil {
			return err
		}
	}
	r.step, r.saved = int(step), int(step)
	if r.leads() {
		r.report.Note("resumed from the checkpoint of step %d, saved by epoch %d", step, st.Epoch)
	}
	return nil
}

func (r *run) shape() string { return fmt.Sprintf("%+v", r.Shape) }

// save writes a checkpoint of the steps that are done, when there is a folder and something
// new to keep.
func (r *run) save() error {
	if r.store == nil || r.step == r.saved {
		return nil
	}
	loss := 0.0
	if len(r.losses) > 0 {
		loss = r.losses[len(r.losses)-1]
	}
	st := checkpoint.State{Step: r.step, Shape: r.shape(), Loss: loss, Params: r.net.Params, M: r.adam.M, V: r.adam.V}
	if err := r.store.Save(st); err != nil {
		return err
	}
	r.saved = r.step
	return nil
}

// rate is the learning rate of a step, which counts from 0.
func (r *run) rate(step int) float64 {
	if step < warmupSteps {
		return r.Rate * float64(step+1) / warmupSteps
	}
	done := float64(step-warmupSteps) / float64(max(r.Steps-warmupSteps, 1))
	return r.Rate * (rateFloor + (1-rateFloor)*(1+math.Cos(math.Pi*min(done, 1)))/2)
}
