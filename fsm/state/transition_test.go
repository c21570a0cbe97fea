package state

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	pb "llmos/proto/llmos/v1"
)

// legal lists the legal transitions of a table.
func legal[S interface {
	stateEnum
	~int32
}](table map[S][]S) string {
	var out []string
	for from := S(0); from < 10; from++ {
		for to := S(0); to < 10; to++ {
			if checkTransition(table, "x", "x", from, to) == nil && from != to {
				out = append(out, fmt.Sprintf("%s>%s", Word(from), Word(to)))
			}
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestTransitions holds every pair of states to the list that people agreed on.
func TestTransitions(t *testing.T) {
	for _, c := range []struct{ what, got, want string }{
		{"job", legal(jobTransitions), "pending>cancelled pending>failed pending>running running>failed running>pending running>stopping " +
			"running>succeeded scheduled>cancelled scheduled>failed stopping>cancelled stopping>failed stopping>succeeded " +
			"unspecified>pending unspecified>running unspecified>scheduled"},
		{"attempt", legal(attemptTransitions), "ending>ended live>ended live>ending unspecified>live"},
		{"task", legal(taskTransitions), "assigned>failed assigned>lost assigned>running assigned>stopped assigned>succeeded " +
			"running>failed running>lost running>stopped running>succeeded unspecified>assigned"},
		{"node", legal(nodeTransitions), "lost>ready ready>lost ready>silent silent>lost silent>ready unspecified>ready"},
	} {
		if c.got != c.want {
			t.Errorf("%s: %s\nwant %s", c.what, c.got, c.want)
		}
	}
	if checkTransition(taskTransitions, "task", "x", pb.TaskState_TASK_STATE_UNSPECIFIED, pb.TaskState_TASK_STATE_UNSPECIFIED) == nil {
		t.Error("a task without a state is legal")
	}
}

// TestIllegalTransitionsAreRefused: the tables guard the writes, and a refused write changes nothing.
func TestIllegalTransitionsAreRefused(t *testing.T) {
	s := sample(t)
	for name, write := range map[string]func(*Txn) *pb.Fault{
		"job": func(x *Txn) *pb.Fault {
			j := CopyJob(x.Job("run-1"))
			j.State = pb.JobState_JOB_STATE_CANCELLED
			return x.PutJob(j)
		},
		"attempt": func(x *Txn) *pb.Fault {
			a := CopyAttempt(x.Attempt("done-1", 1))
			a.State = pb.AttemptState_ATTEMPT_STATE_LIVE
			return x.PutAttempt(a)
		},
		"task": func(x *Txn) *pb.Fault {
			k := CopyTask(x.Task("done-1.e1.r0"))
			k.State = pb.TaskState_TASK_STATE_RUNNING
			return x.PutTask(k)
		},
		"asked": func(x *Txn) *pb.Fault {
			k := CopyTask(x.Task("lost-1.e1.r0"))
			k.Desired = pb.TaskDesired_TASK_DESIRED_RUN
			return x.PutTask(k)
		},
		"node": func(x *Txn) *pb.Fault {
			n := CopyNode(x.Node("n-a"))
			n.State = pb.NodeState_NODE_STATE_UNSPECIFIED
			return x.PutNode(n)
		},
		"grant twice": func(x *Txn) *pb.Fault {
			return x.Grant(x.Task("run-1.e1.r0"), x.Allocation("run-1.e1.r0"))
		},
	} {
		txn := s.Begin(s.Index()+1, 0)
		f := write(txn)
		if f.GetKind() != pb.ErrorKind_ERROR_KIND_INTERNAL {
			t.Errorf("%s: %v", name, f)
		}
		if txn.Commit().Hash() != s.Hash() {
			t.Errorf("%s: the refused write left a trace", name)
		}
	}
}
