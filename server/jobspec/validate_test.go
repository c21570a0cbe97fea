package jobspec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	pb "llmos/proto/llmos/v1"
)

// indentJSON writes raw with fixed spacing; protojson varies it on purpose.
func indentJSON(b *strings.Builder, raw []byte) {
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		b.WriteString(err.Error())
		return
	}
	b.Write(out.Bytes())
	b.WriteByte('\n')
}

func good() *pb.JobSpec {
	return &pb.JobSpec{Name: "a", Roles: []*pb.RoleSpec{{Name: "worker", Count: 1, Command: []string{"true"}}}}
}

func TestValidate(t *testing.T) {
	if err := Validate(good()); err != nil {
		t.Fatalf("a plain spec: %v", err)
	}
	role := func(change func(r *pb.RoleSpec)) func(*pb.JobSpec) {
		return func(s *pb.JobSpec) { change(s.Roles[0]) }
	}
	res := func(r *pb.Resources) func(*pb.JobSpec) {
		return role(func(role *pb.RoleSpec) { role.Resources = r })
	}
	cases := []struct {
		want   string
		change func(*pb.JobSpec)
	}{
		{"name: the job has no name", func(s *pb.JobSpec) { s.Name = "" }},
		{"generate_name: the job has a name and a generate_name", func(s *pb.JobSpec) { s.GenerateName = "b" }},
		{`name: "A" is not a name`, func(s *pb.JobSpec) { s.Name = "A" }},
		{"kind: kind 7 is not supported", func(s *pb.JobSpec) { s.Kind = 7 }},
		{`queue: "a//b" is not a queue's name`, func(s *pb.JobSpec) { s.Queue = "a//b" }},
		{"priority: -1 is negative", func(s *pb.JobSpec) { s.Priority = -1 }},
		{"retries: 1001 is out of range", func(s *pb.JobSpec) { s.Retries = 1001 }},
		{"lost_after: 1ms is out of range", func(s *pb.JobSpec) { s.LostAfterMs = 1 }},
		{`labels.-: "-" is not a label's name`, func(s *pb.JobSpec) { s.Labels = map[string]string{"-": ""} }},
		{"roles: the job has no role", func(s *pb.JobSpec) { s.Roles = nil }},
		{"roles[1]: the role is empty", func(s *pb.JobSpec) { s.Roles = append(s.Roles, nil) }},
		{`roles[1].name: the name "worker" is taken by roles[0]`, func(s *pb.JobSpec) { s.Roles = append(s.Roles, s.Roles[0]) }},
		{"roles[0].count: the role has 0 tasks", role(func(r *pb.RoleSpec) { r.Count = 0 })},
		{"roles[0].count: the job has 5000 tasks, at most 4096", role(func(r *pb.RoleSpec) { r.Count = 5000 })},
		{"roles[0].command: the role has no command", role(func(r *pb.RoleSpec) { r.Command = nil })},
		{"roles[0].command[1]: the text holds a zero byte", role(func(r *pb.RoleSpec) { r.Command = []string{"a", "b\x00"} })},
		{"roles[0].command: \"./a\" is relative", role(func(r *pb.RoleSpec) { r.Command = []string{"./a"} })},
		{"roles[0].env.1A: \"1A\" is not a variable's name", role(func(r *pb.RoleSpec) { r.Env = map[string]string{"1A": ""} })},
		{"roles[0].env.RANK: RANK is set by llmos", role(func(r *pb.RoleSpec) { r.Env = map[string]string{"RANK": "0"} })},
		{"roles[0].workdir: \"here\" is not an absolute path", role(func(r *pb.RoleSpec) { r.Workdir = "here" })},
		{`roles[0].user: "no one" is not a user's name`, role(func(r *pb.RoleSpec) { r.User = "no one" })},
		{`roles[0].stop_signal: "TERM" is not a signal to stop with`, role(func(r *pb.RoleSpec) { r.StopSignal = "TERM" })},
		{"roles[0].grace: -1ms is out of range", role(func(r *pb.RoleSpec) { r.GraceMs = -1 })},
		{`roles[0].ports[1]: the name "a" is taken by ports[0]`, role(func(r *pb.RoleSpec) { r.Ports = []string{"a", "a"} })},
		{`roles[0].ports[0]: "80" is not a port's name`, role(func(r *pb.RoleSpec) { r.Ports = []string{"80"} })},
		{"roles[0].log_max: 1 bytes is too little", role(func(r *pb.RoleSpec) { r.LogMaxBytes = 1 })},
		{"roles[0].resources.cpu: -5 is negative", res(&pb.Resources{CpuMilli: -5})},
		{"roles[0].resources.memory: 512 bytes is too little", res(&pb.Resources{MemoryBytes: 512})},
		{"roles[0].resources.gpus: 2000 is out of range", res(&pb.Resources{Gpus: 2000})},
		{"roles[0].resources.gpu_share: a share is of one device, and the task asks for 2", res(&pb.Resources{Gpus: 2, GpuShareMilli: 5})},
		{"roles[0].resources.gpu_model: the task asks for a device model and for no device", res(&pb.Resources{GpuModel: "X"})},
		{"roles[0].resources.gpu_memory: the task asks for device memory and for no device", res(&pb.Resources{GpuMemoryBytes: 1 << 30})},
		{"the job is", func(s *pb.JobSpec) {
			arg := strings.Repeat("x", ArgBytesMax)
			s.Roles[0].Command = append([]string{"echo"}, arg, arg, arg, arg, arg, arg, arg, arg, arg)
		}},
	}
	for _, c := range cases {
		spec := proto.Clone(good()).(*pb.JobSpec)
		c.change(spec)
		err := Validate(spec)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want %q", err, c.want)
		}
		if faults, ok := err.(Faults); ok && len(faults) != 1 {
			t.Errorf("%q: %d faults, want one: %v", c.want, len(faults), err)
		}
	}
	if err := Validate(nil); err == nil {
		t.Error("no spec validates")
	}
}

// TestWrittenSpecsValidate draws job files of the grammar and holds Parse and Validate to agree.
func TestWrittenSpecsValidate(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z]([a-z0-9-]{0,8}[a-z0-9])?`)
		var b strings.Builder
		fmt.Fprintf(&b, "name: %q\npriority: %d\nretries: %d\nroles:\n", name.Draw(t, "name"),
			rapid.IntRange(0, PriorityMax).Draw(t, "priority"), rapid.IntRange(0, RetriesMax).Draw(t, "retries"))
		roles := rapid.SliceOfNDistinct(name, 1, 5, rapid.ID).Draw(t, "roles")
		counts := make([]int, len(roles))
		for i, role := range roles {
			counts[i] = rapid.IntRange(1, 100).Draw(t, "count")
			fmt.Fprintf(&b, "  - name: %q\n    count: %d\n    command: [%q]\n    env: {A: %q}\n    resources: {cpu: %d.%03d, memory: %dMi}\n",
				role, counts[i], rapid.StringMatching(`[a-z]{1,9}`).Draw(t, "command"), rapid.StringMatching(`[ -~]{0,20}`).Draw(t, "value"),
				rapid.IntRange(0, 64).Draw(t, "cores"), rapid.IntRange(1, 999).Draw(t, "milli"), rapid.IntRange(1, 1<<20).Draw(t, "memory"))
		}
		spec, err := Parse("/x.yaml", []byte(b.String()))
		if err != nil {
			t.Fatalf("%s\n%v", b.String(), err)
		}
		if err := Validate(spec); err != nil {
			t.Fatalf("%s\n%v", b.String(), err)
		}
		for i, role := range spec.Roles {
			if role.Name != roles[i] || int(role.Count) != counts[i] {
				t.Fatalf("role %d is %v", i, role)
			}
		}
	})
}

func TestUnits(t *testing.T) {
	cases := []struct {
		read func(string) (int64, error)
		text string
		want int64
		says string
	}{
		{ParseCPU, "2", 2000, ""}, {ParseCPU, "0.5", 500, ""}, {ParseCPU, "500m", 500, ""}, {ParseCPU, ".25", 250, ""},
		{ParseCPU, "0.0001", 0, "not an amount"}, {ParseCPU, "2 cores", 0, "not an amount"}, {ParseCPU, "-1", 0, "negative"},
		{ParseCPU, "0", 0, "nothing"}, {ParseCPU, "1e3", 0, "not an amount"}, {ParseCPU, "", 0, "not an amount"}, {ParseCPU, "99999999999999999999", 0, "not"},
		{ParseBytes, "4Gi", 4 << 30, ""}, {ParseBytes, "512Mi", 512 << 20, ""}, {ParseBytes, "1G", 1e9, ""}, {ParseBytes, "1.5Gi", 3 << 29, ""},
		{ParseBytes, "10 GB", 1e10, ""}, {ParseBytes, "1048576", 1 << 20, ""},
		{ParseBytes, "10 GBs", 0, "write 10GB"}, {ParseBytes, "4g", 0, "write 4G"}, {ParseBytes, "512m", 0, "write 512M"},
		{ParseBytes, "1 gigabyte", 0, "powers of 1000"}, {ParseBytes, "-1Gi", 0, "negative"}, {ParseBytes, "9999999999Ti", 0, "too much"},
		{ParseBytes, "Gi", 0, "not an amount"}, {ParseBytes, "", 0, "not an amount"},
		{ParseShare, "0.25", 250, ""}, {ParseShare, "1", 0, "whole device"}, {ParseShare, "25%", 0, "not a share"}, {ParseShare, "0", 0, "out of range"},
		{ParseShare, "2", 0, "out of range"}, {ParseShare, "0.0005", 0, "not a share"},
		{ParseDuration, "90s", 90_000, ""}, {ParseDuration, "1h30m", 5_400_000, ""}, {ParseDuration, "2d", 172_800_000, ""},
		{ParseDuration, "60", 0, "write 60s"}, {ParseDuration, "1us", 0, "less than a millisecond"}, {ParseDuration, "-5s", 0, "negative"},
		{ParseDuration, "soon", 0, "not a duration"}, {ParseDuration, "0s", 0, "nothing"},
	}
	for _, c := range cases {
		got, err := c.read(c.text)
		if got != c.want || (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%q: got %d, %v; want %d, %q", c.text, got, err, c.want, c.says)
		}
	}
}

func TestFormats(t *testing.T) {
	for want, n := range map[string]int64{"4Gi": 4 << 30, "1.5Gi": 3 << 29, "512Mi": 512 << 20, "100": 100, "1Ti": 1 << 40} {
		if got := FormatBytes(n); got != want {
			t.Errorf("FormatBytes(%d) = %s, want %s", n, got, want)
		}
	}
	for want, n := range map[string]int64{"1m": 60_000, "1h": 3_600_000, "250ms": 250, "1h30m": 5_400_000, "0s": 0, "10m": 600_000} {
		if got := FormatDuration(n); got != want {
			t.Errorf("FormatDuration(%d) = %s, want %s", n, got, want)
		}
	}
}

func TestNameFor(t *testing.T) {
	for want, command := range map[string][]string{
		"train":     {"python", "-u", "/x/Train.py", "--lr", "3"},
		"echo":      {"/bin/echo", "hello"},
		"sh":        {"sh", "-c", "a && b"},
		"job":       {"42"},
		"my-tool-2": {"./my_tool 2"},
		"charlm":    {"charlm"},
	} {
		if got := NameFor(command); got != want {
			t.Errorf("NameFor(%q) = %q, want %q", command, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		name := NameFor(rapid.SliceOfN(rapid.String(), 0, 4).Draw(t, "command"))
		if !isName(name) {
			t.Fatalf("%q is not a name", name)
		}
	})
}

func TestSuggest(t *testing.T) {
	known := []string{"name", "count", "command", "env", "workdir", "resources", "retries"}
	for word, want := range map[string]string{"replcas": "count", "replicas": "count", "comand": "command", "nmae": "name",
		"working_dirs": "workdir", "xyz": "", "resource": "resources", "e": ""} {
		if got, _ := suggest(word, known); got != want {
			t.Errorf("suggest(%q) = %q, want %q", word, got, want)
		}
	}
}
