package train

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"time"

	"llmos/deploy/jobs/charlm/corpus"
)

const (
	reportSteps   = 10                     // a report at least every so many steps
	reportEvery   = 300 * time.Millisecond // and at least so often, when steps are slow
	lossWindow    = 20                     // steps over which the result's loss is the mean
	heldOutCount  = 2000                   // samples of the evaluation
	temperature   = 0.6                    // of the sample: lower is more likely text
	sampleBegin   = "# The "
	resultName    = "result.json"
	gradientCheck = 16 // samples between looks at ctx
)

// loop takes the steps that are left.
func (r *run) loop(ctx context.Context) error {
	last, lastStep := time.Now(), r.step
	for r.step < r.Steps {
		if err := r.gradient(ctx); err != nil {
			return err
		}
		if err := r.ranks.AllReduce(ctx, r.grad); err != nil {
			return err
		}
		n := len(r.net.Params)
		scale := float32(1 / float64(r.Batch))
		for i := range r.grad {
			r.grad[i] *= scale
		}
		loss := float64(r.grad[n])
		if math.IsNaN(loss) || math.IsInf(loss, 0) {
			return fmt.Errorf("the loss of step %d is %v: the learning rate %v is too high", r.step+1, loss, r.Rate)
		}
		r.adam.Step(r.net.Params, r.grad[:n], r.step+1, r.rate(r.step))
		r.step++
		r.losses = append(r.losses, loss)
		if !r.leads() {
			continue
		}
		if now := time.Now(); r.step%reportSteps == 0 || r.step == 1 || r.step == r.Steps || now.Sub(last) >= reportEvery {
			r.report.Step(r.step, r.Steps, loss, float64((r.step-lastStep)*r.Batch)/now.Sub(last).Seconds())
			last, lastStep = now, r.step
		}
		if r.step%r.SaveEvery == 0 {
			if err := r.save(); err != nil {
				return err
			}
		}
	}
	return nil
}

// gradient computes this rank's part of the gradient and of the loss, as sums over samples.
//
// Rounding depends on the order of additions. So that it depends on the number of ranks as
// little as possible, the batch is divided into lanes; each lane's gradient is summed from
// zero, and the lanes are added in order. With one rank, or with as many ranks as lanes, the
// additions are the same ones in the same order, and the results are equal bit for bit.
func (r *run) gradient(ctx context.Context) error {
	from, to := part(r.Batch, r.ranks.Size(), r.ranks.Rank())
	clear(r.grad)
	first := true
	for lane := range r.Lanes {
		begin, end := part(r.Batch, r.Lanes, lane)
		begin, end = max(begin, from), min(end, to)
		if begin >= end {
			continue
		}
		sum := r.lane
		if first {
			sum = r.grad
		}
		if err := r.sumSamples(ctx, sum, begin, end); err != nil {
			return err
		}
		if !first {
			for i, v := range sum {
				r.grad[i] += v
			}
		}
		first = false
	}
	return nil
}

// sumSamples leaves in sum the gradient and loss of samples begin to end of this step.
func (r *run) sumSamples(ctx context.Context, sum []float32, begin, end int) error {
	clear(sum)
	n := len(r.net.Params)
	var loss float64
	for i := begin; i < end; i++ {
		if i%gradientCheck == 0 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		window, next := r.text.Sample(r.Seed, r.step, i, r.Shape.Context)
		loss += r.net.Gradient(sum[:n], window, next)
	}
	sum[n] = float32(loss)
	return nil
}

// part is the half-open range of n things that the i-th of count gets.
func part(n, count, i int) (from, to int) { return n * i / count, n * (i + 1) / count }

// finish evaluates, samples and writes the result.
func (r *run) finish() (Result, error) {
	res := Result{Steps: r.Steps, ResumedFrom: r.from, Epoch: r.Epoch, World: r.ranks.Size()}
	if took := time.Since(r.begun).Seconds(); took > 0 {
		res.TokensPerS = math.Round(float64((r.step-r.from)*r.Batch) / took)
	}
	window := r.losses[max(0, len(r.losses)-lossWindow):]
	for _, l := range window {
		res.Loss += l / float64(len(window))
	}
	if len(window) == 0 { // the checkpoint was of the last step
		res.Loss = r.lastLoss
	}
	for i := range heldOutCount {
		context, next := r.text.HeldOut(r.Seed, i, r.Shape.Context)
		res.HeldOutLoss += r.net.Loss(context, next) / heldOutCount
	}
	res.Sample = r.sample()
	if r.store != nil {
		text, err := json.MarshalIndent(res, "", "  ")
		if err != nil {
			return Result{}, fmt.Errorf("write the result: %w", err)
		}
		if err := r.store.WriteResult(resultName, append(text, '\n')); err != nil {
			return Result{}, fmt.Errorf("write the result: %w", err)
		}
	}
	r.report.Done(res)
	return res, nil
}

// sample makes text, one character after the other.
func (r *run) sample() string {
	if r.Sample == 0 {
		return ""
	}
	random := rand.New(rand.NewPCG(r.Seed, 1))
	width := r.Shape.Context
	text := append(make([]byte, width), corpus.Encode(sampleBegin)...)
	p := make([]float32, r.Shape.Vocab)
	for range r.Sample {
		r.net.Predict(text[len(text)-width:], p)
		text = append(text, choose(p, random.Float64()))
	}
	return corpus.Decode(text[width:])
}

// choose draws a symbol by its probability, sharpened by the temperature; u is uniform in
// [0, 1).
func choose(p []float32, u float64) byte {
	var total float64
	for _, x := range p {
		total += math.Pow(float64(x), 1/temperature)
	}
	u *= total
	for v, x := range p {
		if u -= math.Pow(float64(x), 1/temperature); u < 0 {
			return byte(v)
		}
	}
	return byte(len(p) - 1)
}
