package engine

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// fake answers as an engine does: each path has what it says.
func fake(t *testing.T, says map[string]http.HandlerFunc) *Client {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "sock")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/version", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"ApiVersion": "1.41", "MinAPIVersion": "1.12", "Components": [{"Name": "docker-init", "Version": "0.19.0"}]}`)
	})
	for path, f := range says {
		mux.HandleFunc("/v1.41"+path, f)
	}
	server := &http.Server{Handler: mux}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { server.Close() })
	c, err := Dial(context.Background(), socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func text(status int, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestChoose(t *testing.T) {
	for _, c := range []struct {
		newest, oldest, wrong string
		want                  int
	}{
		{"1.41", "1.12", "", 41}, {"1.50", "1.24", "", 44}, {"1.60", "1.48", "", 48}, {"1.40", "", "", 40},
		{"1.39", "1.12", "it speaks version 1.39 of the API, at least 1.40 is needed", 0},
		{"2.0", "2.0", `it speaks version "2.0" of the API, which is not known here`, 0}, {"", "", `it speaks version "" of the API, which is not known here`, 0},
	} {
		got, err := choose(c.newest, c.oldest)
		if got != c.want || (err == nil) != (c.wrong == "") || err != nil && err.Error() != c.wrong {
			t.Errorf("%s to %s: %d, %v; want %d, %q", c.oldest, c.newest, got, err, c.want, c.wrong)
		}
	}
}

func TestRefusals(t *testing.T) {
	c := fake(t, map[string]http.HandlerFunc{
		"/images/absent/json":  text(404, `{"message": "no such image: absent"}`),
		"/containers/c/start":  text(500, "plain words"),
		"/containers/c/kill":   text(409, ""),
		"/containers/gone":     text(404, `{"message": "no such container"}`),
		"/containers/c/attach": text(404, `{"message": "no such container"}`),
		"/images/create":       text(200, `{"status": "Pulling"}`+"\n"+`{"error": "no basic auth credentials"}`),
	})
	ctx := context.Background()
	if !c.HasInit() {
		t.Error("the engine's init is not seen")
	}
	if _, err := c.Image(ctx, "absent"); !NotFound(err) || err.Error() != "no such image: absent" {
		t.Errorf("image: %v", err)
	}
	if err := c.Start(ctx, "c"); err == nil || err.Error() != "plain words" {
		t.Errorf("start: %v", err)
	}
	if err := c.Kill(ctx, "c", "SIGTERM"); !Conflict(err) || NotFound(err) {
		t.Errorf("kill: %v", err)
	}
	if err := c.Remove(ctx, "gone"); err != nil {
		t.Errorf("remove what is not there: %v", err)
	}
	if _, err := c.Attach(ctx, "c"); !NotFound(err) {
		t.Errorf("attach: %v", err)
	}
	if err := c.Pull(ctx, "private/image"); err == nil || err.Error() != "no basic auth credentials" {
		t.Errorf("pull: %v", err)
	}
	if _, err := Dial(ctx, "/no/such.sock"); err == nil || !strings.HasPrefix(err.Error(), "the engine at /no/such.sock does not answer: ") {
		t.Errorf("dial: %v", err)
	}
}

func TestPullTakesOneTag(t *testing.T) {
	asked := make(chan string, 8)
	c := fake(t, map[string]http.HandlerFunc{"/images/create": func(_ http.ResponseWriter, r *http.Request) { asked <- r.URL.Query().Encode() }})
	for reference, want := range map[string]string{
		"busybox": "fromImage=busybox&tag=latest", "host:5000/busybox": "fromImage=host%3A5000%2Fbusybox&tag=latest",
		"busybox:1": "fromImage=busybox%3A1", "a/b@sha256:00": "fromImage=a%2Fb%40sha256%3A00",
	} {
		if err := c.Pull(context.Background(), reference); err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != want {
			t.Errorf("%s: asked %s, want %s", reference, got, want)
		}
	}
}

func frame(kind byte, data string) []byte {
	header := make([]byte, frameHeaderBytes)
	header[0] = kind
	binary.BigEndian.PutUint32(header[4:], uint32(len(data)))
	return append(header, data...)
}

func TestStreamIsSplit(t *testing.T) {
	sent := bytes.Join([][]byte{frame(1, "one "), frame(2, "oops"), frame(1, ""), frame(1, "two")}, nil)
	c := fake(t, map[string]http.HandlerFunc{"/containers/c/attach": func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = conn.Write(append([]byte("HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"), sent...))
	}})
	s, err := c.Attach(context.Background(), "c")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var out, errs strings.Builder
	if err := s.Split(&out, &errs); err != nil || out.String() != "one two" || errs.String() != "oops" {
		t.Errorf("%q and %q, %v", out.String(), errs.String(), err)
	}
	for name, cut := range map[string][]byte{"header": sent[:3], "frame": sent[:10], "kind": frame(9, "x")} {
		s := &Stream{r: bufio.NewReader(bytes.NewReader(cut))}
		if err := s.Split(io.Discard, io.Discard); err == nil {
			t.Errorf("a stream with a bad %s is taken", name)
		}
	}
}
