package exec

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"

	"github.com/creack/pty"
	"golang.org/x/sys/unix"
)

// Beside is a command to be run beside a task.
type Beside struct {
	Command    []string // argv
	Env        []string // NAME=value, beside the task's own
	Terminal   bool     // on a terminal of its own
	Rows, Cols uint16   // of the terminal; 0: 24 and 80
}

// ErrNoTask says that no task runs in the directory, so that nothing can run beside it.
var ErrNoTask = errors.New("the task does not run")

// Session is a command beside a task, from the agent's side. Input and output are the caller's
// to read and write, from one goroutine each; Close ends the command.
type Session struct {
	Stdin  io.WriteCloser // see EndInput
	Stdout io.Reader
	Stderr io.Reader // nil with a terminal
	conn   *net.UnixConn
	master *os.File // of the terminal; nil: there is none
	files  []*os.File
}

// Enter starts a command beside the task of dir. An error that is a StartError says why the
// command could not be started, with its exit code.
func Enter(dir string, b Beside) (*Session, error) {
	conn, err := dialIn(dir, "unixpacket", besideSocket)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, ErrNoTask
	}
	if err != nil {
		return nil, fmt.Errorf("reach the task's shim: %w", err)
	}
	s := &Session{conn: conn}
	theirs, err := s.open(dir, b)
	if err == nil {
		err = s.start(b, theirs)
	}
	for _, f := range theirs {
		f.Close()
	}
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// open makes both ends of the command's input and output.
func (s *Session) open(dir string, b Beside) (theirs []*os.File, err error) {
	if !b.Terminal {
		return s.openPipes()
	}
	master, terminal, err := pty.Open()
	if err != nil {
		return nil, fmt.Errorf("open a terminal: %w", err)
	}
	s.master, s.files = master, []*os.File{master}
	s.Stdin, s.Stdout = master, master
	theirs = []*os.File{terminal}
	if b.Rows == 0 || b.Cols == 0 {
		b.Rows, b.Cols = 24, 80
	}
	if err := s.Resize(b.Rows, b.Cols); err != nil {
		return theirs, err
	}
	return theirs, giveTerminal(dir, terminal)
}

// giveTerminal makes the task's user the owner of its terminal, as login does.
func giveTerminal(dir string, terminal *os.File) error {
	var spec Spec
	if _, err := readJSON(dir, specFile, &spec); err != nil {
		return err
	}
	credential, fault := findUser(spec)
	if fault != nil {
		return fault
	}
	if credential == nil {
		return nil
	}
	if err := terminal.Chown(int(credential.Uid), int(credential.Gid)); err != nil {
		return fmt.Errorf("give the terminal to user %s: %w", spec.User, err)
	}
	return nil
}

func (s *Session) openPipes() (theirs []*os.File, err error) {
	var ends [6]*os.File
	for i := 0; i < len(ends); i += 2 {
		if ends[i], ends[i+1], err = os.Pipe(); err != nil {
			return theirs, fmt.Errorf("open a pipe: %w", err)
		}
		if i == 0 { // the command reads its input, and writes the other two
			theirs, s.files = append(theirs, ends[0]), append(s.files, ends[1])
			continue
		}
		theirs, s.files = append(theirs, ends[i+1]), append(s.files, ends[i])
	}
	s.Stdin, s.Stdout, s.Stderr = s.files[0], s.files[1], s.files[2]
	return theirs, nil
}

// start hands the command to the shim and waits for its word that it runs.
func (s *Session) start(b Beside, theirs []*os.File) error {
	line, err := json.Marshal(besideRequest{Command: b.Command, Env: b.Env, Terminal: b.Terminal})
	if err != nil {
		return err
	}
	if len(line) > besideBytesMax {
		return &startError{code: ExitNotExecutable, reason: "the command is longer than 1 MiB"}
	}
	fds := []int{int(theirs[0].Fd()), int(theirs[0].Fd()), int(theirs[0].Fd())}
	if len(theirs) == 3 {
		fds = []int{int(theirs[0].Fd()), int(theirs[1].Fd()), int(theirs[2].Fd())}
	}
	if _, _, err := s.conn.WriteMsgUnix(line, unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("hand the command to the task's shim: %w", err)
	}
	a, err := s.answer()
	if err != nil {
		return err
	}
	if a.Error != "" {
		return &startError{code: a.Code, reason: a.Error}
	}
	return nil
}

func (s *Session) answer() (a besideAnswer, err error) {
	buf := make([]byte, statusBytesMax)
	n, err := s.conn.Read(buf)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if err != nil {
		return a, fmt.Errorf("%w: its shim has gone", ErrNoTask)
	}
	return a, json.Unmarshal(buf[:n], &a)
}

// endOfTransmission is what a terminal takes for the end of its input at the start of a line.
const endOfTransmission = 4

// EndInput tells the command that there is no more input.
func (s *Session) EndInput() error {
	if s.master == nil {
		return s.Stdin.Close()
	}
	_, err := s.master.Write([]byte{endOfTransmission})
	return err
}

// Resize tells the command that its terminal has another size; without a terminal it does
// nothing.
func (s *Session) Resize(rows, cols uint16) error {
	if s.master == nil {
		return nil
	}
	return pty.Setsize(s.master, &pty.Winsize{Rows: rows, Cols: cols})
}

// Wait gives the exit code once the command has ended, 128+n for a signal. What it wrote may
// still have to be read.
func (s *Session) Wait() (code int, err error) {
	a, err := s.answer()
	return a.Code, err
}

// Close ends the command, if it still runs, as a terminal does that hangs up.
func (s *Session) Close() {
	s.conn.Close()
	for _, f := range s.files {
		f.Close()
	}
}

// StartCode gives the exit code of an error that says why a command could not be started.
func StartCode(err error) (code int, ok bool) {
	var fault *startError
	if errors.As(err, &fault) {
		return fault.code, true
	}
	return 0, false
}
