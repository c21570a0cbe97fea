package jobspec

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/prototext"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

var rewrite = flag.Bool("rewrite", false, "write what Parse says into testdata")

// show gives a spec as text, or one line a fault as the command line prints them.
func show(spec *pb.JobSpec, err error) string {
	var faults Faults
	if errors.As(err, &faults) {
		var b strings.Builder
		for _, e := range faults {
			f := e.Fault
			fmt.Fprintf(&b, "%d: %s: %s", f.Line, f.Field, f.Message)
			if f.Hint != "" {
				fmt.Fprintf(&b, " [%s]", f.Hint)
			}
			b.WriteByte('\n')
		}
		return b.String()
	}
	if err != nil {
		return "not of type Faults: " + err.Error() + "\n"
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(spec)
	if err != nil {
		return err.Error()
	}
	text := &strings.Builder{}
	indentJSON(text, raw)
	return text.String()
}

// TestFiles reads every job file of testdata/*.txt and compares with the section behind it.
func TestFiles(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for i := 0; i+1 < len(archive.Files); i += 2 {
			in, want := archive.Files[i], &archive.Files[i+1]
			got := show(Parse("/jobs/"+in.Name, in.Data))
			if *rewrite {
				want.Data = []byte(got)
			} else if got != string(want.Data) {
				t.Errorf("%s: %s\n%s\ngot:\n%s\nwant:\n%s", name, in.Name, in.Data, got, want.Data)
			}
		}
		if *rewrite {
			if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestFileBounds(t *testing.T) {
	deep := strings.Repeat("[", 5000)
	cases := map[string]string{
		"at most 262144": "command: " + strings.Repeat("x", FileBytesMax),
		"nested":         "command: " + deep,
		"levels deep":    strings.Repeat("- ", 5000) + "x",
		"at most 50000":  "command: [" + strings.Repeat("a,", 60_000) + "]",
		"key is longer":  strings.Repeat("k", 500) + ": 1",
		"once it is":     "a: &a {" + keys(4000) + "}\n" + strings.Repeat("b: {<<: *a}\n", 100),
	}
	for want, src := range cases {
		_, err := Parse("x.yaml", []byte(src))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want a fault that says %q, got %v", want, err)
		}
	}
}

func keys(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: 1,", i)
	}
	return b.String()
}

func TestManyFaultsAreBounded(t *testing.T) {
	var src strings.Builder
	src.WriteString("command: x\n")
	for i := range 500 {
		fmt.Fprintf(&src, "zz%d: 1\n", i)
	}
	_, err := Parse("x.yaml", []byte(src.String()))
	var faults Faults
	if !errors.As(err, &faults) || len(faults) != faultsMax+1 {
		t.Fatalf("got %d faults", len(faults))
	}
	if last := faults[faultsMax].Fault.Message; last != "400 more faults are not shown" {
		t.Errorf("the last says %q", last)
	}
}

func TestFaultsAsOne(t *testing.T) {
	_, err := Parse("x.yaml", []byte("command: x\ncount: -1\npriority: 101\n"))
	one := fault.From(err).Fault
	if one.Kind != pb.ErrorKind_ERROR_KIND_INVALID || one.Field != "count" || one.Line != 2 {
		t.Errorf("got %s", prototext.Format(one))
	}
	if want := "the role has -1 tasks, at least 1; priority: 101 is out of range"; one.Message != want {
		t.Errorf("got %q, want %q", one.Message, want)
	}
}

// FuzzParse holds Parse to: no panic, every fault INVALID with a sentence, and a spec that validates.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.txt")
	for _, name := range files {
		archive, err := txtar.ParseFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for i := 0; i < len(archive.Files); i += 2 {
			f.Add(archive.Files[i].Data)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		spec, err := Parse("/jobs/fuzz.yaml", src)
		if err == nil {
			if err := Validate(spec); err != nil {
				t.Fatalf("parsed, and does not validate: %v", err)
			}
			return
		}
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 || spec != nil {
			t.Fatalf("spec %v with error %v", spec, err)
		}
		for _, e := range faults {
			if e.Fault.Kind != pb.ErrorKind_ERROR_KIND_INVALID || e.Fault.Message == "" || e.Fault.Line < 0 {
				t.Fatalf("fault %s", prototext.Format(e.Fault))
			}
		}
	})
}

// TestExampleJobs holds the example job files to what they promise: they parse.
func TestExampleJobs(t *testing.T) {
	files, err := filepath.Glob("../../deploy/jobs/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Base(name) == "queues.yaml" {
			continue // not a job; the test of deploy/jobs reads it
		}
		if _, err := Parse("/jobs/"+filepath.Base(name), src); err != nil {
			t.Errorf("%s:\n%v", name, err)
		}
	}
}
