package trace_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/proto/fault"
	"llmos/server/trace"
)

// readsOrRefuses checks that a reader gives possible jobs in order, or a fault.
func readsOrRefuses(t *testing.T, text string) {
	got, err := trace.Read("f", strings.NewReader(text))
	var f *fault.Error
	if err != nil && !errors.As(err, &f) {
		t.Fatalf("%v is no fault", err)
	}
	if err != nil {
		return
	}
	last := int64(0)
	for i, j := range got.Jobs {
		switch {
		case i > 0 && j.Submit < last, j.Submit < 0, j.Duration < 1, j.Tasks < 1, j.GPUs < 0, j.GPUMilli < 0, j.GPUMilli > 1000,
			(j.GPUs == 0) != (j.GPUMilli == 0), j.GPUs > 1 && got.Format == trace.FormatOpenb && j.GPUMilli < 1000, j.CPUMilli < 0, j.MemoryBytes < 0:
			t.Fatalf("job %d is impossible: %+v", i, j)
		}
		last = j.Submit
	}
}

// sample seeds a fuzz target with a file of testdata and a header alone.
func sample(f *testing.F, name string) {
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(text))
	f.Add(strings.SplitAfter(string(text), "\n")[0])
}

func FuzzPhilly(f *testing.F) {
	sample(f, "philly.csv")
	f.Fuzz(readsOrRefuses)
}

func FuzzOpenb(f *testing.F) {
	sample(f, "openb.csv")
	f.Fuzz(readsOrRefuses)
}

func FuzzPollux(f *testing.F) {
	sample(f, "pollux.csv")
	f.Fuzz(readsOrRefuses)
}

func FuzzHistory(f *testing.F) {
	sample(f, "history.csv")
	f.Add(`{"id":"j-1","user":"a","submit":1700000000,"start":1700000001.5,"end":1700000002,"tasks":1,"gpus":1,"share":500}`)
	f.Fuzz(readsOrRefuses)
}

func FuzzNodes(f *testing.F) {
	sample(f, "nodes.csv")
	f.Fuzz(func(t *testing.T, text string) {
		nodes, err := trace.ReadNodes("f", strings.NewReader(text))
		var fault *fault.Error
		if err != nil && !errors.As(err, &fault) {
			t.Fatalf("%v is no fault", err)
		}
		for _, n := range nodes {
			if n.CPUMilli < 1 || n.MemoryBytes < 1 || n.GPUs < 0 {
				t.Fatalf("an impossible node: %+v", n)
			}
		}
	})
}
