package engine

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
)

// Stream is a connection that the engine has given over to a container's input and output.
type Stream struct {
	conn net.Conn
	r    *bufio.Reader
}

// Attach opens the output of a container, from now on.
func (c *Client) Attach(ctx context.Context, id string) (*Stream, error) {
	query := url.Values{"stream": {"1"}, "stdout": {"1"}, "stderr": {"1"}}
	return c.upgrade(ctx, "/containers/"+id+"/attach", query, nil)
}

// upgrade asks for the connection itself.
func (c *Client) upgrade(ctx context.Context, path string, query url.Values, body any) (*Stream, error) {
	r, err := c.request(ctx, http.MethodPost, path, query, body)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "tcp")
	conn, err := c.dial(ctx)
	if err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	if err := r.Write(conn); err != nil {
		conn.Close()
		return nil, err
	}
	buffered := bufio.NewReader(conn)
	answer, err := http.ReadResponse(buffered, r)
	if err != nil {
		conn.Close()
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols && answer.StatusCode != http.StatusOK {
		defer conn.Close()
		defer answer.Body.Close()
		return nil, refusal(answer)
	}
	return &Stream{conn: conn, r: buffered}, nil
}

// Close ends the stream.
func (s *Stream) Close() error { return s.conn.Close() }

// Write gives input to the process.
func (s *Stream) Write(b []byte) (int, error) { return s.conn.Write(b) }

// Read reads the output of a process with a terminal, which is one.
func (s *Stream) Read(b []byte) (int, error) { return s.r.Read(b) }

// CloseWrite tells the process that there is no more input.
func (s *Stream) CloseWrite() error {
	if half, ok := s.conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return nil
}

const (
	frameHeaderBytes = 8
	frameStderr      = 2
)

// Split writes the output of a process without a terminal to where it belongs, until its
// end; nil: the engine has ended the stream.
func (s *Stream) Split(stdout, stderr io.Writer) error {
	var header [frameHeaderBytes]byte
	for {
		if _, err := io.ReadFull(s.r, header[:]); err != nil {
			if err == io.EOF {
				return nil
			}
			return err
		}
		into := stdout
		switch header[0] {
		case frameStderr:
			into = stderr
		case 0, 1:
		default:
			return fmt.Errorf("the engine's stream holds a frame of kind %d", header[0])
		}
		if _, err := io.CopyN(into, s.r, int64(binary.BigEndian.Uint32(header[4:]))); err != nil {
			return err
		}
	}
}

// Exec is a command beside what a container runs.
type Exec struct {
	AttachStdin, AttachStdout, AttachStderr, Tty bool

	Cmd, Env   []string
	User       string
	WorkingDir string `json:",omitempty"`

	ConsoleSize *[2]uint16 `json:",omitempty"` // rows and columns of the terminal; engines before version 1.42 ignore it
}

// Exec makes a command ready in a running container and gives its ID.
func (c *Client) Exec(ctx context.Context, container string, e Exec) (id string, err error) {
	var made struct {
		ID string `json:"Id"`
	}
	err = c.post(ctx, "/containers/"+container+"/exec", nil, e, &made)
	return made.ID, err
}

// StartExec starts the command and gives its input and output.
func (c *Client) StartExec(ctx context.Context, id string, terminal bool) (*Stream, error) {
	return c.upgrade(ctx, "/exec/"+id+"/start", nil, map[string]bool{"Detach": false, "Tty": terminal})
}

// ResizeExec tells the command that its terminal has another size.
func (c *Client) ResizeExec(ctx context.Context, id string, rows, cols uint16) error {
	return c.post(ctx, "/exec/"+id+"/resize", url.Values{"h": {strconv.Itoa(int(rows))}, "w": {strconv.Itoa(int(cols))}}, nil, nil)
}

// ExecState is what became of a command.
type ExecState struct {
	Running  bool
	ExitCode int
	PID      int `json:"Pid"`
}

// InspectExec looks at a command.
func (c *Client) InspectExec(ctx context.Context, id string) (s ExecState, err error) {
	return s, c.get(ctx, "/exec/"+id+"/json", nil, &s)
}
