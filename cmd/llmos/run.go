package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

const requestIDBytes = 16 // random; shown as hex

// runFlags are the flags of `run`.
type runFlags struct {
	c         connection
	f         format
	wait      bool
	follow    bool
	requestID string
	spec      specFlags
}

const runLong = `Submit a job: from a job file, or from a command behind --. Several files are submitted
so that each comes after those that it names in "after".

With --wait the verb stays until the job has ended and exits with its code; --follow also
prints what its tasks print. Ctrl-C then leaves the job running and says how to stop it.

A job file is YAML. This is all of it for one role; a job of several roles lists them
under "roles:", each with a name.

  name: train                # left out: made from the file's name
  command: [python, train.py]
  count: 4                   # tasks that start together or not at all
  workdir: .                 # seen from the job file
  env: {EPOCHS: 10}
  retries: 2
  resources: {cpu: 4, memory: 32Gi, gpus: 1}

And, where they are needed: queue, priority, after, array, cron, time_limit, expected,
deadline, preemptible, checkpoint, resume, where, within, spread, near, apart, reservation;
count: 2..8 makes the role elastic.`

func (a *app) runCommand() *cobra.Command {
	r := &runFlags{}
	cmd := &cobra.Command{
		Use: "run (FILE... | -- COMMAND [ARGUMENT...])", Short: "Submit a job", Long: runLong,
		Example: "  llmos run train.yaml\n" +
			"  llmos run --resume train-1@1200 train.yaml\n" +
			"  llmos run prepare.yaml train.yaml\n" +
			"  llmos run --wait -- python train.py\n" +
			"  llmos run -n 4 --gpus 1 --cpu 2 --memory 16Gi --follow -- python train.py --lr 3e-4\n" +
			"  llmos run --gpus 2..8 --queue vision --time-limit 6h -- python train.py\n" +
			"  llmos run --array 100:10 --after prepare -- python sweep.py",
		Args: func(cmd *cobra.Command, args []string) error { return a.runArguments(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error { return a.runJobs(cmd, r, args) },
	}
	r.c.flags(cmd)
	r.f.flag(cmd)
	flags := cmd.Flags()
	flags.SortFlags = false
	flags.BoolVarP(&r.wait, "wait", "w", false, "stay until the job has ended and exit with its code")
	flags.BoolVarP(&r.follow, "follow", "f", false, "--wait, and print what the tasks print")
	flags.StringVar(&r.requestID, "request-id", "", "`KEY` under which a repeated submit is the same job (default: a new one)")
	r.spec.flags(flags)
	return cmd
}

// runArguments tells job files from a command behind --.
func (a *app) runArguments(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	verb := cmd.CommandPath()
	switch {
	case len(args) == 0:
		return invalid("%s takes a job file, or a command behind --", verb).Hint("%s train.yaml, or %s -- python train.py", verb, verb)
	case dash == 0, dash < 0 && len(args) == 1:
		return nil
	case dash > 0:
		return invalid("%s takes a job file or a command behind --, not both", verb).Hint("%s -- %s", verb, strings.Join(args[dash:], " "))
	}
	for _, name := range args {
		if ext := filepath.Ext(name); ext != ".yaml" && ext != ".yml" {
			return invalid("%s takes job files, and %s is none", verb, name).
				Hint("a command goes behind --: %s -- %s", verb, strings.Join(args, " "))
		}
	}
	return nil
}

func (a *app) runJobs(cmd *cobra.Command, r *runFlags, args []string) error {
	batch, err := a.batchOf(cmd, &r.spec, args)
	if err != nil {
		return err
	}
	if err := r.fits(batch); err != nil {
		return err
	}
	s, err := a.open(cmd.Context(), &r.c)
	if err != nil {
		return err
	}
	defer s.close()
	return a.submitAll(cmd.Context(), s, r, batch)
}

// fits refuses flags that say nothing about these jobs.
func (r *runFlags) fits(b *batch) error {
	if !r.wait && !r.follow {
		return nil
	}
	for _, spec := range b.specs {
		switch {
		case spec.Cron != nil:
			return invalid("a cron job does not end by itself, so there is nothing to wait for").Hint("leave --wait and --follow out; llmos ps shows when its next copy starts")
		case r.follow && spec.Array != nil:
			return invalid("the output of an array is in its copies").Hint("use --wait, and llmos logs JOB_0 for a copy's output")
		}
	}
	if r.follow && len(b.specs) > 1 {
		return invalid("--follow is for one job, and %d are given", len(b.specs)).Hint("use --wait, and llmos logs -f JOB for each")
	}
	return nil
}

func (a *app) submit(ctx context.Context, s *session, r *runFlags, requestID string, spec *pb.JobSpec) (*pb.SubmitJobResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, r.c.timeout)
	defer cancel()
	resp, err := s.SubmitJob(ctx, &pb.SubmitJobRequest{RequestId: requestID, Spec: spec})
	if err == nil {
		return resp, nil
	}
	f := fault.From(err)
	if k := f.Fault.Kind; k == pb.ErrorKind_ERROR_KIND_UNKNOWN || k == pb.ErrorKind_ERROR_KIND_TIMEOUT {
		f.Hint("the job may have been submitted; the same command with --request-id %s submits it once", r.requestID)
	}
	return nil, reached(f, s.Servers())
}

func newRequestID() string {
	b := make([]byte, requestIDBytes)
	_, _ = rand.Read(b) // never fails: crypto/rand ends the process instead
	return hex.EncodeToString(b)
}

func (a *app) readJobFile(name string) (src []byte, path string, err error) {
	if name == "-" {
		src, err = io.ReadAll(io.LimitReader(a.in, jobspec.FileBytesMax+1))
		wd, wdErr := a.getwd()
		return src, filepath.Join(wd, "stdin"), errors.Join(err, wdErr)
	}
	if path, err = a.absolute(name); err != nil {
		return nil, "", err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		e := fault.New(pb.ErrorKind_ERROR_KIND_INVALID, "there is no job file %s", name)
		if ext := filepath.Ext(name); ext == ".yaml" || ext == ".yml" {
			return nil, "", e.Hint("the path is seen from the present folder")
		}
		return nil, "", e.Hint("to run it as a command: llmos run -- %s", name)
	}
	if err != nil {
		return nil, "", invalid("the job file cannot be read: %w", err)
	}
	defer f.Close()
	src, err = io.ReadAll(io.LimitReader(f, jobspec.FileBytesMax+1))
	if err != nil {
		return nil, "", invalid("the job file %s cannot be read: %w", name, err)
	}
	return src, path, nil
}
