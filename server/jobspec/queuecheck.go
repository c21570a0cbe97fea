package jobspec

import (
	"fmt"
	"strings"

	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
)

// queueFault is a fault of one queue of a list.
type queueFault struct {
	index int
	field string
	fault *fault.Error
}

// ValidateQueues checks queues from anywhere, as far as they can be judged without those
// that exist: names, weights, amounts, and the shape of the tree that they make among
// themselves. The error is of type Faults.
func ValidateQueues(queues []*pb.Queue) error {
	if len(queues) > QueuesMax {
		return Faults{invalid("%d queues are given, at most %d", len(queues), QueuesMax)}
	}
	var faults Faults
	for _, e := range queueFaults(queues) {
		field := fmt.Sprintf("queues[%d]", e.index)
		if e.field != "" {
			field += "." + e.field
		}
		faults = append(faults, e.fault.At(field, 0))
	}
	return faults.err()
}

// queueChecker gathers the faults of a list of queues.
type queueChecker struct {
	queues   []*pb.Queue
	byName   map[string]int
	children map[string][]int // by the parent's name
	faults   []queueFault
}

func (c *queueChecker) add(index int, field, format string, args ...any) *fault.Error {
	e := invalid(format, args...)
	c.faults = append(c.faults, queueFault{index, field, e})
	return e
}

func queueFaults(queues []*pb.Queue) []queueFault {
	c := &queueChecker{queues: queues, byName: map[string]int{}, children: map[string][]int{}}
	for i, q := range queues {
		if q == nil {
			c.add(i, "", "the queue is empty")
			continue
		}
		c.name(i, q)
		c.numbers(i, q)
		c.limits(i, q)
	}
	for i, q := range queues {
		if q != nil {
			c.family(i, q)
		}
	}
	return c.faults
}

func (c *queueChecker) name(i int, q *pb.Queue) {
	if q.Name == "" {
		c.add(i, "name", "the queue has no name").Hint(nameHint)
		return
	}
	if !isQueueName(q.Name) {
		c.add(i, "name", "%s is not a queue's name", quoted(q.Name)).Hint(nameHint)
		return
	}
	parts := strings.Split(q.Name, "/")
	prefix := strings.Join(parts[:len(parts)-1], "/")
	_, taken := c.byName[q.Name]
	switch {
	case len(parts) > QueueDepthMax:
		c.add(i, "name", "%s is %d levels deep, at most %d", quoted(q.Name), len(parts), QueueDepthMax)
	case q.Parent != prefix:
		c.add(i, "name", "%s names another parent than %s", quoted(q.Name), quoted(q.Parent)).
			Hint("a queue's name begins with its parent's: %s/%s", q.Parent, parts[len(parts)-1])
	case taken:
		c.add(i, "name", "the queue %s is given twice", quoted(q.Name)).Hint("keep one")
	default:
		c.byName[q.Name] = i
		c.children[q.Parent] = append(c.children[q.Parent], i)
	}
}

func (c *queueChecker) numbers(i int, q *pb.Queue) {
	switch {
	case q.Weight == 0:
		c.add(i, "weight", "a weight of 0 would never get anything").Hint("use a number from 1 to %d; to stop a queue, remove it or set running_max", QueueWeightMax)
	case q.Weight < 0 || q.Weight > QueueWeightMax:
		c.add(i, "weight", "%d is out of range", q.Weight).Hint("use a number from 1 to %d", QueueWeightMax)
	}
	for _, n := range []struct {
		field string
		value int64
	}{{"running_max", int64(q.RunningMax)}, {"pending_max", int64(q.PendingMax)}, {"user_running_max", int64(q.UserRunningMax)}, {"user_gpus_max", q.UserGpuMilliMax / 1000}} {
		if n.value < 0 || n.value > QueueNumberMax {
			c.add(i, n.field, "%d is out of range", n.value).Hint("use a number of 1 or more, or leave it out for no bound")
		}
	}
	if q.PriorityMax < 0 || q.PriorityMax > PriorityMax {
		c.add(i, "priority_max", "%d is out of range", q.PriorityMax).Hint("use a number from 1 to %d, or leave it out for no bound", PriorityMax)
	}
}

func (c *queueChecker) limits(i int, q *pb.Queue) {
	if len(q.Limits) > QueueLimitsMax {
		c.add(i, "quota", "the queue has %d quotas, at most %d", len(q.Limits), QueueLimitsMax)
		return
	}
	seen := map[string]bool{}
	for _, l := range q.Limits {
		field := "quota." + l.GetResource()
		switch {
		case quotaParser(l.GetResource()) == nil || len(l.Resource) > LabelBytesMax:
			c.add(i, field, "there is no resource %s", quoted(l.GetResource())).Hint("a quota is of gpu, gpu:MODEL, cpu or memory")
		case seen[l.Resource]:
			c.add(i, field, "the quota of %s is given twice", l.Resource).Hint("keep one")
		case l.Nominal < 0 || l.Nominal > MemoryBytesMax:
			c.add(i, field, "%s is out of range", FormatQuota(l.Resource, l.Nominal)).Hint("use 0 or more")
		case l.Lend > l.Nominal:
			c.add(i, field+".lend", "the queue would lend %s and is guaranteed only %s", FormatQuota(l.Resource, l.Lend), FormatQuota(l.Resource, l.Nominal)).
				Hint("use at most the nominal amount, all, or none")
		}
		seen[l.GetResource()] = true
	}
}

// family holds a queue's children, as far as they are given, to its own quota.
func (c *queueChecker) family(i int, q *pb.Queue) {
	if at, known := c.byName[q.Name]; !known || at != i {
		return
	}
	for _, own := range q.Limits {
		sum := int64(0)
		for _, j := range c.children[q.Name] {
			l := LimitOf(c.queues[j], own.Resource)
			if l == nil || l.Nominal <= 0 {
				continue
			}
			if sum += l.Nominal; sum > own.Nominal {
				c.add(j, "quota."+own.Resource, "the queues below %s are guaranteed %s of %s up to this one, and it has only %s", q.Name,
					FormatQuota(own.Resource, sum), own.Resource, FormatQuota(own.Resource, own.Nominal)).
					Hint("lower it, or raise the quota of %s", q.Name)
				break
			}
		}
	}
}

// LimitOf gives the queue's limit of a resource; nil when it has none.
func LimitOf(q *pb.Queue, resource string) *pb.QuotaLimit {
	for _, l := range q.GetLimits() {
		if l.GetResource() == resource {
			return l
		}
	}
	return nil
}

// FormatQuota shows an amount of a quota in its unit: devices, cores or bytes.
func FormatQuota(resource string, amount int64) string {
	if resource == "memory" {
		return FormatBytes(amount)
	}
	return formatThousandths(amount)
}
