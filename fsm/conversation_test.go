package fsm

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

var rewrite = flag.Bool("rewrite", false, "write what the state machine answers into testdata; commit it only when you understand every change")

// TestConversations holds the state machine to the conversations in testdata: blocks of command
// lines, a line of dashes, and what is answered. Every invariant is checked after every command,
// and a command that was refused must have left the state hash as it was.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) { converse(t, file) })
	}
}

func converse(t *testing.T, file string) {
	src, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	talk := newTalk(t)
	blocks := strings.Split(strings.TrimRight(string(src), "\n"), "\n\n")
	for n, block := range blocks {
		ask, want, asked := strings.Cut(block, "\n----")
		if !asked { // prose
			out.WriteString(block + "\n")
		} else {
			var got strings.Builder
			for _, line := range strings.Split(ask, "\n") {
				if !strings.HasPrefix(line, "#") {
					got.WriteString(talk.line(line))
				}
			}
			want = strings.TrimPrefix(want, "\n")
			answer := strings.TrimRight(got.String(), "\n")
			if !*rewrite && answer != want {
				t.Errorf("%s\nanswered\n%s\nbut should have answered\n%s", ask, answer, want)
			}
			out.WriteString(strings.TrimRight(ask+"\n----\n"+answer, "\n") + "\n")
		}
		if n < len(blocks)-1 {
			out.WriteString("\n")
		}
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// talk is one conversation with a state machine.
type talk struct {
	t      *testing.T
	fsm    *FSM
	index  uint64
	timeMS int64
}

func newTalk(t *testing.T) *talk { return &talk{t: t, fsm: New(), timeMS: 1000} }

func (k *talk) line(line string) string {
	w := parseWords(line)
	if w.verb == "at" {
		k.timeMS = w.number("", 0, w.arg(0))
		return ""
	}
	if show, ok := shows[w.verb]; ok {
		return show(k.fsm.State(), w)
	}
	make, ok := commands[w.verb]
	if !ok {
		k.t.Fatalf("%q: no such command", line)
	}
	var entry []*pb.Command
	for _, part := range strings.Split(line, " & ") { // several commands in one entry
		if part = strings.TrimSpace(part); part != line {
			w = parseWords(part)
			make = commands[w.verb]
		}
		entry = append(entry, make(k, w))
	}
	return k.apply(entry)
}

func (k *talk) apply(commands []*pb.Command) string {
	before := k.fsm.State().Hash()
	k.index++
	data, err := proto.Marshal(&pb.Entry{TimeMs: k.timeMS, Commands: commands})
	if err != nil {
		k.t.Fatal(err)
	}
	entry := &pb.Entry{}
	if err := proto.Unmarshal(data, entry); err != nil {
		k.t.Fatal(err)
	}
	var out strings.Builder
	refused := true
	for _, r := range k.fsm.Apply(k.index, entry) {
		out.WriteString(showResult(r))
		refused = refused && r.Fault != nil
	}
	s := k.fsm.State()
	if err := state.Check(s); err != nil {
		fmt.Fprintf(&out, "VIOLATED %v\n", err)
	}
	if refused && s.Hash() != before {
		out.WriteString("VIOLATED a refused command changed the state\n")
	}
	if err := k.fsm.Diverged(); err != nil {
		fmt.Fprintf(&out, "diverged: %v\n", err)
	}
	return out.String()
}

func showFault(f *pb.Fault) string {
	kind := strings.TrimPrefix(f.Kind.String(), "ERROR_KIND_")
	out := kind
	if f.Field != "" {
		out += " " + f.Field
	}
	out += ": " + f.Message
	if f.Hint != "" {
		out += " (hint: " + f.Hint + ")"
	}
	return out
}

func showResult(r *pb.Result) string {
	if r.Fault != nil {
		return showFault(r.Fault) + "\n"
	}
	out := "ok"
	if r.JobId != "" {
		out += " " + r.JobId
	}
	if r.RepeatedRequest {
		out += " repeated"
	}
	if r.ClusterId != "" {
		out += " " + r.ClusterId
	}
	if r.Ignored > 0 {
		out += fmt.Sprintf(" ignored=%d", r.Ignored)
	}
	out += "\n"
	for i, f := range r.Evictions {
		if f.Kind == pb.ErrorKind_ERROR_KIND_UNSPECIFIED {
			out += fmt.Sprintf("  eviction %d done\n", i)
		} else {
			out += fmt.Sprintf("  eviction %d %s\n", i, showFault(f))
		}
	}
	for _, g := range r.Gangs {
		if g.Fault == nil {
			out += "  " + g.JobId + " placed\n"
		} else {
			out += "  " + g.JobId + " " + showFault(g.Fault) + "\n"
		}
	}
	return out
}
