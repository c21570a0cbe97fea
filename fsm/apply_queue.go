package fsm

import (
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The bounds of the queue tree.
const (
	queuesMax      = 1000
	queueDepthMax  = 8
	queueWeightMax = 10_000
	queueLimitsMax = 32 // of a queue
)

// setQueues changes the queue tree. What would result is checked as a whole, and then written; a
// queue that stays as it was is not.
func (a *applier) setQueues(c *pb.SetQueues) *pb.Fault {
	if len(c.User) > state.IDBytesMax {
		return invalid("user", "the user's name is %d bytes long, at most %d", len(c.User), state.IDBytesMax)
	}
	if len(c.Queues) > queuesMax || len(c.Remove) > queuesMax {
		return limit("use fewer queues", "%d queues came at once, at most %d", max(len(c.Queues), len(c.Remove)), queuesMax)
	}
	tree := newQueueTree(a.txn.Queues())
	for i, q := range c.Queues {
		if f := tree.set(i, q); f != nil {
			return f
		}
	}
	for i, name := range c.Remove {
		if f := a.removable(tree, i, name); f != nil {
			return f
		}
		delete(tree.queues, name)
	}
	if f := tree.check(); f != nil {
		return f
	}
	if f := a.keepsJobs(tree); f != nil {
		return f
	}
	a.writeQueues(c, tree)
	return nil
}

// removable says whether a queue may go: nobody uses it. Queues below it must go as well, which
// the tree shows once all are gone.
func (a *applier) removable(tree *queueTree, i int, name string) *pb.Fault {
	field := fmt.Sprintf("remove[%d]", i)
	if tree.queues[name] == nil {
		f := state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "llmos queue lists them", "there is no queue %q", cut(name))
		f.Field = field
		return f
	}
	if name == state.DefaultQueue {
		return at(conflict("submit to another queue, and give it no weight to speak of", "queue %s cannot be removed: jobs that name no queue go there", name), field)
	}
	for _, r := range a.txn.Reservations() {
		if r.Queue == name {
			return at(conflict("remove the reservation first", "reservation %s is for queue %s", r.Name, name), field)
		}
	}
	if n := a.txn.QueueCount(name).Unfinished(); n > 0 {
		return at(conflict("stop them, or wait until they have finished", "queue %s has %s", name, unfinishedPhrase(n)), field)
	}
	return nil
}

// keepsJobs says whether every queue that has unfinished jobs still takes jobs.
func (a *applier) keepsJobs(tree *queueTree) *pb.Fault {
	for _, name := range tree.names {
		inner := len(tree.children[name]) > 0
		if !inner {
			continue
		}
		if name == state.DefaultQueue {
			return at(conflict("choose another parent", "queue %s takes the jobs that name no queue, and can have none below it", name), tree.field(tree.children[name][0], ""))
		}
		if n := a.txn.QueueCount(name).Unfinished(); n > 0 {
			return at(conflict("wait until they have finished, or stop them", "queue %s has %s, and jobs belong in queues that have none below them", name, unfinishedPhrase(n)),
				tree.field(tree.children[name][0], ""))
		}
	}
	return nil
}

func (a *applier) writeQueues(c *pb.SetQueues, tree *queueTree) {
	var changed []string
	for _, name := range tree.names {
		next := tree.queues[name]
		old := a.txn.Queue(name)
		if old != nil {
			next.ModifyIndex = old.ModifyIndex
		}
		if old == nil && tree.place[name] == 0 || proto.Equal(next, old) {
			continue
		}
		next.ModifyIndex = a.txn.Index()
		a.txn.PutQueue(next)
		changed = append(changed, name)
	}
	var gone []string
	for _, name := range c.Remove {
		if a.txn.Queue(name) != nil {
			a.txn.ForgetQueue(name)
			gone = append(gone, name)
		}
	}
	if len(changed)+len(gone) == 0 {
		return
	}
	var said []string
	if len(changed) > 0 {
		said = append(said, "set "+shortList(changed))
	}
	if len(gone) > 0 {
		said = append(said, "removed "+shortList(gone))
	}
	a.event("queue.changed", "", "", "", "%s%s", strings.Join(said, ", "), by(c.User))
}

func unfinishedPhrase(n int) string {
	if n == 1 {
		return "an unfinished job"
	}
	return fmt.Sprintf("%d unfinished jobs", n)
}

// shortList names the first few of a list.
func shortList(names []string) string {
	if len(names) > namesShown {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:namesShown], ", "), len(names)-namesShown)
	}
	return strings.Join(names, ", ")
}

func by(user string) string {
	if user == "" {
		return ""
	}
	return " by " + user
}

func conflict(hint, format string, args ...any) *pb.Fault {
	return state.Refuse(pb.ErrorKind_ERROR_KIND_CONFLICT, hint, format, args...)
}

// at says which field a fault is about.
func at(f *pb.Fault, field string) *pb.Fault {
	f.Field = field
	return f
}

// hinted gives a fault a hint.
func hinted(f *pb.Fault, format string, args ...any) *pb.Fault {
	f.Hint = fmt.Sprintf(format, args...)
	return f
}

// queueTree is the tree that a command would make.
type queueTree struct {
	queues   map[string]*pb.Queue
	place    map[string]int // in the command, from 1; 0: it is there already
	names    []string       // ascending, so parents before children
	children map[string][]string
}

func newQueueTree(now []*pb.Queue) *queueTree {
	t := &queueTree{queues: map[string]*pb.Queue{}, place: map[string]int{}}
	for _, q := range now {
		t.queues[q.Name] = q
	}
	if t.queues[state.DefaultQueue] == nil {
		t.queues[state.DefaultQueue] = &pb.Queue{Name: state.DefaultQueue, Weight: 1}
	}
	return t
}

// set takes one queue of the command, after checking what can be seen of it alone.
func (t *queueTree) set(i int, q *pb.Queue) *pb.Fault {
	field := fmt.Sprintf("queues[%d]", i)
	if f := checkQueue(field, q); f != nil {
		return f
	}
	if t.place[q.Name] != 0 {
		return invalid(field+".name", "queue %s is there twice", q.Name)
	}
	t.place[q.Name] = i + 1
	parent := q.Parent
	if parent == "" {
		parent = state.QueueParent(q.Name)
	}
	t.queues[q.Name] = &pb.Queue{Name: q.Name, Parent: parent, Weight: q.Weight, Limits: q.Limits, RunningMax: q.RunningMax, PendingMax: q.PendingMax,
		UserRunningMax: q.UserRunningMax, UserGpuMilliMax: q.UserGpuMilliMax, PriorityMax: q.PriorityMax}
	return nil
}

// field is where in the command a queue is; the command's list when it is not there.
func (t *queueTree) field(name, rest string) string {
	if i := t.place[name]; i > 0 {
		return fmt.Sprintf("queues[%d]%s", i-1, rest)
	}
	return "queues"
}

// check checks the tree as a whole.
func (t *queueTree) check() *pb.Fault {
	t.names = t.names[:0]
	t.children = map[string][]string{}
	for name := range t.queues { // unordered: sorted below
		t.names = append(t.names, name)
	}
	slices.Sort(t.names)
	if len(t.names) > queuesMax {
		return limit("remove queues that nobody uses", "there would be %d queues, at most %d", len(t.names), queuesMax)
	}
	for _, name := range t.names {
		q := t.queues[name]
		if q.Parent == "" && !strings.Contains(name, state.QueueSeparator) {
			continue
		}
		if t.queues[q.Parent] == nil {
			return at(state.Refuse(pb.ErrorKind_ERROR_KIND_NOT_FOUND, "add it, or remove the queues below it too", "queue %s is below queue %q, which does not exist",
				name, cut(q.Parent)), t.field(name, ".parent"))
		}
		if f := t.acyclic(name); f != nil {
			return f
		}
		if want := state.QueueParent(name); q.Parent != want {
			return hinted(invalid(t.field(name, ".parent"), "queue %s cannot be below %s: its name says where it is", name, q.Parent), "call it %s%s%s",
				q.Parent, state.QueueSeparator, name[strings.LastIndex(name, state.QueueSeparator)+1:])
		}
		t.children[q.Parent] = append(t.children[q.Parent], name)
	}
	for _, name := range t.names {
		if f := t.withinParent(name); f != nil {
			return f
		}
	}
	return nil
}

// acyclic follows the parents of a queue to the root.
func (t *queueTree) acyclic(name string) *pb.Fault {
	path := []string{name}
	for at := t.queues[name].Parent; at != ""; at = t.queues[at].GetParent() {
		path = append(path, at)
		if at == name || len(path) > len(t.queues)+1 {
			return hinted(invalid(t.field(name, ".parent"), "queue %s is below itself: %s", name, cut(strings.Join(path, " is below "))), "put one of them directly below the root")
		}
		if t.queues[at] == nil {
			return nil // said where that queue is looked at
		}
	}
	return nil
}

// withinParent checks what a queue guarantees those below it against its own quota.
func (t *queueTree) withinParent(name string) *pb.Fault {
	for _, l := range t.queues[name].Limits {
		given := int64(0)
		for _, child := range t.children[name] {
			given = state.SatAdd(given, t.guaranteed(child, l.Resource))
		}
		if given > l.Nominal {
			last := t.children[name][len(t.children[name])-1]
			for _, child := range t.children[name] {
				if t.place[child] > 0 {
					last = child
				}
			}
			field := t.field(last, ".limits")
			if t.place[last] == 0 {
				field = t.field(name, ".limits")
			}
			return hinted(invalid(field, "the queues below %s are guaranteed %d of %s, and %s itself has %d", name, given, l.Resource, name, l.Nominal),
				"give %s at least %d, or the queues below it %d less", name, given, given-l.Nominal)
		}
	}
	return nil
}

// guaranteed is the nominal quota of a queue, or of those below it when it has none itself.
func (t *queueTree) guaranteed(name, resource string) (n int64) {
	for _, l := range t.queues[name].Limits {
		if l.Resource == resource {
			return l.Nominal
		}
	}
	for _, child := range t.children[name] {
		n = state.SatAdd(n, t.guaranteed(child, resource))
	}
	return n
}

// checkQueue checks what can be seen of a queue alone.
func checkQueue(field string, q *pb.Queue) *pb.Fault {
	switch {
	case !validQueueName(q.GetName()):
		return hinted(invalid(field+".name", "%q cannot be a queue's name", cut(q.GetName())), "letters, digits, - _ . in parts with %s between them, such as vision/detection",
			state.QueueSeparator)
	case q.Weight < 1 || q.Weight > queueWeightMax:
		return hinted(invalid(field+".weight", "queue %s has a weight of %d, and 1 to %d are possible", q.Name, q.Weight, queueWeightMax), "leave the weight out for 1")
	case len(q.Limits) > queueLimitsMax:
		return invalid(field+".limits", "queue %s has %d limits, at most %d", q.Name, len(q.Limits), queueLimitsMax)
	case q.PriorityMax < 0 || q.PriorityMax > priorityMax:
		return invalid(field+".priority_max", "priority %d is not one of 0 to %d", q.PriorityMax, priorityMax)
	case !quantity(q.UserGpuMilliMax):
		return invalid(field+".user_gpu_milli_max", "%d thousandths of a device are not possible", q.UserGpuMilliMax)
	}
	for _, bound := range []struct {
		name string
		n    int32
	}{{"running_max", q.RunningMax}, {"pending_max", q.PendingMax}, {"user_running_max", q.UserRunningMax}} {
		if bound.n < 0 {
			return hinted(invalid(field+"."+bound.name, "%d jobs are not possible", bound.n), "0 means no bound")
		}
	}
	for i, l := range q.Limits {
		path := fmt.Sprintf("%s.limits[%d]", field, i)
		switch {
		case !validResource(l.GetResource()):
			return hinted(invalid(path+".resource", "%q cannot be limited", cut(l.GetResource())), "gpu, gpu:MODEL, cpu and memory can")
		case slices.ContainsFunc(q.Limits[:i], func(o *pb.QuotaLimit) bool { return o.Resource == l.Resource }):
			return invalid(path+".resource", "queue %s limits %s twice", q.Name, l.Resource)
		case !quantity(l.Nominal):
			return hinted(invalid(path+".nominal", "a quota of %d of %s is not possible", l.Nominal, l.Resource), "0 or more; borrow and lend may be negative for no bound")
		case l.Borrow > quantityMax || l.Lend > l.Nominal:
			return hinted(invalid(path+".lend", "queue %s cannot lend %d of its %d of %s, or borrow %d", q.Name, l.Lend, l.Nominal, l.Resource, l.Borrow), "a negative lend lends all")
		}
	}
	return nil
}

func validResource(name string) bool {
	model, ofModel := strings.CutPrefix(name, "gpu:")
	return name == "gpu" || name == "cpu" || name == "memory" || ofModel && state.ValidID(model)
}

// validQueueName reports whether a queue can be called so: parts of letters, digits, - _ and .,
// that begin with a letter or digit, with a slash between them.
func validQueueName(name string) bool {
	parts := strings.Split(name, state.QueueSeparator)
	if len(name) > state.IDBytesMax || len(parts) > queueDepthMax {
		return false
	}
	for _, part := range parts {
		if part == "" || strings.ContainsAny(part[:1], "-_.") {
			return false
		}
		for _, r := range part {
			if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_.", r)) {
				return false
			}
		}
	}
	return true
}
