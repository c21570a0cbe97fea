package scheduler_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"llmos/server/scheduler"
)

// nodeWord reads a word of a node, or of set NODE, about where it is and what lies there:
//
//	label=KEY:VALUE numa=0,0,1,1 island=x,x,y,y mig=3:1g.10gb (the last 3 devices are slices)
//	drained=yes|no holds=ARTIFACT:GIB link=GIB_PER_SECOND
func nodeWord(t *testing.T, n *scheduler.Node, key, value string) bool {
	t.Helper()
	name, rest, _ := strings.Cut(value, ":")
	switch key {
	case "label":
		if n.Labels == nil {
			n.Labels = map[string]string{}
		}
		n.Labels[name] = rest
	case "numa":
		for i, word := range strings.Split(value, ",") {
			n.Devices[i].NUMA = int32(number(t, word))
		}
	case "island":
		for i, word := range strings.Split(value, ",") {
			n.Devices[i].Island = word
		}
	case "mig":
		for i := len(n.Devices) - int(number(t, name)); i < len(n.Devices); i++ {
			n.Devices[i].Profile = rest
			n.Devices[i].Memory, n.Devices[i].MemFree = 10<<30, 10<<30
		}
	case "drained":
		n.Drained = value == "yes"
	case "holds":
		n.Holds = append(slices.Clone(n.Holds), scheduler.Input{ID: name, Bytes: number(t, rest) << 30})
	case "link":
		n.LinkRate = float64(number(t, value) << 30)
	default:
		return false
	}
	return true
}

// placeWord reads a word of a job about its nodes:
//
//	where=EXPR within=L prefer=L spread=L skew=N near=JOB,.. apart=JOB,.. avoid=NODE,.. input=ARTIFACT:GIB,..
//
// EXPR: key=a|b or key, joined by & or by ; (or), each with ! for not.
func placeWord(t *testing.T, job *scheduler.Job, key, value string) bool {
	t.Helper()
	switch key {
	case "where":
		job.Where = parseExpr(value)
	case "within":
		job.Within = value
	case "prefer":
		job.Prefer = value
	case "spread":
		job.Spread, job.Skew = value, max(1, job.Skew)
	case "skew":
		job.Skew = int32(number(t, value))
	case "near":
		job.Near = strings.Split(value, ",")
	case "apart":
		job.Apart = strings.Split(value, ",")
	case "avoid":
		job.Avoid = strings.Split(value, ",")
	case "input":
		for _, word := range strings.Split(value, ",") {
			name, size, _ := strings.Cut(word, ":")
			job.Inputs = append(job.Inputs, scheduler.Input{ID: name, Bytes: number(t, size) << 30})
		}
	default:
		return false
	}
	return true
}

func parseExpr(s string) *scheduler.Expr {
	for _, join := range []string{";", "&"} {
		parts := strings.Split(s, join)
		if len(parts) == 1 {
			continue
		}
		var of []scheduler.Expr
		for _, part := range parts {
			of = append(of, *parseExpr(part))
		}
		if join == ";" {
			return &scheduler.Expr{Any: of}
		}
		return &scheduler.Expr{All: of}
	}
	if rest, not := strings.CutPrefix(s, "!"); not {
		return &scheduler.Expr{Not: parseExpr(rest)}
	}
	key, values, some := strings.Cut(s, "=")
	m := &scheduler.Match{Key: key}
	if some {
		m.Values = strings.Split(values, "|")
	}
	return &scheduler.Expr{Match: m}
}

// roleWord reads a word of a role about its devices: models=A+B profile=1g.10gb numa=yes.
func roleWord(role *scheduler.Role, key, value string) bool {
	switch key {
	case "models":
		role.Task.Models = strings.Split(value, "+")
	case "profile":
		role.Task.Profile = value
	case "numa":
		role.Task.NUMA = value == "yes"
	default:
		return false
	}
	return true
}

// rack adds nodes of a rack: rack ZONE/RACK COUNT WORDS-OF-A-NODE. They are named RACK-1 on.
func (w *world) rack(t *testing.T, words []string) {
	t.Helper()
	zone, rack, _ := strings.Cut(words[0], "/")
	for i := range number(t, words[1]) {
		name := fmt.Sprintf("%s-%d", rack, i+1)
		w.nodes = append(w.nodes, parseNode(t, append([]string{name, "label=zone:" + zone, "label=rack:" + rack}, words[2:]...)))
	}
}
