package trace_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/server/trace"
)

func read(t *testing.T, name string) *trace.Trace {
	t.Helper()
	f, err := os.Open(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got, err := trace.Read(name, f)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// show writes a trace so that a difference is easy to read.
func show(t *trace.Trace) string {
	out := fmt.Sprintln(t.Format)
	for _, j := range t.Jobs {
		out += fmt.Sprintf("%s user=%s queue=%s submit=%d run=%d tasks=%d gpus=%d/%d cpu=%d memory=%d %v %s\n", j.Name, j.User, j.Queue, j.Submit,
			j.Duration, j.Tasks, j.GPUs, j.GPUMilli, j.CPUMilli, j.MemoryBytes, j.Models, j.State)
	}
	return out
}

func TestFormats(t *testing.T) {
	for name, want := range map[string]string{
		"philly.csv": `Philly
philly-2 user=bbbb queue=bbbb submit=0 run=3600000 tasks=2 gpus=8/1000 cpu=0 memory=0 [] 
philly-1 user=aaaa queue=aaaa submit=30000 run=66000 tasks=1 gpus=1/1000 cpu=0 memory=0 [] 
philly-3 user=aaaa queue=aaaa submit=60000 run=120500 tasks=3 gpus=4/1000 cpu=0 memory=0 [] 
philly-4 user=cccc queue=cccc submit=120000 run=1 tasks=1 gpus=4/1000 cpu=0 memory=0 [] 
`,
		"openb.csv": `openb
pod-0 user= queue= submit=0 run=990000 tasks=1 gpus=1/500 cpu=4000 memory=8589934592 [] 
pod-1 user= queue= submit=60000 run=300000 tasks=1 gpus=2/1000 cpu=8000 memory=17179869184 [T4 V100M16] 
pod-2 user= queue= submit=120000 run=1 tasks=1 gpus=0/0 cpu=2000 memory=4294967296 [] 
`,
		"pollux.csv": `Pollux
cifar10-0 user=cifar10 queue= submit=107000 run=812500 tasks=6 gpus=1/1000 cpu=0 memory=0 [] 
ncf-1 user=ncf queue= submit=135000 run=60000 tasks=1 gpus=1/1000 cpu=0 memory=0 [] 
`,
		"history.csv": `llmos history
train-1 user=ann queue=vision submit=0 run=90000 tasks=4 gpus=8/1000 cpu=16000 memory=34359738368 [H100-80GB] succeeded
share-1 user=bob queue=default submit=30000 run=10000 tasks=1 gpus=1/250 cpu=1000 memory=1073741824 [] failed
`,
	} {
		if got := show(read(t, name)); got != want {
			t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
		}
	}
}

// What is exported is read back the same, as lines of JSON and as CSV.
func TestHistoryIsReadBack(t *testing.T) {
	records := []trace.Record{
		{ID: "train-1", User: "ann", Queue: "vision", Submit: 1.7e9, Start: 1.7e9 + 5.25, End: 1.7e9 + 105.25, Run: 90, Tasks: 4, GPUs: 8,
			CPUMilli: 16000, MemoryBytes: 32 << 30, Model: "A|B", State: "succeeded", Attempts: 2},
		{ID: "never-1", User: "b,ob \"x\"", Submit: 1.7e9, End: 1.7e9 + 1, Tasks: 1, State: "cancelled"},
		{ID: "share-1", User: "b,ob \"x\"", Submit: 1.7e9 + 7, Start: 1.7e9 + 8, End: 1.7e9 + 9.5, Tasks: 1, GPUs: 1, Share: 250, State: "failed"},
	}
	var lines, table bytes.Buffer
	if err := errors.Join(trace.WriteHistory(&lines, records, false), trace.WriteHistory(&table, records, true)); err != nil {
		t.Fatal(err)
	}
	a, errA := trace.Read("lines", &lines)
	b, errB := trace.Read("table", &table)
	if errA != nil || errB != nil {
		t.Fatal(errA, errB)
	}
	if x, y := show(a), show(b); x != y || len(a.Jobs) != 2 {
		t.Errorf("as JSON\n%sas CSV\n%s", x, y)
	}
}

// Each refusal names the file, the line and the column, and says what to do.
func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		text, field string
		line        int32
		says        string
	}{
		{"", "", 1, "empty"},
		{"a,b\n1,2\n", "", 1, "no format that is known"},
		{"timestamp,num_gpus,cluster\n", "duration", 1, "missing"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,5,1,a\n2020-01-01 00:00:00,-5,1,a\n", "duration", 3, "negative"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,five,1,a\n", "duration", 2, "not a number"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,NaN,1,a\n", "duration", 2, "not a number"},
		{"timestamp,duration,num_gpus,cluster\nyesterday,5,1,a\n", "timestamp", 2, "not a time"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,5,1.5,a\n", "num_gpus", 2, "whole"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,5,1\n", "", 2, "3 fields"},
		{"timestamp,duration,num_gpus,cluster\n2020-01-01 00:00:00,5,\"1,a\n", "", 2, "CSV"},
		{"timestamp,timestamp,num_gpus,cluster\n", "timestamp", 1, "twice"},
		{"name,cpu_milli,memory_mib,num_gpu,gpu_milli\n", "creation_time", 1, "missing"},
		{"name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\np,1,1,1,1000,9,3\n", "deletion_time", 2, "before it is created"},
		{"name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\np,1,1,2,500,3,9\n", "gpu_milli", 2, "2 devices"},
		{"name,cpu_milli,memory_mib,num_gpu,gpu_milli,creation_time,deletion_time\np,1,1,1,0,3,9\n", "gpu_milli", 2, "0 thousandths"},
		{"name,time,application,num_replicas,batch_size\nx,1,ncf,1,1\n", "duration", 1, "how long"},
		{"id,user,queue,submit,start,end,tasks,gpus\nj-1,a,q,10,5,20,1,1\n", "start", 2, "before it is submitted"},
		{"id,user,queue,submit,start,end,tasks,gpus\nj-1,a,q,10,15,12,1,1\n", "end", 2, "before it starts"},
		{"id,user,queue,submit,start,end,tasks,gpus\nj-1,a,q,-1,15,12,1,1\n", "submit", 2, "no time"},
		{"id,user,queue,submit,start,end,tasks,gpus\nj-1,a,q,1,2,3,0,1\n", "tasks", 2, "not possible"},
		{`{"id":"j-1","submit":1,"start":2,"end":3,"tasks":1}` + "\n" + `{"id":"j-2","submit":"x"}`, "submit", 2, "JSON"},
		{`{"id":"j-1"`, "", 1, "JSON"},
		{"timestamp,duration,num_gpus,cluster\n" + strings.Repeat("x", 1<<17), "", 2, "longer"},
	} {
		_, err := trace.Read("file.csv", strings.NewReader(c.text))
		var f *fault.Error
		if !errors.As(err, &f) {
			t.Errorf("%.60q: %v is no fault", c.text, err)
			continue
		}
		if f.Fault.Field != c.field || f.Fault.Line != c.line || !strings.Contains(f.Fault.Message, c.says) || !strings.HasPrefix(f.Fault.Message, "file.csv") {
			t.Errorf("%.60q: field %q line %d: %s", c.text, f.Fault.Field, f.Fault.Line, f.Fault.Message)
		}
		if f.Fault.Hint == "" || (f.Fault.Kind != pb.ErrorKind_ERROR_KIND_INVALID && f.Fault.Kind != pb.ErrorKind_ERROR_KIND_LIMIT) {
			t.Errorf("%.60q: kind %v, hint %q", c.text, f.Fault.Kind, f.Fault.Hint)
		}
	}
}

func TestNodes(t *testing.T) {
	f, err := os.Open("testdata/nodes.csv")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	nodes, err := trace.ReadNodes("nodes.csv", f)
	if err != nil || len(nodes) != 3 {
		t.Fatalf("%d nodes, %v", len(nodes), err)
	}
	if n := nodes[1]; n != (trace.Node{Name: "node-1", CPUMilli: 96000, MemoryBytes: 393216 << 20, GPUs: 8, Model: "V100M16"}) {
		t.Errorf("got %+v", n)
	}
	for factor, want := range map[float64]string{
		0.1: "[node-0]", 1: "[node-0 node-1 node-2]", 1.34: "[node-0 node-0+1 node-1 node-2]", 2: "[node-0 node-0+1 node-1 node-1+1 node-2 node-2+1]",
	} {
		var names []string
		for _, n := range trace.Scale(nodes, factor) {
			names = append(names, n.Name)
		}
		if got := fmt.Sprint(names); got != want {
			t.Errorf("%v times as large: %s, want %s", factor, got, want)
		}
	}
	if _, err := trace.ReadNodes("n", strings.NewReader("sn,cpu_milli,gpu,model\n")); err == nil || !strings.Contains(err.Error(), "memory_mib") {
		t.Errorf("a list without memory: %v", err)
	}
}

func TestShapes(t *testing.T) {
	nodes, err := trace.ParseShape("64x8xH100-80GB")
	if err != nil || len(nodes) != 64 || nodes[63].GPUs != 8 || nodes[0].Model != "H100-80GB" {
		t.Errorf("%d nodes, %v", len(nodes), err)
	}
	for _, text := range []string{"", "64", "0x8", "64x8x", "64x2000", "999999x8", "-1x8", "8 x 8", "64x8xbad model"} {
		if _, err := trace.ParseShape(text); err == nil || fault.From(err).Fault.Hint == "" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
