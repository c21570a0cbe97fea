package jobspec

import (
	"strconv"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// resourceFields are the fields of resources, in the order of the documentation.
var resourceFields = []string{"cpu", "memory", "gpus", "gpu_share", "gpu_memory", "gpu_model", "mig", "numa", "disk", "pids"}

// span is a number of devices such as 2..8, which stands for as many tasks of one device.
type span struct {
	role     *pb.RoleSpec
	field    string // of the resources
	line     int
	min, max int32
}

func (d *decoder) resources(n *node, field string, r *pb.RoleSpec) {
	if n.shape != mapping {
		d.wrong(n, field, "a mapping such as {cpu: 2, memory: 4Gi, gpus: 1}")
		return
	}
	res := &pb.Resources{}
	var share int64
	d.mapping(n, field+".", []rule{
		{"cpu", d.amount(&res.CpuMilli, ParseCPU)},
		{"memory", d.amount(&res.MemoryBytes, ParseBytes)},
		{"gpus", func(n *node, field string) { d.gpus(n, field, r, res) }},
		{"gpu_share", d.amount(&share, ParseShare)},
		{"gpu_memory", d.amount(&res.GpuMemoryBytes, ParseBytes)},
		{"gpu_model", func(n *node, field string) { d.models(n, field, res) }},
		{"mig", d.text(&res.MigProfile)},
		{"numa", d.boolean(&res.Numa)},
		{"disk", d.amount(&res.DiskBytes, ParseBytes)},
		{"pids", d.integer(&res.Pids)},
	})
	res.GpuShareMilli = int32(share)
	if _, given := d.lines[field+".gpus"]; (share > 0 || res.MigProfile != "") && !given {
		res.Gpus = 1
	}
	r.Resources = res
}

// gpus reads a number, or a span that makes the role elastic.
func (d *decoder) gpus(n *node, field string, r *pb.RoleSpec, res *pb.Resources) {
	if n.shape != text || !strings.Contains(n.text, "..") {
		d.integer(&res.Gpus)(n, field)
		return
	}
	low, high, err := ParseSpan(n.text)
	if err != nil {
		d.at(n, field, err)
		return
	}
	res.Gpus = 1
	d.spans = append(d.spans, span{role: r, field: field, line: n.line, min: low, max: high})
}

// elastic makes the counts of roles from spans of devices, once all fields are known.
func (d *decoder) elastic() {
	for _, s := range d.spans {
		prefix := strings.TrimSuffix(s.field, "resources.gpus")
		if line, given := d.lines[prefix+"count"]; given {
			d.add(s.field, s.line, "%d..%d is short for as many tasks of one GPU each, and line %d gives the count", s.min, s.max, line).
				Hint("write count: %d..%d and gpus: 1, or leave count out", s.min, s.max)
			continue
		}
		s.role.CountMin, s.role.Count = s.min, s.max
		if s.min == s.max {
			s.role.CountMin = 0
		}
	}
}

// countOrSpan reads 4, or 2..8 of an elastic role.
func (d *decoder) countOrSpan(n *node, field string, r *pb.RoleSpec) {
	if n.shape != text || !strings.Contains(n.text, "..") {
		d.integer(&r.Count)(n, field)
		return
	}
	low, high, err := ParseSpan(n.text)
	if err != nil {
		d.at(n, field, err)
		return
	}
	if r.CountMin, r.Count = low, high; low == high {
		r.CountMin = 0
	}
}

// ParseSpan reads numbers such as 2..8, or one alone, and gives the least and the most.
func ParseSpan(text string) (low, high int32, err error) {
	const hint = "write the least and the most, such as 2..8"
	first, last, two := strings.Cut(strings.TrimSpace(text), "..")
	if !two {
		last = first
	}
	a, errA := strconv.ParseInt(strings.TrimSpace(first), 10, 32)
	b, errB := strconv.ParseInt(strings.TrimSpace(last), 10, 32)
	switch {
	case errA != nil || errB != nil:
		return 0, 0, invalid("%s is not a number or a span of numbers", quoted(text)).Hint(hint)
	case two && a < 1:
		return 0, 0, invalid("the span %s begins below 1", text).Hint(hint)
	case a > b:
		return 0, 0, invalid("the span %s ends before it begins", text).Hint("write %d..%d", b, a)
	}
	return int32(a), int32(b), nil
}

// models reads one device model, several with | between them, or a list.
func (d *decoder) models(n *node, field string, res *pb.Resources) {
	var models []string
	if n.shape == list {
		d.list(&models)(n, field)
	} else {
		var one string
		d.text(&one)(n, field)
		models = strings.Split(one, "|")
	}
	SetModels(res, models)
}

// SetModels puts the models that a task may run on into its resources: one into gpu_model,
// several into gpu_models.
func SetModels(res *pb.Resources, models []string) {
	for i := range models {
		models[i] = strings.TrimSpace(models[i])
	}
	if len(models) == 1 {
		res.GpuModel = models[0]
		return
	}
	res.GpuModels = models
}
