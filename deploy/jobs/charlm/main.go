// Program charlm trains a neural language model of characters on text, data-parallel over
// the ranks of an llmos job, and ends with a sample of what it learned. It is an example of
// a training job that is real from end to end: it meets its peers by the environment that
// llmos gives, reports its progress in lines that llmos reads, saves checkpoints, and goes
// on from them when its gang is started again. Started by hand it is a world of one.
//
// Exit codes: 0 all steps are done; 1 it failed; 2 wrong usage; 3 another rank was lost;
// 130 and 143 it was interrupted or asked to end, after saving what was done.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"llmos/deploy/jobs/charlm/corpus"
	"llmos/deploy/jobs/charlm/train"
	"llmos/transport/collective"
)

const (
	exitFailed = 1
	exitUsage  = 2
	exitPeer   = 3
	exitSignal = 128 // plus the signal's number
)

// ownSignalWithin is how long a rank whose peer was asked to end waits to be asked itself.
const ownSignalWithin = 2 * time.Second

// stopped is the cause of the end of the context when a signal came.
type stopped struct{ signal syscall.Signal }

func (s stopped) Error() string { return "asked to end by signal " + s.signal.String() }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, errs io.Writer) int {
	f, code := parse(args, errs)
	if f == nil {
		return code
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)
	defer signal.Stop(signals)
	go func() {
		if s, ok := (<-signals).(syscall.Signal); ok {
			cancel(stopped{s})
		}
	}()
	err := work(ctx, f, out)
	if err == nil {
		return 0
	}
	fmt.Fprintf(errs, "charlm: %v\n", err)
	var stop stopped
	var lost *collective.RankError
	if errors.As(err, &lost) && lost.Problem == collective.GaveUp {
		// The whole gang is being stopped, most likely, and another rank heard of it first.
		select {
		case <-ctx.Done():
		case <-time.After(ownSignalWithin):
		}
	}
	switch {
	case errors.As(context.Cause(ctx), &stop):
		return exitSignal + int(stop.signal)
	case errors.As(err, &lost):
		return exitPeer
	}
	return exitFailed
}

// flags are the program's arguments.
type flags struct {
	train.Options
	corpus  string
	lossLog string
}

// parse reads the arguments; flags are nil when the program is to end with the code.
func parse(args []string, errs io.Writer) (*flags, int) {
	set := flag.NewFlagSet("charlm", flag.ContinueOnError)
	set.SetOutput(errs)
	f := &flags{}
	f.Shape.Vocab = corpus.Vocab
	set.StringVar(&f.corpus, "corpus", ".", "files, folders and patterns to learn from, separated by commas; of folders .md files and the comments of .go and .proto files")
	set.IntVar(&f.Steps, "steps", 400, "steps to take")
	set.IntVar(&f.Batch, "batch", 768, "samples in a step, of all ranks together")
	set.IntVar(&f.Lanes, "lanes", 4, "parts of the batch that are summed separately; with as many ranks the loss is bit for bit that of one rank")
	set.IntVar(&f.Shape.Context, "context", 16, "characters that the model looks at")
	set.IntVar(&f.Shape.Embed, "embed", 16, "numbers that stand for one character")
	set.IntVar(&f.Shape.Hidden, "hidden", 160, "units of the hidden layer")
	set.Float64Var(&f.Rate, "rate", 0.006, "highest learning rate")
	set.Uint64Var(&f.Seed, "seed", 1, "of the first parameters and of the order of samples")
	set.IntVar(&f.Sample, "sample", 300, "characters of text to make at the end")
	set.StringVar(&f.Dir, "checkpoint", os.Getenv("LLMOS_JOB_DIR"), "folder of the checkpoints and of result.json; default $LLMOS_JOB_DIR")
	set.IntVar(&f.SaveEvery, "checkpoint-every", 50, "steps between checkpoints")
	set.StringVar(&f.lossLog, "loss-log", "", "file to which rank 0 appends step,loss lines")
	if err := set.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil, 0
		}
		return nil, exitUsage
	}
	err := f.Check()
	if set.NArg() > 0 {
		err = fmt.Errorf("unexpected argument %q", set.Arg(0))
	}
	if err != nil {
		fmt.Fprintf(errs, "charlm: %v\n", err)
		return nil, exitUsage
	}
	return f, 0
}

// work joins the group and trains.
func work(ctx context.Context, f *flags, out io.Writer) (err error) {
	conf, err := collective.FromEnv()
	if err != nil {
		return err
	}
	f.Epoch = conf.Epoch
	text, err := corpus.Read(strings.Split(f.corpus, ","))
	if err != nil {
		return err
	}
	r := &printer{out: bufio.NewWriter(out), quiet: conf.Rank != 0, world: conf.World}
	r.Note("corpus %s: %d characters in %d files; model of %d parameters; %d steps of %d samples on %d ranks; an even guess has loss %.2f",
		text.Digest(), len(text.Text), text.Files, f.Shape.Params(), f.Steps, f.Batch, conf.World, math.Log(corpus.Vocab))
	if text.Cut {
		r.Note("some files were left out: the corpus is full")
	}
	if f.lossLog != "" && conf.Rank == 0 {
		if err := r.openLog(f.lossLog); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, r.log.Close()) }()
	}
	group, err := collective.Join(ctx, conf)
	if err != nil {
		return err
	}
	defer group.Close()
	_, err = train.Run(ctx, f.Options, group, text, r)
	return errors.Join(err, r.err)
}

// printer writes what rank 0 has to say, for people and for llmos.
type printer struct {
	out   *bufio.Writer
	log   *os.File
	quiet bool
	world int
	err   error // the first of the loss log
}

func (p *printer) openLog(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("open the loss log: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		return fmt.Errorf("open the loss log: %w", err)
	}
	p.log = f
	return nil
}

func (p *printer) Note(format string, args ...any) {
	if !p.quiet {
		fmt.Fprintf(p.out, format+"\n", args...)
		p.out.Flush()
	}
}

func (p *printer) Step(step, steps int, loss, tokensPerSecond float64) {
	fmt.Fprintf(p.out, "@llmos step=%d steps=%d loss=%.4f tokens_per_s=%.0f\n", step, steps, loss, tokensPerSecond)
	p.Note("step %*d of %d  loss %.4f  %.0f characters/s on %d ranks", len(strconv.Itoa(steps)), step, steps, loss, tokensPerSecond, p.world)
	if p.log != nil {
		// All digits, so that two runs can be compared bit for bit.
		if _, err := fmt.Fprintf(p.log, "%d,%s\n", step, strconv.FormatFloat(loss, 'g', -1, 64)); err != nil && p.err == nil {
			p.err = fmt.Errorf("write the loss log: %w", err)
		}
	}
}

func (p *printer) Done(res train.Result) {
	p.Note("a sample of what was learned:\n%s\n", res.Sample)
	res.Sample = ""
	text, err := json.Marshal(res)
	if err != nil {
		p.err = errors.Join(p.err, err)
		return
	}
	p.Note("result %s", text)
}
