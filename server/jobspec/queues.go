package jobspec

import (
	"fmt"
	"strings"

	pb "llmos/proto/llmos/v1"
)

// Bounds of a queue tree.
const (
	QueuesMax      = 10_000 // in one file or request
	QueueDepthMax  = 8      // levels below the root
	QueueWeightMax = 10_000
	QueueLimitsMax = 64 // resources with a quota, of one queue
	QueueNumberMax = 1_000_000_000
	quotaUnbounded = -1 // of borrow: no bound; of lend: all
)

// ParseQueues reads a queue file: the queues that `llmos queue apply` sets.
//
//	queues:
//	  - name: vision
//	    weight: 3                  # its part of what nobody is guaranteed; default 1
//	    quota:                     # guaranteed; what is not named is neither guaranteed nor bounded
//	      gpu: 16                  # devices of any model; siblings may lend it more while they do not use theirs
//	      gpu:H100-80GB: {nominal: 8, borrow: 4, lend: none}   # borrow: any (default), none or an amount; lend: all (default), none or an amount
//	      cpu: 256                 # cores
//	      memory: 2Ti
//	    running_max: 20            # jobs running at a time; pending_max: waiting
//	    user_running_max: 4        # of one user
//	    user_gpus_max: 8           # devices held by one user
//	    priority_max: high         # of its jobs
//	    children:                  # queues below it, with names such as vision/detection
//	      - name: detection
//
// A queue may also stand at the top under its whole name, vision/detection, when its parent
// is in the file or exists. The error is of type Faults, with all faults and their lines.
func ParseQueues(name string, src []byte) ([]*pb.Queue, error) {
	d := &decoder{file: name, lines: map[string]int{}}
	root := d.tree(src)
	if root == nil {
		return nil, d.result()
	}
	q := &queueDecoder{decoder: d}
	q.file(root)
	q.check()
	if err := d.result(); err != nil {
		return nil, err
	}
	return q.queues, nil
}

// queueDecoder reads a queue file with the readers of job files.
type queueDecoder struct {
	*decoder
	queues []*pb.Queue
	fields []string // where each queue stands
}

func (q *queueDecoder) file(root *node) {
	if root.shape == mapping {
		q.mapping(root, "", []rule{{"queues", func(n *node, field string) { q.list(n, field, "", 1) }}})
		if len(q.queues) == 0 && len(q.faults) == 0 {
			q.add("queues", root.line, "the file lists no queue").Hint("begin with `queues:` and every queue with `- name:`")
		}
		return
	}
	q.add("", root.line, "a queue file is a mapping with the field queues, not %s", root.shape).Hint("begin with `queues:` and every queue with `- name:`")
}

func (q *queueDecoder) list(n *node, field, parent string, depth int) {
	if n.shape != list {
		q.wrong(n, field, "a list of queues").Hint("begin every queue with `- name:`")
		return
	}
	if depth > QueueDepthMax {
		q.add(field, n.line, "the queues are nested more than %d levels deep", QueueDepthMax)
		return
	}
	for i, item := range n.items {
		at := fmt.Sprintf("%s[%d]", field, i)
		q.lines[at] = item.line
		if item.shape != mapping {
			q.wrong(item, at, "a mapping of a queue's fields").Hint("begin it with `- name:`")
			continue
		}
		if len(q.queues) >= QueuesMax {
			q.add(at, item.line, "the file has more than %d queues", QueuesMax)
			return
		}
		q.queue(item, at, parent, depth)
	}
}

func (q *queueDecoder) queue(n *node, at, parent string, depth int) {
	record := &pb.Queue{Weight: 1, Parent: parent}
	var children *node
	q.queues, q.fields = append(q.queues, record), append(q.fields, at)
	q.mapping(n, at+".", []rule{
		{"name", q.text(&record.Name)},
		{"weight", q.integer(&record.Weight)},
		{"quota", func(n *node, field string) { q.quota(n, field, record) }},
		{"running_max", q.integer(&record.RunningMax)},
		{"pending_max", q.integer(&record.PendingMax)},
		{"user_running_max", q.integer(&record.UserRunningMax)},
		{"user_gpus_max", q.amount(&record.UserGpuMilliMax, parseDevices)},
		{"priority_max", func(n *node, field string) { q.priority(n, field, &record.PriorityMax) }},
		{"parent", func(n *node, field string) {
			q.add(field, n.line, "a queue does not name its parent").Hint("write it below the parent's `children`, or under its whole name, such as vision/detection")
		}},
		{"children", func(n *node, _ string) { children = n }},
	})
	if parent != "" && record.Name != "" {
		if strings.HasPrefix(record.Name, parent+"/") {
			record.Name = strings.TrimPrefix(record.Name, parent+"/")
		}
		record.Name = parent + "/" + record.Name
	} else if i := strings.LastIndexByte(record.Name, '/'); i > 0 {
		record.Parent = record.Name[:i]
	}
	if children != nil {
		q.list(children, at+".children", record.Name, depth+1)
	}
}

// quota reads the guaranteed amounts, by resource.
func (q *queueDecoder) quota(n *node, field string, record *pb.Queue) {
	if n.shape != mapping {
		q.wrong(n, field, "a mapping such as {gpu: 16, cpu: 128, memory: 1Ti}")
		return
	}
	for _, e := range n.fields {
		at := field + "." + e.key
		q.lines[at] = e.line
		parse := quotaParser(e.key)
		if parse == nil {
			known := []string{"gpu", "cpu", "memory"}
			if near, _ := suggest(e.key, known); near != "" {
				q.add(at, e.line, "there is no resource %s; did you mean `%s`?", quoted(e.key), near)
			} else {
				q.add(at, e.line, "there is no resource %s", quoted(e.key)).Hint("a quota is of gpu, gpu:MODEL, cpu or memory")
			}
			continue
		}
		limit := &pb.QuotaLimit{Resource: e.key, Borrow: quotaUnbounded, Lend: quotaUnbounded}
		record.Limits = append(record.Limits, limit)
		switch e.value.shape {
		case nothing:
			q.add(at, e.line, "the field has no value").Hint("write the amount, or remove the line")
		case mapping:
			q.mapping(e.value, at+".", []rule{
				{"nominal", q.amount(&limit.Nominal, orNothing(parse))},
				{"borrow", q.amount(&limit.Borrow, orWord(parse, "any"))},
				{"lend", q.amount(&limit.Lend, orWord(parse, "all"))},
			})
		default:
			q.amount(&limit.Nominal, orNothing(parse))(e.value, at)
		}
	}
}

// quotaParser gives what reads an amount of the resource; nil: there is no such resource.
func quotaParser(resource string) func(string) (int64, error) {
	switch model, ofModel := strings.CutPrefix(resource, "gpu:"); {
	case resource == "gpu", ofModel && model != "":
		return parseDevices
	case resource == "cpu":
		return ParseCPU
	case resource == "memory":
		return ParseBytes
	}
	return nil
}

// parseDevices reads a number of devices, such as 16 or 0.5, and gives thousandths.
func parseDevices(text string) (int64, error) {
	const hint = "write a number such as 16 or 0.5"
	n, ok := thousandths(text)
	if !ok {
		return 0, invalid("%s is not a number of devices", quoted(text)).Hint(hint)
	}
	return positive(n, text, hint)
}

// orNothing also takes 0, which the parsers of jobs refuse.
func orNothing(parse func(string) (int64, error)) func(string) (int64, error) {
	return func(text string) (int64, error) {
		if text == "0" || text == "none" {
			return 0, nil
		}
		return parse(text)
	}
}

// orWord also takes none, and a word for no bound.
func orWord(parse func(string) (int64, error), unbounded string) func(string) (int64, error) {
	return func(text string) (int64, error) {
		if text == unbounded {
			return quotaUnbounded, nil
		}
		return orNothing(parse)(text)
	}
}

// check adds the faults of ValidateQueues in fields that were read without one.
func (q *queueDecoder) check() {
	for _, e := range queueFaults(q.queues) {
		i, field := e.index, q.fields[e.index]
		if e.field != "" {
			field += "." + e.field
		}
		if q.queues[i].Name == "" && q.covered(q.fields[i]+".name") || q.covered(field) {
			continue
		}
		q.faults = append(q.faults, e.fault.At(field, q.lineOf(field)))
	}
}
