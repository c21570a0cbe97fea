package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// visitBytes is the most that is sent at a time of what is typed or passed on.
const visitBytes = 32 << 10

// execFlags are the flags of `exec`.
type execFlags struct {
	c     connection
	plain bool // no terminal, even where there is one
}

func (a *app) execCommand() *cobra.Command {
	e := &execFlags{}
	cmd := &cobra.Command{
		Use: "exec JOB[.RANK] [-- COMMAND [ARGUMENT...]]", Short: "Run a command beside a running task",
		Long: "Run a command beside a running task: as its user, in its directory, with its environment, devices and limits.\n" +
			"Without a command it is a shell. It ends with the task, and when this program ends; the exit code is the command's.",
		Example: "  llmos exec train-1\n  llmos exec train-1.3 -- nvidia-smi\n  tar c code | llmos exec train-1 -- tar x",
		Args:    execArguments,
		RunE: func(cmd *cobra.Command, args []string) error {
			job, rank, err := taskName(args[0])
			if err != nil {
				return err
			}
			s, err := a.open(cmd.Context(), &e.c)
			if err != nil {
				return err
			}
			defer s.close()
			id, err := jobID(cmd.Context(), s, &e.c, job)
			if err != nil {
				return err
			}
			return a.enterTask(cmd.Context(), s, &pb.ExecStart{JobId: id, Rank: rank, Command: args[1:]}, !e.plain)
		},
	}
	e.c.flags(cmd)
	cmd.Flags().BoolVarP(&e.plain, "no-terminal", "T", false, "no terminal for the command, even if this is one")
	return cmd
}

func execArguments(cmd *cobra.Command, args []string) error {
	if dash := cmd.ArgsLenAtDash(); len(args) == 0 || (dash >= 0 && dash != 1) || (dash < 0 && len(args) > 1) {
		return invalid("%s takes one job, and a command behind --", cmd.CommandPath()).Hint("llmos exec train-1 -- nvidia-smi")
	}
	return nil
}

// jobID asks for the ID of a job: its name may go to a newer one meanwhile.
func jobID(ctx context.Context, s *session, c *connection, job string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	view, err := s.GetJob(ctx, &pb.GetJobRequest{JobId: job})
	if err != nil {
		return "", reached(err, s.Servers())
	}
	return view.GetJob().GetId(), nil
}

// taskName reads JOB or JOB.RANK.
func taskName(text string) (job string, rank int32, err error) {
	job, number, found := strings.Cut(text, ".")
	if !found {
		return job, 0, nil
	}
	n, err := strconv.ParseInt(number, 10, 32)
	if err != nil || n < 0 || job == "" {
		return "", 0, invalid("%q names no task", text).Hint("write JOB.RANK, such as train-1.3; ranks count from 0")
	}
	return job, int32(n), nil
}

// enterTask runs a command beside a task, joined to this program's streams.
func (a *app) enterTask(ctx context.Context, s *session, start *pb.ExecStart, terminal bool) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	tty, restore, err := a.rawTerminal(terminal)
	if err != nil {
		return err
	}
	defer restore()
	if tty != nil {
		start.Terminal, start.Term, start.Size = true, a.env("TERM"), sizeOf(tty)
	}
	stream, err := s.Exec(ctx)
	if err == nil {
		err = stream.Send(&pb.ExecInput{Input: &pb.ExecInput_Start{Start: start}})
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return reached(err, s.Servers())
	}
	v := &visitor{a: a, stream: stream}
	if tty != nil {
		stop := v.followSize(tty)
		defer stop()
	}
	err = v.show()
	restore()
	if v.reason != "" {
		a.note("llmos: %s\n", v.reason)
	}
	var status exitStatus
	if errors.As(err, &status) || ctx.Err() == nil {
		return err
	}
	return exitStatus(exitInterrupted)
}

// rawTerminal gives this program's terminal when both ends are one, with every key passed on
// as it is typed; nil: there is none, or it is not wanted.
func (a *app) rawTerminal(wanted bool) (tty *os.File, restore func(), err error) {
	in, isFile := a.in.(*os.File)
	if !wanted || !a.outTTY || !isFile || !term.IsTerminal(int(in.Fd())) {
		return nil, func() {}, nil
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return nil, nil, invalid("the terminal cannot be prepared: %w", err).Hint("-T does without it")
	}
	return in, func() { _ = term.Restore(int(in.Fd()), before) }, nil
}

func sizeOf(tty *os.File) *pb.TerminalSize {
	columns, rows, err := term.GetSize(int(tty.Fd()))
	if err != nil {
		return nil
	}
	return &pb.TerminalSize{Rows: uint32(rows), Columns: uint32(columns)}
}

// visitor is this program's side of a command.
type visitor struct {
	a      *app
	stream pb.ClusterService_ExecClient
	send   sync.Mutex
	reason string // why the command ended otherwise than by itself
}

func (v *visitor) say(in *pb.ExecInput) error {
	v.send.Lock()
	defer v.send.Unlock()
	return v.stream.Send(in)
}

// followSize tells the command of each change of the terminal's size.
func (v *visitor) followSize(tty *os.File) (stop func()) {
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, syscall.SIGWINCH)
	go func() {
		for range changed {
			_ = v.say(&pb.ExecInput{Input: &pb.ExecInput_Size{Size: sizeOf(tty)}})
		}
	}()
	return func() { signal.Stop(changed); close(changed) }
}

// feed passes on standard input; it may outlive the command by one read.
func (v *visitor) feed() {
	for buf := make([]byte, visitBytes); ; {
		n, err := v.a.in.Read(buf)
		if n > 0 && v.say(&pb.ExecInput{Input: &pb.ExecInput_Stdin{Stdin: append([]byte(nil), buf[:n]...)}}) != nil {
			return
		}
		if err != nil {
			_ = v.say(&pb.ExecInput{Input: &pb.ExecInput_StdinEnd{StdinEnd: true}})
			return
		}
	}
}

// show writes what the command writes, and gives its exit code as an exitStatus.
func (v *visitor) show() error {
	for {
		out, err := v.stream.Recv()
		if err != nil {
			return fault.Crossed(err, false)
		}
		switch out := out.GetOutput().(type) {
		case *pb.ExecOutput_Started:
			go v.feed()
		case *pb.ExecOutput_Stdout:
			_, err = v.a.out.Write(out.Stdout)
		case *pb.ExecOutput_Stderr:
			_, err = v.a.errOut.Write(out.Stderr)
		case *pb.ExecOutput_End:
			v.reason = out.End.Reason
			if out.End.ExitCode == 0 {
				return nil
			}
			return exitStatus(out.End.ExitCode)
		}
		if err != nil {
			return err
		}
	}
}
