package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// noon is the clock of the tests.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// stream is a buffer that several goroutines may write to, as they may to a file.
type stream struct {
	mu sync.Mutex
	bytes.Buffer
}

func (s *stream) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Buffer.Write(b)
}

// testApp is an app whose streams are buffers, without a terminal.
func testApp() (a *app, out, errOut *stream) {
	out, errOut = &stream{}, &stream{}
	return &app{
		in: strings.NewReader(""), out: out, errOut: errOut, columns: func() int { return widthDefault },
		getenv: func(string) (string, bool) { return "", false }, getwd: func() (string, error) { return "/here", nil },
		now: func() time.Time { return noon }, location: time.UTC,
	}, out, errOut
}

// golden compares with a file of testdata, or writes it with -rewrite.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *rewrite {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s:\ngot:\n%s\nwant:\n%s", path, got, want)
	}
}

func TestExitCodes(t *testing.T) {
	for number, name := range pb.ErrorKind_name {
		kind := pb.ErrorKind(number)
		code, known := exitCodes[kind]
		if !known {
			t.Errorf("%s has no exit code", name)
		}
		a, _, errOut := testApp()
		if kind == pb.ErrorKind_ERROR_KIND_UNSPECIFIED {
			continue
		}
		if got := a.report(context.Background(), fault.New(kind, "a sentence").Hint("a way out")); got != code || got == exitOK {
			t.Errorf("%s: exit code %d, the table says %d", name, got, code)
		}
		if want := "llmos: a sentence\nhint: a way out\n"; errOut.String() != want {
			t.Errorf("%s: printed %q, want %q", name, errOut, want)
		}
	}
	a, _, errOut := testApp()
	if got := a.report(context.Background(), nil); got != exitOK {
		t.Errorf("no error: exit code %d", got)
	}
	if got := a.report(context.Background(), exitStatus(42)); got != 42 || errOut.Len() > 0 {
		t.Errorf("a job's own code: %d, printed %q", got, errOut)
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(interrupted{os.Interrupt})
	if got := a.report(ctx, context.Canceled); got != exitInterrupted || errOut.String() != "llmos: stopped by interrupt\n" {
		t.Errorf("an interrupt: %d, printed %q", got, errOut)
	}
	errOut.Reset()
	if got := a.report(ctx, errors.New("the disk is full")); got != exitFailed || !strings.Contains(errOut.String(), "disk") {
		t.Errorf("a failure while being interrupted: %d, printed %q", got, errOut)
	}
}

// TestHelp holds every verb to a sentence, an example, and a way to be wrong.
func TestHelp(t *testing.T) {
	a, _, _ := testApp()
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		if c.Short == "" || !strings.Contains(c.Example, "llmos "+strings.TrimPrefix(c.CommandPath(), "llmos ")) && c.Name() != "llmos" {
			t.Errorf("%s: short %q, example %q", c.CommandPath(), c.Short, c.Example)
		}
		if c.Args == nil {
			t.Errorf("%s does not check its arguments", c.CommandPath())
		}
		for _, line := range strings.Split(c.Long+"\n"+c.Example, "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("%s: a line of its help is %d characters long: %s", c.CommandPath(), len([]rune(line)), line)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(a.rootCommand())
}

func TestAge(t *testing.T) {
	for want, d := range map[string]time.Duration{"0s": -time.Second, "12s": 12 * time.Second, "3m": 3 * time.Minute, "3m5s": 185 * time.Second,
		"45m": 45*time.Minute + 9*time.Second, "2h5m": 125 * time.Minute, "30h": 30 * time.Hour, "4d": 100 * time.Hour} {
		if got := age(d); got != want {
			t.Errorf("age(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestValueText(t *testing.T) {
	for want, v := range map[string]float64{"1.831": 1.83112, "5400": 5400.4, "54.0k": 54000, "0.0003": 0.0003, "0": 0, "-12.5": -12.5} {
		if got := valueText(v); got != want {
			t.Errorf("valueText(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestMergeServers(t *testing.T) {
	for _, c := range []struct{ known, named, want string }{
		{"a b", "", "a b"}, {"a", "b c a", "a b c"}, {"a b", "b c", "b c"}, {"", "x", "x"},
	} {
		if got := strings.Join(mergeServers(strings.Fields(c.known), strings.Fields(c.named)), " "); got != c.want {
			t.Errorf("%q and %q give %q, want %q", c.known, c.named, got, c.want)
		}
	}
}

func TestSetAside(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "llmos")
	for _, want := range []string{".c-1", ".c-1.2", ".c-1.3"} {
		if err := (&clientFile{ClusterID: "c-1"}).write(dir); err != nil {
			t.Fatal(err)
		}
		kept, err := setAside(dir)
		if err != nil || kept != dir+want {
			t.Fatalf("kept in %s (%v), want %s", kept, err, dir+want)
		}
		if f, err := readClientFile(kept); err != nil || f.ClusterID != "c-1" {
			t.Fatalf("the copy holds %v (%v)", f, err)
		}
	}
}

func TestClientDir(t *testing.T) {
	a, _, _ := testApp()
	vars := map[string]string{}
	a.getenv = func(name string) (string, bool) { v, ok := vars[name]; return v, ok }
	if _, err := a.clientDir(""); err == nil {
		t.Error("without HOME there is a folder")
	}
	for _, step := range []struct{ name, value, want string }{
		{"HOME", "/h", "/h/.config/llmos"}, {"XDG_CONFIG_HOME", "/x", "/x/llmos"}, {"LLMOS_CLIENT_DIR", "/l", "/l"},
	} {
		vars[step.name] = step.value
		if got, err := a.clientDir(""); err != nil || got != step.want {
			t.Errorf("with %s: %s (%v), want %s", step.name, got, err, step.want)
		}
	}
	if got, _ := a.clientDir("/flag"); got != "/flag" {
		t.Errorf("with the flag: %s", got)
	}
}

func TestLogPrinter(t *testing.T) {
	a, out, errOut := testApp()
	p := newLogPrinter(a, true, false)
	for _, c := range []*pb.LogChunk{
		{Rank: 0, Data: []byte("one\ntw")}, {Rank: 1, Data: []byte("eins\n")}, {Rank: 1, Stderr: true, Data: []byte("oh\n")},
		{Rank: 0, Data: []byte("o\nthree")}, {Rank: 1, Data: []byte("zwei")}, {Rank: 0, End: true},
	} {
		if err := p.print(c); err != nil {
			t.Fatal(err)
		}
	}
	if want := "[0] one\n[1] eins\n[0] two\n[0] three\n[1] zwei\n"; out.String() != want {
		t.Errorf("standard output:\n%s\nwant:\n%s", out, want)
	}
	if want := "[1] oh\n"; errOut.String() != want {
		t.Errorf("standard error: %q, want %q", errOut, want)
	}
	out.Reset()
	if err := p.print(&pb.LogChunk{Rank: 3, Data: bytes.Repeat([]byte("x"), 3*lineMax)}); err != nil {
		t.Fatal(err)
	}
	if out.Len() < 3*lineMax {
		t.Errorf("a line without an end is held back: %d bytes printed", out.Len())
	}
	out.Reset()
	plain := newLogPrinter(a, false, false)
	if err := plain.print(&pb.LogChunk{Data: []byte("raw\x00bytes")}); err != nil || out.String() != "raw\x00bytes" {
		t.Errorf("one task's output is changed: %q (%v)", out, err)
	}
}
