package jobspec

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// checker gathers the faults of a spec.
type checker struct{ faults Faults }

func (c *checker) add(field, format string, args ...any) *fault.Error {
	e := invalid(format, args...).At(field, 0)
	c.faults = append(c.faults, e)
	return e
}

// Validate checks a spec from anywhere: bounds, names, environment names, signal names. The
// error is of type Faults; the fields are named as in a job file with a list of roles. A
// spec without a kind is a batch job.
func Validate(spec *pb.JobSpec) error {
	c := &checker{}
	if spec == nil {
		c.add("", "there is no job spec")
		return c.faults.err()
	}
	c.job(spec)
	return c.faults.err()
}

func (c *checker) job(s *pb.JobSpec) {
	c.jobName(s)
	if s.Kind != pb.JobKind_JOB_KIND_UNSPECIFIED && s.Kind != pb.JobKind_JOB_KIND_BATCH {
		c.add("kind", "kind %d is not supported by this version", s.Kind).Hint("use batch")
	}
	if s.Queue != "" && !isQueueName(s.Queue) {
		c.add("queue", "%s is not a queue's name", quoted(s.Queue)).Hint(nameHint)
	}
	c.between("priority", int64(s.Priority), 0, PriorityMax)
	c.between("retries", int64(s.Retries), 0, RetriesMax)
	if s.LostAfterMs != 0 {
		c.duration("lost_after", s.LostAfterMs, LostAfterMSMin, LostAfterMSMax)
	}
	c.labels(s.Labels)
	c.framework(s)
	c.schedule(s)
	c.saving(s)
	c.placement(s.Placement)
	c.roles(s.Roles)
	if size := proto.Size(s); size > SpecBytesMax {
		c.add("", "the job is %d bytes long, at most %d", size, SpecBytesMax).
			Hint("put large values in a file and pass its path")
	}
}

func (c *checker) jobName(s *pb.JobSpec) {
	switch {
	case s.Name != "" && s.GenerateName != "":
		c.add("generate_name", "the job has a name and a generate_name").Hint("keep one")
	case s.Name == "" && s.GenerateName == "":
		c.add("name", "the job has no name").Hint("set name, or generate_name for a name that need not be unique")
	case s.Name != "" && !isName(s.Name):
		c.add("name", "%s is not a name", quoted(s.Name)).Hint(nameHint)
	case s.GenerateName != "" && !isName(s.GenerateName):
		c.add("generate_name", "%s is not a name", quoted(s.GenerateName)).Hint(nameHint)
	}
}

func (c *checker) labels(labels map[string]string) {
	if len(labels) > LabelsMax {
		c.add("labels", "the job has %d labels, at most %d", len(labels), LabelsMax)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		field := "labels." + name
		if !isLabelName(name) {
			c.add(field, "%s is not a label's name", quoted(name)).
				Hint("use letters, digits and . _ - /, beginning with a letter or digit, at most %d", LabelBytesMax)
		}
		c.text(field, labels[name], LabelBytesMax)
	}
}

func (c *checker) roles(roles []*pb.RoleSpec) {
	if len(roles) == 0 {
		c.add("roles", "the job has no role, so nothing to run").Hint("write command: [program, argument], or a list of roles")
		return
	}
	if len(roles) > RolesMax {
		c.add("roles", "the job has %d roles, at most %d", len(roles), RolesMax)
		return
	}
	seen := map[string]int{}
	tasks := int64(0)
	for i, r := range roles {
		path := fmt.Sprintf("roles[%d]", i)
		if r == nil {
			c.add(path, "the role is empty")
			continue
		}
		switch first, taken := seen[r.Name]; {
		case r.Name == "":
			c.add(path+".name", "the role has no name").Hint("roles are told apart by their names, such as worker and ps")
		case !isName(r.Name):
			c.add(path+".name", "%s is not a name", quoted(r.Name)).Hint(nameHint)
		case taken:
			c.add(path+".name", "the name %s is taken by roles[%d]", quoted(r.Name), first).Hint("give every role another name")
		default:
			seen[r.Name] = i
		}
		if r.Count < 1 {
			c.add(path+".count", "the role has %d tasks, at least 1", r.Count)
		} else {
			tasks += int64(r.Count)
			c.span(path, r)
		}
		c.role(path, r)
	}
	if tasks > TasksMax {
		field := "roles"
		if len(roles) == 1 {
			field = "roles[0].count"
		}
		c.add(field, "the job has %d tasks, at most %d", tasks, TasksMax)
	}
}

func (c *checker) role(path string, r *pb.RoleSpec) {
	c.command(path, r)
	c.env(path+".env", r.Env)
	switch {
	case r.Workdir == "":
	case !strings.HasPrefix(r.Workdir, "/"):
		c.add(path+".workdir", "%s is not an absolute path", quoted(r.Workdir)).Hint("begin it with /")
	default:
		c.text(path+".workdir", r.Workdir, PathBytesMax)
	}
	if r.User != "" && !isUser(r.User) {
		c.add(path+".user", "%s is not a user's name or number", quoted(r.User)).Hint("write the name of a user of the nodes, such as train, or a number such as 1000")
	}
	if r.StopSignal != "" && !slices.Contains(stopSignals, r.StopSignal) {
		c.add(path+".stop_signal", "%s is not a signal to stop with", quoted(r.StopSignal)).Hint("use one of %s", strings.Join(stopSignals, ", "))
	}
	if r.GraceMs != 0 {
		c.duration(path+".grace", r.GraceMs, 1, GraceMSMax)
	}
	c.ports(path+".ports", r.Ports)
	if r.LogMaxBytes != 0 {
		c.bytes(path+".log_max", r.LogMaxBytes, LogBytesMin, LogBytesMax)
	}
	if r.IdleAfterMs != 0 {
		c.duration(path+".idle_after", r.IdleAfterMs, IdleAfterMSMin, IdleAfterMSMax)
	}
	c.driver(path, r)
	if r.Resources != nil {
		c.resources(path+".resources", r.Resources)
	}
}

func (c *checker) command(path string, r *pb.RoleSpec) {
	field := path + ".command"
	if len(r.Command) == 0 && r.Image != "" {
		return // the image says what it runs
	}
	if len(r.Command) == 0 || r.Command[0] == "" {
		c.add(field, "the role has no command").Hint("write a list such as [python, train.py], or text that /bin/sh runs")
		return
	}
	if len(r.Command) > CommandArgsMax {
		c.add(field, "the command has %d arguments, at most %d", len(r.Command), CommandArgsMax)
		return
	}
	for i, arg := range r.Command {
		c.text(fmt.Sprintf("%s[%d]", field, i), arg, ArgBytesMax)
	}
	program := r.Command[0]
	if r.Workdir == "" && r.Image == "" && strings.Contains(program, "/") && !strings.HasPrefix(program, "/") {
		c.add(field, "%s is relative to a working directory, and the task has none", quoted(program)).
			Hint("set workdir, or write the program's absolute path")
	}
}

func (c *checker) env(path string, env map[string]string) {
	if len(env) > EnvMax {
		c.add(path, "the role has %d variables, at most %d", len(env), EnvMax)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		field := path + "." + name
		switch {
		case !isEnvName(name):
			c.add(field, "%s is not a variable's name", quoted(name)).
				Hint("use letters, digits and _, not beginning with a digit, at most %d", EnvNameBytesMax)
		case strings.HasPrefix(name, "LLMOS_") || slices.Contains(reservedEnv, name):
			c.add(field, "%s is set by llmos and cannot be set by a job", name).Hint("choose another name")
		}
		c.text(field, env[name], EnvValueBytesMax)
	}
}

func (c *checker) ports(path string, ports []string) {
	if len(ports) > PortsMax {
		c.add(path, "the role has %d ports, at most %d", len(ports), PortsMax)
		return
	}
	seen := map[string]int{}
	for i, name := range ports {
		field := fmt.Sprintf("%s[%d]", path, i)
		first, taken := seen[name]
		switch {
		case !isName(name):
			c.add(field, "%s is not a port's name", quoted(name)).Hint("a port is asked for by a name such as http; llmos chooses its number. " + nameHint)
		case taken:
			c.add(field, "the name %s is taken by ports[%d]", quoted(name), first)
		default:
			seen[name] = i
		}
	}
}

func (c *checker) resources(path string, r *pb.Resources) {
	c.between(path+".cpu", r.CpuMilli, 0, CPUMilliMax)
	if r.MemoryBytes != 0 {
		c.bytes(path+".memory", r.MemoryBytes, MemoryBytesMin, MemoryBytesMax)
	}
	c.between(path+".gpus", int64(r.Gpus), 0, GPUsMax)
	c.between(path+".gpu_share", int64(r.GpuShareMilli), 0, 999)
	if r.GpuMemoryBytes != 0 {
		c.bytes(path+".gpu_memory", r.GpuMemoryBytes, MemoryBytesMin, MemoryBytesMax)
	}
	if r.DiskBytes != 0 {
		c.bytes(path+".disk", r.DiskBytes, MemoryBytesMin, MemoryBytesMax)
	}
	c.between(path+".pids", int64(r.Pids), 0, PIDsMax)
	c.devices(path, r)
}

func (c *checker) between(field string, value, low, high int64) {
	switch {
	case value < 0 && low == 0:
		c.add(field, "%d is negative", value).Hint("use a number from %d to %d", low, high)
	case value < low || value > high:
		c.add(field, "%d is out of range", value).Hint("use a number from %d to %d", low, high)
	}
}

func (c *checker) duration(field string, ms, low, high int64) {
	if ms < low || ms > high {
		c.add(field, "%s is out of range", FormatDuration(ms)).Hint("use a duration from %s to %s", FormatDuration(low), FormatDuration(high))
	}
}

func (c *checker) bytes(field string, value, low, high int64) {
	switch {
	case value < 0:
		c.add(field, "%d bytes is negative", value)
	case value < low:
		c.add(field, "%d bytes is too little, at least %s", value, FormatBytes(low)).Hint("a number alone counts bytes; write a unit, such as 512Mi")
	case value > high:
		c.add(field, "%s is too much, at most %s", FormatBytes(value), FormatBytes(high))
	}
}

// text checks a string that becomes an argument, a variable or a path of a process.
func (c *checker) text(field, value string, most int) {
	switch {
	case len(value) > most:
		c.add(field, "the text is %d bytes long, at most %d", len(value), most)
	case !utf8.ValidString(value):
		c.add(field, "the text is not UTF-8")
	case strings.ContainsRune(value, 0):
		c.add(field, "the text holds a zero byte, which no process can be given")
	}
}
