package rig

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// EngineImage is the image that an Engine holds: a static busybox, from scratch.
const EngineImage = "llmos-test/busybox:1"

// engineTools are what the image has beside the shell.
var engineTools = strings.Fields("sh cat echo id sleep env ls df tail head touch pwd grep stty tty kill true cut seq")

// Engine is a Docker daemon of the tests' own, with a folder and a socket of its own and
// without a network. It holds one image and can fetch none.
type Engine struct {
	Socket string

	dir   string
	cmd   *exec.Cmd
	ended <-chan struct{} // closed once cmd has; nil: not started
}

// EngineMissing says why no Engine can be started on this machine; empty: one can.
func EngineMissing() string {
	if os.Geteuid() != 0 {
		return "only root can start a container engine"
	}
	for _, program := range []string{"dockerd", "runc", "busybox"} {
		if _, err := exec.LookPath(program); err != nil {
			return program + " is not installed (Debian: docker.io, runc, busybox-static)"
		}
	}
	return ""
}

// StartEngine starts one and gives it its image.
func StartEngine(ctx context.Context) (*Engine, error) {
	dir, err := os.MkdirTemp("", "llmos-docker-")
	if err != nil {
		return nil, err
	}
	e := &Engine{dir: dir, Socket: filepath.Join(dir, "sock")}
	if err = e.Start(ctx); err == nil {
		err = e.load(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, e.Remove())
	}
	return e, nil
}

// Start starts the engine again after Stop, and waits until it answers.
func (e *Engine) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*startTimeout)
	defer cancel()
	log, err := os.Create(filepath.Join(e.dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	e.cmd = exec.Command("dockerd", "--data-root", e.dir+"/data", "--exec-root", e.dir+"/exec", "-H", "unix://"+e.Socket, "--pidfile", e.dir+"/pid",
		"--bridge=none", "--iptables=false", "--live-restore", "--exec-opt", "native.cgroupdriver=cgroupfs")
	e.cmd.Stdout, e.cmd.Stderr = log, log
	// The engine ends with the thread that started it, and so with this process.
	e.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGTERM}
	started, ended := make(chan error), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer close(ended)
		err := e.cmd.Start()
		started <- err
		if err == nil {
			_ = e.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	e.ended = ended
	for {
		answer, err := e.ask(ctx, http.MethodGet, "/_ping", nil)
		if err == nil {
			return answer.Close()
		}
		select {
		case <-ctx.Done():
		case <-ended:
		case <-time.After(pollEvery):
			continue
		}
		said, _ := os.ReadFile(log.Name())
		return fmt.Errorf("the engine does not answer: %w: %s", err, said)
	}
}

// Stop ends the engine itself; its containers run on (--live-restore).
func (e *Engine) Stop() {
	if e.ended != nil {
		_ = e.cmd.Process.Signal(syscall.SIGTERM)
		<-e.ended
	}
}

// Remove ends the engine and deletes all it has, mounts included.
func (e *Engine) Remove() error {
	e.Stop()
	const mountsMax = 256
	for range mountsMax {
		at := e.mount()
		if at == "" || syscall.Unmount(at, syscall.MNT_DETACH) != nil {
			break
		}
	}
	return os.RemoveAll(e.dir)
}

// mount gives a place below the engine's folder where something is mounted; empty: none.
func (e *Engine) mount() string {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(table)) {
		if fields := strings.Fields(line); len(fields) > 4 && strings.HasPrefix(fields[4], e.dir+"/") {
			return fields[4]
		}
	}
	return ""
}

// ask calls the engine and gives the body of a good answer.
func (e *Engine) ask(ctx context.Context, method, path string, body io.Reader) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, method, "http://engine"+path, body)
	if err != nil {
		return nil, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
	}}}
	answer, err := c.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		defer answer.Body.Close()
		said, _ := io.ReadAll(answer.Body)
		return nil, fmt.Errorf("%s: %s", answer.Status, said)
	}
	return answer.Body, nil
}

// load makes the image from the busybox of this machine.
func (e *Engine) load(ctx context.Context) error {
	archive, err := engineArchive()
	if err != nil {
		return err
	}
	name, tag, _ := strings.Cut(EngineImage, ":")
	query := url.Values{"fromSrc": {"-"}, "repo": {name}, "tag": {tag}, "changes": {"ENV PATH=/bin"}}
	answer, err := e.ask(ctx, http.MethodPost, "/images/create?"+query.Encode(), archive)
	if err != nil {
		return err
	}
	defer answer.Close()
	said, err := io.ReadAll(answer)
	if err == nil && bytes.Contains(said, []byte(`"error"`)) {
		err = fmt.Errorf("make the image: %s", said)
	}
	return err
}

// engineArchive is the root of the image.
func engineArchive() (io.Reader, error) {
	path, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	program, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	var entries []*tar.Header
	for _, d := range []string{"bin/", "tmp/", "proc/", "dev/", "sys/", "etc/"} {
		entries = append(entries, &tar.Header{Name: d, Typeflag: tar.TypeDir, Mode: 0o755})
	}
	for _, name := range engineTools {
		entries = append(entries, &tar.Header{Name: "bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "busybox", Mode: 0o777})
	}
	entries = append(entries, &tar.Header{Name: "bin/plain", Typeflag: tar.TypeReg, Mode: 0o644},
		&tar.Header{Name: "bin/busybox", Typeflag: tar.TypeReg, Mode: 0o755, Size: int64(len(program))})
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
	}
	if _, err := w.Write(program); err != nil {
		return nil, err
	}
	return &archive, w.Close()
}
