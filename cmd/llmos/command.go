package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/jobspec"
)

// Exit codes. `run --wait` and `run --follow` give the job's own code instead.
const (
	exitOK          = 0
	exitFailed      = 1
	exitInvalid     = 2
	exitNotFound    = 3
	exitDenied      = 4
	exitUnavailable = 5
	exitConflict    = 6
	exitLimit       = 7
	exitInterrupted = 130
)

// exitCodes is the table of error kinds and the codes that scripts see.
var exitCodes = map[pb.ErrorKind]int{
	pb.ErrorKind_ERROR_KIND_UNSPECIFIED: exitOK,
	pb.ErrorKind_ERROR_KIND_INVALID:     exitInvalid,
	pb.ErrorKind_ERROR_KIND_NOT_FOUND:   exitNotFound,
	pb.ErrorKind_ERROR_KIND_CONFLICT:    exitConflict,
	pb.ErrorKind_ERROR_KIND_STALE_EPOCH: exitConflict,
	pb.ErrorKind_ERROR_KIND_NO_CAPACITY: exitLimit,
	pb.ErrorKind_ERROR_KIND_DENIED:      exitDenied,
	pb.ErrorKind_ERROR_KIND_NOT_LEADER:  exitUnavailable,
	pb.ErrorKind_ERROR_KIND_UNAVAILABLE: exitUnavailable,
	pb.ErrorKind_ERROR_KIND_UNKNOWN:     exitUnavailable,
	pb.ErrorKind_ERROR_KIND_TIMEOUT:     exitUnavailable,
	pb.ErrorKind_ERROR_KIND_LIMIT:       exitLimit,
	pb.ErrorKind_ERROR_KIND_INTERNAL:    exitFailed,
}

// exitStatus is an error that says nothing more: everything has been printed.
type exitStatus int

func (e exitStatus) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

// run runs one command line and gives the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.rootCommand()
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	return a.report(ctx, err)
}

// report prints an error as a sentence and a hint, and gives its exit code.
func (a *app) report(ctx context.Context, err error) int {
	var status exitStatus
	var spec *specFaults
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &status):
		return int(status)
	case errors.As(err, &spec):
		a.reportSpec(spec)
		return exitInvalid
	case ctx.Err() != nil && exitCodes[fault.Kind(err)] == exitUnavailable:
		a.note("llmos: %v\n", context.Cause(ctx))
		return exitInterrupted
	}
	f := fault.From(err).Fault
	sentence := f.Message
	if f.Field != "" {
		sentence = f.Field + ": " + sentence
	}
	t := a.errTint()
	a.note("%s %s\n", t.paint(red, "llmos:"), sentence)
	if f.Hint != "" {
		a.note("%s %s\n", t.paint(faint, "hint:"), f.Hint)
	}
	if code, known := exitCodes[f.Kind]; known && code != exitOK {
		return code
	}
	return exitFailed
}

// specFaults are the faults of a job: of its file, or of the flags that describe it.
type specFaults struct {
	file    string // empty: flags
	faults  jobspec.Faults
	nothing string // what did not happen; empty: the job was not submitted
}

func (f *specFaults) Error() string { return f.faults.Error() }

// reportSpec prints every fault on a line of its own.
func (a *app) reportSpec(f *specFaults) {
	t := a.errTint()
	for _, e := range f.faults {
		at, sentence := f.file, e.Fault.Message
		if e.Fault.Line > 0 {
			at = fmt.Sprintf("%s:%d", f.file, e.Fault.Line)
		}
		field := e.Fault.Field
		if f.file == "" {
			at, field = flagOf(field), ""
		}
		if field != "" {
			sentence = field + ": " + sentence
		}
		if e.Fault.Hint != "" {
			sentence += t.paint(faint, " ("+f.hint(e)+")")
		}
		a.note("%s\n", strings.TrimPrefix(t.paint(bold, at)+": "+sentence, ": "))
	}
	what := "the command line"
	if f.file != "" {
		what = "its file"
	}
	a.note("%s %s: %s has %s\n", t.paint(red, "llmos:"), firstOf(f.nothing, "the job was not submitted"), what, count(len(f.faults), "fault"))
}

// hint speaks of flags where there is no file.
func (f *specFaults) hint(e *fault.Error) string {
	if f.file != "" {
		return e.Fault.Hint
	}
	return flagWords.Replace(e.Fault.Hint)
}

// count writes a number with its noun: 1 fault, 2 faults.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func invalid(format string, args ...any) *fault.Error {
	return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...)
}

const rootLong = `llmos turns a room of hosts into one computer that trains models.

A first job, on this machine alone:
  llmos dev                        # in one shell: a cluster of one machine
  llmos run --wait -- echo hello   # in another

Exit codes: 0 done; 1 failed; 2 bad usage or input; 3 not found; 4 denied;
5 unavailable or timed out; 6 conflict; 7 a limit was met; 130 interrupted.
With --wait or --follow, llmos run gives the job's own exit code.`

func (a *app) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "llmos", Short: "An operating system for large-model work", Long: rootLong,
		Example:       "  llmos run train.yaml\n  llmos ps\n  llmos why train-1",
		SilenceErrors: true, SilenceUsage: true, SuggestionsMinimumDistance: 2,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return nil
			}
			e := invalid("there is no verb %q", args[0])
			if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
				return e.Hint("did you mean llmos %s?", near[0])
			}
			return e.Hint("llmos --help lists the verbs")
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errOut)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return invalid("%s", strings.TrimPrefix(err.Error(), "pflag: ")).Hint("%s --help lists the flags", cmd.CommandPath())
	})
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error { return a.fromEnvironment(cmd) }
	root.AddGroup(&cobra.Group{ID: "jobs", Title: "Jobs:"}, &cobra.Group{ID: "cluster", Title: "The cluster:"},
		&cobra.Group{ID: "processes", Title: "Its processes:"})
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add("jobs", a.runCommand(), a.planCommand(), a.psCommand(), a.topCommand(), a.logsCommand(), a.waitCommand(), a.whyCommand(), a.checkpointsCommand(),
		a.forecastCommand(), a.stopCommand(),
		a.execCommand(), a.shellCommand(), a.forwardCommand())
	add("cluster", a.nodesCommand(), a.devicesCommand(), a.drainCommand(), a.repairCommand(), a.migCommand(), a.xidCommand(), a.queueCommand(), a.reserveCommand(), a.configCommand(), a.statusCommand(),
		a.simulateCommand(), a.historyCommand(), a.tokenCommand(), a.loginCommand())
	add("processes", a.devCommand(), a.serverCommand(), a.agentCommand())
	root.AddCommand(a.versionCommand())
	return root
}

// envFlag makes an environment variable the default of a flag and says so in its help.
func envFlag(flags *pflag.FlagSet, name, variable string) {
	f := flags.Lookup(name)
	f.Usage += " [$" + variable + "]"
	if f.Annotations == nil {
		f.Annotations = map[string][]string{}
	}
	f.Annotations["env"] = []string{variable}
}

// fromEnvironment sets the flags that were not given from their variables.
func (a *app) fromEnvironment(cmd *cobra.Command) error {
	var failed error
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		variable := f.Annotations["env"]
		if f.Changed || len(variable) == 0 || failed != nil {
			return
		}
		value, set := a.getenv(variable[0])
		if !set || value == "" {
			return
		}
		if err := cmd.Flags().Set(f.Name, value); err != nil {
			failed = invalid("the variable %s is %q: %w", variable[0], value, err).
				Hint("it is the default of --%s of %s", f.Name, cmd.CommandPath())
		}
	})
	return failed
}

// arguments checks the number of a verb's arguments; what names them in the complaint.
func arguments(least, most int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) >= least && (most < 0 || len(args) <= most) {
			return nil
		}
		e := invalid("%s takes %s", cmd.CommandPath(), what)
		return e.Hint("%s", strings.TrimSpace(strings.SplitN(cmd.Example, "\n", 2)[0]))
	}
}

// absolute makes a path absolute against the working directory; "" stays "".
func (a *app) absolute(path string) (string, error) {
	if path == "" || strings.HasPrefix(path, "/") {
		return path, nil
	}
	wd, err := a.getwd()
	if err != nil {
		return "", invalid("the working directory cannot be read: %w", err)
	}
	return wd + string(os.PathSeparator) + path, nil
}
