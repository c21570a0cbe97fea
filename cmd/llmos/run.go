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

const runLong = `Submit a job: from a job file, or from a command behind --.

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
  resources: {cpu: 4, memory: 32Gi, gpus: 1}`

func (a *app) runCommand() *cobra.Command {
	r := &runFlags{}
	cmd := &cobra.Command{
		Use: "run (FILE | -- COMMAND [ARGUMENT...])", Short: "Submit a job", Long: runLong,
		Example: "  llmos run train.yaml\n" +
			"  llmos run --wait -- python train.py\n" +
			"  llmos run -n 4 --gpus 1 --cpu 2 --memory 16Gi --follow -- python train.py --lr 3e-4",
		Args: func(cmd *cobra.Command, args []string) error { return a.runArguments(cmd, args) },
		RunE: func(cmd *cobra.Command, args []string) error { return a.runJob(cmd, r, args) },
	}
	r.c.flags(cmd)
	r.f.flag(cmd)
	flags := cmd.Flags()
	flags.BoolVarP(&r.wait, "wait", "w", false, "stay until the job has ended and exit with its code")
	flags.BoolVarP(&r.follow, "follow", "f", false, "--wait, and print what the tasks print")
	flags.StringVar(&r.requestID, "request-id", "", "`KEY` under which a repeated submit is the same job (default: a new one)")
	r.spec.flags(flags)
	return cmd
}

// runArguments tells a job file from a command behind --.
func (a *app) runArguments(cmd *cobra.Command, args []string) error {
	dash := cmd.ArgsLenAtDash()
	switch {
	case len(args) == 0:
		return invalid("llmos run takes a job file, or a command behind --").Hint("llmos run train.yaml, or llmos run -- python train.py")
	case dash == 0, dash < 0 && len(args) == 1:
		return nil
	case dash > 0:
		return invalid("llmos run takes a job file or a command behind --, not both").Hint("llmos run -- %s", strings.Join(args[dash:], " "))
	}
	return invalid("llmos run takes one job file, and %d arguments are given", len(args)).
		Hint("a command goes behind --: llmos run -- %s", strings.Join(args, " "))
}

func (a *app) runJob(cmd *cobra.Command, r *runFlags, args []string) error {
	var spec *pb.JobSpec
	var err error
	if cmd.ArgsLenAtDash() == 0 {
		spec, err = a.commandSpec(cmd.Flags(), &r.spec, args)
	} else {
		spec, err = a.fileSpec(cmd.Flags(), &r.spec, args[0])
	}
	if err != nil {
		return err
	}
	s, err := a.open(cmd.Context(), &r.c)
	if err != nil {
		return err
	}
	defer s.close()
	resp, err := a.submit(cmd.Context(), s, r, spec)
	if err != nil {
		return err
	}
	if r.wait || r.follow {
		tasks := 0
		for _, role := range spec.Roles {
			tasks += int(role.Count)
		}
		return a.await(cmd.Context(), s, resp.JobId, tasks, r.follow, r.f.json)
	}
	if r.f.json {
		return a.printJSON(resp)
	}
	a.printf("%s\n", resp.JobId)
	if resp.RepeatedRequest {
		a.note("  this request was submitted before; the job is the same\n")
	}
	t := a.errTint()
	a.note("  llmos logs -f %s  %s\n", resp.JobId, t.paint(faint, "# what it prints"))
	a.note("  llmos why %s      %s\n", resp.JobId, t.paint(faint, "# why it waits, runs or ended"))
	return nil
}

func (a *app) submit(ctx context.Context, s *session, r *runFlags, spec *pb.JobSpec) (*pb.SubmitJobResponse, error) {
	given := r.requestID != ""
	if !given {
		r.requestID = newRequestID()
	}
	ctx, cancel := context.WithTimeout(ctx, r.c.timeout)
	defer cancel()
	resp, err := s.SubmitJob(ctx, &pb.SubmitJobRequest{RequestId: r.requestID, Spec: spec})
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

// fileSpec reads a job file; "-" is standard input.
func (a *app) fileSpec(set changedFlags, flags *specFlags, name string) (*pb.JobSpec, error) {
	if given := flags.commandOnly(set); given != "" {
		return nil, invalid("--%s is for a command behind --; a job file says it itself", given).
			Hint("write it in %s; --name, --priority and --retries can be given here too", name)
	}
	src, path, err := a.readJobFile(name)
	if err != nil {
		return nil, err
	}
	spec, err := jobspec.Parse(path, src)
	var faults jobspec.Faults
	if errors.As(err, &faults) {
		return nil, &specFaults{file: name, faults: faults}
	}
	if err != nil {
		return nil, err
	}
	flags.override(set, spec)
	return spec, asSpecFaults(jobspec.Validate(spec))
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
