package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/server/scheduler/packing"
)

func sample(t *testing.T, name string) (*trace, *list) {
	t.Helper()
	tr, err := readNodes("testdata")
	if err != nil {
		t.Fatal(err)
	}
	l, err := tr.readList("testdata", name)
	if err != nil {
		t.Fatal(err)
	}
	return tr, l
}

func TestReads(t *testing.T) {
	tr, l := sample(t, "sample")
	if len(tr.hosts) != 24 || tr.capacity() != 112_000 || len(l.pods) != 160 || !l.times {
		t.Errorf("%d nodes, %d thousandths, %d pods, times %v", len(tr.hosts), tr.capacity(), len(l.pods), l.times)
	}
	tr, l = sample(t, "five")
	if l.times || len(l.pods) != 3 || l.pods[1].shape != (packing.Shape{CPU: 8000, Memory: 8192, GPUs: 2, Share: 1000, Models: packing.Any}) {
		t.Errorf("a list of five columns reads as %+v", l.pods)
	}
	if got, want := tr.allowed("rare|small|none"), packing.Models(0b110); got != want {
		t.Errorf("models %b, want %b of %v", got, want, tr.models)
	}
	if tr.allowed("none") != 0 || tr.allowed("|") != packing.Any {
		t.Error("a specification of no known model, or of none, is misread")
	}
}

func TestRefuses(t *testing.T) {
	const header = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,creation_time,deletion_time\n"
	for _, c := range []struct{ name, text, want string }{
		{"missing column", "name,cpu_milli,num_gpu,gpu_milli\np,1,1,1000\n", "line 1: memory_mib: the column is missing"},
		{"negative", header + "p,1000,10,1,-500,,0,1\n", "line 2: gpu_milli: -500 is negative"},
		{"negative time", header + "p,1000,10,1,500,,-3,1\n", "line 2: creation_time: -3 is negative"},
		{"not a number", header + "p,1000,10,1,500,,0,1\nq,many,10,1,500,,0,1\n", `line 3: cpu_milli: "many" is not a number`},
		{"short row", header + "p,1000,10\n", "line 2: the row has 3 columns"},
		{"broken quotes", header + "\"p,1000,10,1,500,,0,1\n", "unreadable row"},
		{"ends before it begins", header + "p,1000,10,1,500,,9,5\n", "line 2: deletion_time: 5 is before its creation at 9"},
		{"shares of several devices", header + "p,1000,10,2,500,,0,1\n", "line 2: gpu_milli: 2 devices are shared"},
		{"devices but none of them", header + "p,1000,10,1,0,,0,1\n", "line 2: gpu_milli: a pod with devices asks none"},
		{"too many devices", header + "p,1000,10,65,1000,,0,1\n", "line 2: num_gpu: 65 devices"},
		{"no pods", header, "the list is empty"},
		{"empty", "", "no header"},
	} {
		folder := t.TempDir()
		if err := os.WriteFile(filepath.Join(folder, "openb_pod_list_x.csv"), []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		tr, _ := sample(t, "five")
		_, err := tr.readList(folder, "x")
		if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "openb_pod_list_x.csv") {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	if _, err := readNodes(t.TempDir()); err == nil || !strings.Contains(err.Error(), nodeFile) {
		t.Errorf("a folder without nodes: %v", err)
	}
}
