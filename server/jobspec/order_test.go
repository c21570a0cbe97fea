package jobspec

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"google.golang.org/protobuf/encoding/prototext"
	"pgregory.net/rapid"

	pb "llmos/proto/llmos/v1"
)

// conversation holds the answers of a txtar file, the files called want, to those that
// answer gives to the files before each; or writes them with -rewrite.
func conversation(t *testing.T, name string, isWant func(string) bool, answer func(files []txtar.File) string) {
	t.Helper()
	archive, err := txtar.ParseFile(name)
	if err != nil {
		t.Fatal(err)
	}
	var given []txtar.File
	for i := range archive.Files {
		f := &archive.Files[i]
		if !isWant(f.Name) {
			given = append(given, *f)
			continue
		}
		got := answer(given)
		if *rewrite {
			f.Data = []byte(got)
		} else if got != string(f.Data) {
			t.Errorf("%s: %s\n%s\ngot:\n%s\nwant:\n%s", name, given[0].Name, given[0].Data, got, f.Data)
		}
		given = nil
	}
	if *rewrite {
		if err := os.WriteFile(name, txtar.Format(archive), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSets(t *testing.T) {
	conversation(t, "testdata/sets/all.txt", func(n string) bool { return n == "want" }, func(given []txtar.File) string {
		var files []*File
		for _, g := range given {
			f, err := ParseFile(g.Name, "/jobs/"+g.Name, g.Data)
			if err != nil {
				return show(nil, err)
			}
			files = append(files, f)
		}
		sorted, needs, err := Order(files)
		var set *SetFault
		if errors.As(err, &set) {
			e := set.Fault.Fault
			return fmt.Sprintf("%s:%d: %s: %s [%s]\n", set.File, e.Line, e.Field, e.Message, e.Hint)
		}
		var b strings.Builder
		for i, f := range sorted {
			fmt.Fprintf(&b, "%s %v\n", f.Name, needs[i])
		}
		return b.String()
	})
}

// TestOrderIsOne draws graphs of files: an order is found exactly when there is no cycle,
// and then every file comes behind those it waits for.
func TestOrderIsOne(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "files")
		var files []*File
		for i := range n {
			f := &File{Name: fmt.Sprint("f", i, ".yaml"), Spec: &pb.JobSpec{Name: fmt.Sprint("f", i)}, d: &decoder{lines: map[string]int{}}}
			for _, k := range rapid.SliceOfNDistinct(rapid.IntRange(0, n-1), 0, 3, rapid.ID).Draw(t, "after") {
				f.Spec.After = append(f.Spec.After, &pb.Dependency{Job: fmt.Sprint("f", k)})
			}
			files = append(files, f)
		}
		sorted, needs, err := Order(files)
		if err != nil {
			if acyclic(files) {
				t.Fatalf("refused without a cycle: %v", err)
			}
			return
		}
		for i, f := range sorted {
			for k, dep := range f.Spec.After {
				if needs[i][k] >= i || sorted[needs[i][k]].Spec.Name != dep.Job {
					t.Fatalf("%s stands before %s", f.Name, dep.Job)
				}
			}
		}
	})
}

// acyclic removes files that wait for nobody until none is left, or none can be removed.
func acyclic(files []*File) bool {
	left := map[string]*File{}
	for _, f := range files {
		left[f.Spec.Name] = f
	}
	for len(left) > 0 {
		before := len(left)
		for name, f := range left {
			free := true
			for _, dep := range f.Spec.After {
				free = free && left[dep.Job] == nil
			}
			if free {
				delete(left, name)
			}
		}
		if len(left) == before {
			return false
		}
	}
	return true
}

func showQueues(queues []*pb.Queue, err error) string {
	if err != nil {
		return show(nil, err)
	}
	var b strings.Builder
	for _, q := range queues {
		fmt.Fprintf(&b, "%s (parent %q) weight %d", q.Name, q.Parent, q.Weight)
		for _, l := range q.Limits {
			fmt.Fprintf(&b, " %s=%d/%d/%d", l.Resource, l.Nominal, l.Borrow, l.Lend)
		}
		fmt.Fprintf(&b, " max %d %d %d %d %d\n", q.RunningMax, q.PendingMax, q.UserRunningMax, q.UserGpuMilliMax, q.PriorityMax)
	}
	return b.String()
}

func TestQueueFiles(t *testing.T) {
	conversation(t, "testdata/queues/all.txt", func(n string) bool { return strings.HasSuffix(n, ".want") }, func(given []txtar.File) string {
		return showQueues(ParseQueues("/q/"+given[0].Name, given[0].Data))
	})
}

func TestValidateQueues(t *testing.T) {
	for want, queues := range map[string][]*pb.Queue{
		"queues[0]: the queue is empty":                                    {nil},
		`queues[0].name: "a/b" names another parent than ""`:               {{Name: "a/b", Weight: 1}},
		"queues[0].weight: 10001 is out of range":                          {{Name: "a", Weight: 10001}},
		"queues[0].name: \"a/a/a/a/a/a/a/a/a\" is 9 levels deep":           {{Name: "a/a/a/a/a/a/a/a/a", Parent: "a/a/a/a/a/a/a/a", Weight: 1}},
		"queues[0].quota.tpu: there is no resource":                        {{Name: "a", Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "tpu"}}}},
		"queues[0].quota.gpu: the quota of gpu is given twice":             {{Name: "a", Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "gpu"}, {Resource: "gpu"}}}},
		"queues[0].user_running_max: -1 is out of range":                   {{Name: "a", Weight: 1, UserRunningMax: -1}},
		"queues[0].quota.memory: -5 is out of range":                       {{Name: "a", Weight: 1, Limits: []*pb.QuotaLimit{{Resource: "memory", Nominal: -5, Lend: -1}}}},
		"queues[1].name: \"b/x\" names another parent than \"a\" (hint: a": {{Name: "a", Weight: 1}, {Name: "b/x", Parent: "a", Weight: 1}},
	} {
		err := ValidateQueues(queues)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	if err := ValidateQueues([]*pb.Queue{{Name: "default", Weight: 1}}); err != nil {
		t.Error(err)
	}
}

// FuzzQueues holds ParseQueues to: no panic, faults of the kind INVALID, and queues that validate.
func FuzzQueues(f *testing.F) {
	archive, err := txtar.ParseFile("testdata/queues/all.txt")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range archive.Files {
		if filepath.Ext(file.Name) == ".yaml" {
			f.Add(file.Data)
		}
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		queues, err := ParseQueues("/q/fuzz.yaml", src)
		if err == nil {
			if err := ValidateQueues(queues); err != nil {
				t.Fatalf("parsed, and does not validate: %v", err)
			}
			return
		}
		var faults Faults
		if !errors.As(err, &faults) || len(faults) == 0 || queues != nil {
			t.Fatalf("queues %v with error %v", queues, err)
		}
		for _, e := range faults {
			if e.Fault.Kind != pb.ErrorKind_ERROR_KIND_INVALID || e.Fault.Message == "" || e.Fault.Line < 0 {
				t.Fatalf("fault %s", prototext.Format(e.Fault))
			}
		}
	})
}
