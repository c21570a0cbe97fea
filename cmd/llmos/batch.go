package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// batch is what one command line submits: jobs in the order in which they go.
type batch struct {
	specs []*pb.JobSpec
	files []*jobspec.File // where they are from; nil: flags
	needs [][]int         // of each: the places in the batch that its `after` names, -1 for others
}

// batchOf reads the job files, or the command behind --. Everything that can be judged here
// is, before anything is submitted.
func (a *app) batchOf(cmd *cobra.Command, flags *specFlags, args []string) (*batch, error) {
	if cmd.ArgsLenAtDash() == 0 {
		spec, err := a.commandSpec(cmd.Flags(), flags, args)
		if err != nil {
			return nil, err
		}
		return &batch{specs: []*pb.JobSpec{spec}, needs: [][]int{make([]int, len(spec.After))}}, nil
	}
	if given := flags.commandOnly(cmd.Flags()); given != "" {
		return nil, invalid("--%s is for a command behind --; a job file says it itself", given).
			Hint("write it in %s; flags such as --name, --queue, --priority and --retries can be given here too", args[0])
	}
	if len(args) > 1 && cmd.Flags().Changed("name") {
		return nil, invalid("--name is for one job, and %d files are given", len(args)).Hint("write the names in the files")
	}
	var files []*jobspec.File
	for _, name := range args {
		f, err := a.jobFile(cmd.Flags(), flags, name)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	sorted, needs, err := jobspec.Order(files)
	var set *jobspec.SetFault
	if errors.As(err, &set) {
		return nil, &specFaults{file: set.File, faults: jobspec.Faults{set.Fault}}
	}
	if err != nil {
		return nil, err
	}
	b := &batch{needs: needs, files: sorted}
	for _, f := range sorted {
		b.specs = append(b.specs, f.Spec)
	}
	return b, nil
}

// jobFile reads one job file; "-" is standard input. Flags count more than what it says.
func (a *app) jobFile(set changedFlags, flags *specFlags, name string) (*jobspec.File, error) {
	src, path, err := a.readJobFile(name)
	if err != nil {
		return nil, err
	}
	f, err := jobspec.ParseFile(name, path, src)
	var faults jobspec.Faults
	if errors.As(err, &faults) {
		return nil, &specFaults{file: name, faults: faults}
	}
	if err != nil {
		return nil, err
	}
	faults = flags.override(a, set, f.Spec)
	var more jobspec.Faults
	if errors.As(jobspec.Validate(f.Spec), &more) {
		faults = merge(faults, more)
	}
	if len(faults) > 0 {
		return nil, &specFaults{faults: faults}
	}
	return f, nil
}

// submitAll submits the jobs in their order; each that waits for another of them names it
// by the ID that it got, whatever else is called so.
func (a *app) submitAll(ctx context.Context, s *session, r *runFlags, b *batch) error {
	ids := make([]string, len(b.specs))
	if r.requestID == "" {
		r.requestID = newRequestID()
	}
	for i, spec := range b.specs {
		key := r.requestID
		if i > 0 {
			key = fmt.Sprintf("%s.%d", key, i)
		}
		if len(b.specs) > 1 {
			for k, need := range b.needs[i] {
				if need >= 0 {
					spec.After[k].Job = ids[need]
				}
			}
		}
		resp, err := a.submit(ctx, s, r, key, spec)
		if err != nil {
			return submittedBefore(b.placed(err, i), ids[:i])
		}
		ids[i] = resp.JobId
		if r.wait || r.follow {
			continue
		}
		if err := a.submitted(r, spec, resp, i == len(b.specs)-1); err != nil {
			return err
		}
	}
	if !r.wait && !r.follow {
		return nil
	}
	return a.awaitAll(ctx, s, r, b, ids)
}

// placed puts the field of a refusal by the server where the user wrote it: the file and
// the line, or the flag.
func (b *batch) placed(err error, i int) error {
	f := fault.From(err)
	field := f.Fault.Field
	if field == "" {
		return f
	}
	if b.files == nil {
		return f.At(firstOf(flagOf(field), field), 0)
	}
	at := b.files[i].Name
	if line := b.files[i].Line(field); line > 0 {
		at = fmt.Sprintf("%s:%d", at, line)
	}
	return f.At(at+": "+field, 0)
}

// submitted tells of one job; the last is followed by what can be asked next.
func (a *app) submitted(r *runFlags, spec *pb.JobSpec, resp *pb.SubmitJobResponse, last bool) error {
	if r.f.json {
		return a.printJSON(resp)
	}
	a.printf("%s\n", resp.JobId)
	if resp.RepeatedRequest {
		a.note("  this request was submitted before; the job is the same\n")
	}
	if !last {
		return nil
	}
	t, first := a.errTint(), resp.JobId
	what := "# what it prints"
	if spec.Array != nil || spec.Cron != nil {
		first, what = first+"_0", "# what its first copy prints"
	}
	a.note("  llmos logs -f %s  %s\n", first, t.paint(faint, what))
	a.note("  llmos why %s%s      %s\n", resp.JobId, strings.Repeat(" ", len(first)-len(resp.JobId)), t.paint(faint, "# why it waits, runs or ended"))
	return nil
}

// awaitAll stays until each job has ended; the first exit code that is not 0 is the verb's.
func (a *app) awaitAll(ctx context.Context, s *session, r *runFlags, b *batch, ids []string) error {
	var first error
	for i, spec := range b.specs {
		tasks := 0
		for _, role := range spec.Roles {
			tasks += int(role.Count)
		}
		err := a.await(ctx, s, ids[i], tasks, r.follow, r.f.json)
		if first == nil {
			first = err
		}
		if ctx.Err() != nil {
			return err
		}
	}
	return first
}

// submittedBefore adds to a failure which jobs of the command line have been submitted.
func submittedBefore(err error, ids []string) error {
	if len(ids) == 0 {
		return err
	}
	f := fault.From(err)
	f.Fault.Message += fmt.Sprintf("; submitted before it: %s", joined(ids))
	return f
}
