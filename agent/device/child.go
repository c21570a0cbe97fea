package device

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// childWaitDelay is how long a dead child's standard error may stay open by another's doing.
const childWaitDelay = time.Second

// child is a running NVML child. One goroutine at a time may ask.
type child struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	out     io.ReadCloser
	answers chan read     // one per question
	ended   chan struct{} // closed once the process is reaped
	words   *lastWords
}

type read struct {
	a   answer
	err error
}

// childEnv is all that a child sees of this process's environment: where the loader finds
// the driver's library.
func childEnv() []string {
	env := []string{"PATH=" + os.Getenv("PATH")}
	if path, ok := os.LookupEnv("LD_LIBRARY_PATH"); ok {
		env = append(env, "LD_LIBRARY_PATH="+path)
	}
	return env
}

func startChild(command, env []string) (*child, error) {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env, cmd.Dir = env, "/"
	words := &lastWords{}
	cmd.Stderr = words
	cmd.WaitDelay = childWaitDelay
	detach(cmd)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the NVML child: %w", err)
	}
	// A pipe of our own, because cmd.Wait would close one of its own under the reader.
	out, theirs, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, fmt.Errorf("start the NVML child: %w", err)
	}
	cmd.Stdout = theirs
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		in.Close()
		out.Close()
		return nil, fmt.Errorf("start the NVML child: %w", err)
	}
	c := &child{cmd: cmd, in: in, out: out, answers: make(chan read, 1), ended: make(chan struct{}), words: words}
	go func() {
		cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

// ask sends a question and waits for its answer or for ctx. After an error the child is of
// no further use and is to be killed.
func (c *child) ask(ctx context.Context, q question) (answer, error) {
	go func() {
		var r read
		if r.err = writeFrame(c.in, q); r.err == nil {
			r.err = readFrame(c.out, &r.a)
		}
		c.answers <- r
	}()
	select {
	case r := <-c.answers:
		if r.err != nil {
			return answer{}, c.death(ctx, r.err)
		}
		return r.a, nil
	case <-ctx.Done():
		return answer{}, context.Cause(ctx)
	}
}

// death says how the child ended, when it did; err is what the pipe said.
func (c *child) death(ctx context.Context, err error) error {
	c.in.Close()
	c.cmd.Process.Kill()
	select {
	case <-c.ended:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	text := fmt.Sprintf("the NVML child broke off (%v): %v", c.cmd.ProcessState, err)
	if words := c.words.String(); words != "" {
		text += ": " + words
	}
	return fmt.Errorf("%s", text)
}

// kill ends the child without waiting: a process that is stuck in the driver ends when the
// driver lets it. The pipes are closed, which frees the goroutine of a pending question.
func (c *child) kill() {
	c.in.Close()
	c.cmd.Process.Kill()
	c.out.Close()
}

// lastWords keeps the first bytes that a child writes to its standard error.
type lastWords struct {
	mu   sync.Mutex
	text []byte
}

// Write keeps what still fits and never fails.
func (w *lastWords) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, b[:min(len(b), childStderrMax-len(w.text))]...)
	return len(b), nil
}

// String gives the words on one line.
func (w *lastWords) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(strings.Fields(string(w.text)), " ")
}
