package jobspec

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// decoder turns a tree into a spec and gathers faults.
type decoder struct {
	file     string
	faults   Faults
	lines    map[string]int // of the fields by path
	bad      []string       // paths that have a fault, so that Validate need not complain again
	short    bool           // the role's fields are at the top level
	source   []string       // the file's lines, to find columns
	inner    []string       // fields that are easily written one level too high
	spans    []span         // spans of devices, which become the counts of their roles
	relative []workdirAt    // working directories that were made absolute by the file's folder
}

// rule says how a field of a mapping is read.
type rule struct {
	name string
	read func(n *node, field string)
}

func (d *decoder) add(field string, line int, format string, args ...any) *fault.Error {
	e := invalid(format, args...).At(field, line)
	d.faults = append(d.faults, e)
	if field != "" {
		d.bad = append(d.bad, field)
	}
	return e
}

// at adds the fault of a Parse function at a field.
func (d *decoder) at(n *node, field string, err error) {
	e := fault.From(err)
	d.faults = append(d.faults, e.At(field, n.line))
	d.bad = append(d.bad, field)
}

// result sorts the faults by line and gives them as an error.
func (d *decoder) result() error {
	slices.SortStableFunc(d.faults, func(a, b *fault.Error) int { return int(a.Fault.Line) - int(b.Fault.Line) })
	return d.faults.err()
}

func (d *decoder) job(root *node) *pb.JobSpec {
	spec := &pb.JobSpec{Kind: pb.JobKind_JOB_KIND_BATCH, Priority: PriorityDefault}
	d.inner = resourceFields
	if root.shape != mapping {
		d.add("", root.line, "a job file is a mapping of fields, not %s", root.shape).Hint("a first job: `command: echo hello`")
		d.bad = append(d.bad, "name", "roles")
		return spec
	}
	d.short = !slices.ContainsFunc(root.fields, func(e entry) bool { return e.key == "roles" })
	role := &pb.RoleSpec{Name: RoleNameDefault, Count: 1}
	ofRole := d.roleRules(role)
	if !d.short {
		for i := range ofRole {
			ofRole[i].read = func(n *node, field string) {
				d.add(field, n.line, "the field belongs to a role, and the file lists roles").Hint("move it into an entry of roles")
			}
		}
	}
	rules := append(d.jobRules(spec), ofRole...)
	d.mapping(root, "", rules)
	if d.short && slices.ContainsFunc(root.fields, func(e entry) bool { return isRuleName(ofRole, e.key) }) {
		spec.Roles = []*pb.RoleSpec{role}
	} else if d.short && len(d.bad) > 0 {
		d.bad = append(d.bad, "roles")
	}
	d.elastic()
	d.ofImages()
	if spec.Name == "" && !slices.Contains(d.bad, "name") {
		base := path.Base(strings.ReplaceAll(d.file, `\`, "/"))
		spec.GenerateName = nameFrom(strings.TrimSuffix(base, path.Ext(base)))
	}
	return spec
}

func isRuleName(rules []rule, name string) bool {
	return slices.ContainsFunc(rules, func(r rule) bool { return r.name == name })
}

// mapping reads the entries of n by the rules and complains about the others.
func (d *decoder) mapping(n *node, prefix string, rules []rule) {
	for _, e := range n.fields {
		field := prefix + e.key
		i := slices.IndexFunc(rules, func(r rule) bool { return r.name == e.key })
		if i < 0 {
			d.unknown(e, prefix, rules)
			continue
		}
		d.lines[field] = e.value.line
		if e.value.shape == nothing {
			d.add(field, e.line, "the field has no value").Hint("write one, or remove the line")
			continue
		}
		rules[i].read(e.value, field)
	}
}

func (d *decoder) unknown(e entry, prefix string, rules []rule) {
	known := make([]string, len(rules))
	for i, r := range rules {
		known[i] = r.name
	}
	field, hint := suggest(e.key, known)
	within, _ := suggest(e.key, d.inner)
	switch {
	case hint != "":
		d.add(prefix+e.key, e.line, "unknown field `%s`", e.key).Hint("%s", hint)
	case field != "":
		d.add(prefix+e.key, e.line, "unknown field `%s`; did you mean `%s`?", e.key, field)
		d.bad = append(d.bad, prefix+field)
	case within != "" && !slices.Contains(known, within):
		d.add(prefix+e.key, e.line, "unknown field `%s`; did you mean `resources: {%s: ...}`?", e.key, within)
	default:
		d.add(prefix+e.key, e.line, "unknown field `%s`", e.key).Hint("the fields here are %s", strings.Join(known, ", "))
	}
}

func (d *decoder) jobRules(s *pb.JobSpec) []rule {
	rules := []rule{
		{"name", d.text(&s.Name)},
		{"kind", d.kind},
		{"queue", d.text(&s.Queue)},
		{"priority", func(n *node, field string) { d.priority(n, field, &s.Priority) }},
		{"retries", d.integer(&s.Retries)},
		{"lost_after", d.amount(&s.LostAfterMs, ParseDuration)},
		{"labels", d.texts(&s.Labels)},
		{"framework", d.framework(&s.Framework)},
		{"roles", func(n *node, field string) { d.roles(n, field, s) }},
	}
	return append(append(rules, d.timeRules(s)...), d.placeRules(s)...)
}

func (d *decoder) roleRules(r *pb.RoleSpec) []rule {
	return []rule{
		{"count", func(n *node, field string) { d.count(n, field, strings.TrimSuffix(field, "count")+"tasks", r) }},
		{"tasks", func(n *node, field string) { d.count(n, field, strings.TrimSuffix(field, "tasks")+"count", r) }},
		{"command", func(n *node, field string) { d.command(n, field, r) }},
		{"env", d.texts(&r.Env)},
		{"workdir", func(n *node, field string) { d.workdir(n, field, r) }},
		{"user", d.scalar(&r.User)},
		{"resources", func(n *node, field string) { d.resources(n, field, r) }},
		{"stop_signal", func(n *node, field string) {
			d.text(&r.StopSignal)(n, field)
			r.StopSignal = canonicalSignal(r.StopSignal)
		}},
		{"grace", d.amount(&r.GraceMs, ParseDuration)},
		{"ports", d.list(&r.Ports)},
		{"log_max", d.amount(&r.LogMaxBytes, ParseBytes)},
		{"idle_after", d.amount(&r.IdleAfterMs, ParseDuration)},
		{"image", d.text(&r.Image)},
		{"driver", d.text(&r.Driver)},
	}
}

// count reads count, or tasks, which says the same; twin is the field's other name.
func (d *decoder) count(n *node, field, twin string, r *pb.RoleSpec) {
	if line, both := d.lines[twin]; both {
		d.add(field, n.line, "%s on line %d says the same", twin[strings.LastIndexByte(twin, '.')+1:], line).Hint("keep one")
		return
	}
	d.countOrSpan(n, field, r)
	if prefix, ok := strings.CutSuffix(field, "tasks"); ok {
		d.lines[prefix+"count"] = n.line
	}
}

func (d *decoder) kind(n *node, field string) {
	var kind string
	d.text(&kind)(n, field)
	if kind != "batch" && n.shape == text {
		d.add(field, n.line, "%s is not supported by this version", kind).Hint("write batch, or leave kind out")
	}
}

func (d *decoder) roles(n *node, field string, s *pb.JobSpec) {
	if n.shape != list {
		d.wrong(n, field, "a list of roles").Hint("begin every role with `- name:`")
		return
	}
	if len(n.items) > RolesMax {
		d.add(field, n.line, "the job has %d roles, at most %d", len(n.items), RolesMax)
		return
	}
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", field, i)
		d.lines[at] = item.line
		role := &pb.RoleSpec{Count: 1}
		if len(n.items) == 1 {
			role.Name = RoleNameDefault
		}
		s.Roles = append(s.Roles, role)
		if item.shape != mapping {
			d.wrong(item, at, "a mapping of a role's fields")
			continue
		}
		d.mapping(item, at+".", append([]rule{{"name", d.text(&role.Name)}}, d.roleRules(role)...))
	}
}

func (d *decoder) command(n *node, field string, r *pb.RoleSpec) {
	switch n.shape {
	case text:
		if strings.TrimSpace(n.text) == "" {
			d.add(field, n.line, "the command is empty")
			return
		}
		r.Command = []string{"/bin/sh", "-c", n.text}
	case list:
		d.list(&r.Command)(n, field)
	default:
		d.wrong(n, field, "text that /bin/sh runs, or a list such as [python, train.py]")
	}
}

// workdir resolves a relative path against the job file's folder.
func (d *decoder) workdir(n *node, field string, r *pb.RoleSpec) {
	d.text(&r.Workdir)(n, field)
	switch {
	case r.Workdir == "" || path.IsAbs(r.Workdir):
	case strings.HasPrefix(r.Workdir, "~"):
		d.add(field, n.line, "%s: ~ is not known here, for the task may run as another user elsewhere", quoted(r.Workdir)).
			Hint("write the absolute path")
	case path.IsAbs(d.file):
		r.Workdir = path.Join(path.Dir(d.file), r.Workdir)
		d.relative = append(d.relative, workdirAt{role: r, field: field, line: n.line})
	default:
		d.add(field, n.line, "%s is relative, and the job file has no folder", quoted(r.Workdir)).Hint("write an absolute path")
	}
}

// validate adds what Validate finds in fields that were read without a fault.
func (d *decoder) validate(spec *pb.JobSpec) {
	c := &checker{}
	c.job(spec)
	for _, e := range c.faults {
		field := e.Fault.Field
		if d.short {
			field = strings.TrimPrefix(field, "roles[0].")
		}
		if d.covered(field) {
			continue
		}
		d.faults = append(d.faults, e.At(field, d.lineOf(field)))
	}
}

// covered reports whether a fault of the field, of what holds it, or of a neighbour among
// the same task's resources is known already.
func (d *decoder) covered(field string) bool {
	neighbours, _, inResources := strings.Cut(field, "resources.")
	for _, bad := range d.bad {
		if field == bad || strings.HasPrefix(field, bad+".") || strings.HasPrefix(field, bad+"[") {
			return true
		}
		if inResources && !strings.HasSuffix(field, ".gpus") && strings.HasPrefix(bad, neighbours+"resources.gpu") && strings.Contains(field, "resources.gpu") {
			return true
		}
	}
	return false
}

// lineOf gives the line of a field, or of the nearest that holds it.
func (d *decoder) lineOf(field string) int {
	for field != "" {
		if line, ok := d.lines[field]; ok {
			return line
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return 0
}
