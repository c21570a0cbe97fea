package scheduler_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"llmos/server/scheduler"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the expected parts of testdata")

// TestConversations runs testdata/*.txt: commands up to a line "----", then what they
// printed up to an empty line. See world.do for the commands.
func TestConversations(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no conversations: %v", err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) { converse(t, file) })
	}
}

func converse(t *testing.T, file string) {
	source, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	w := &world{}
	var out strings.Builder
	lines := strings.Split(strings.TrimRight(string(source), "\n"), "\n")
	for i := 0; i < len(lines); {
		if lines[i] == "" || strings.HasPrefix(lines[i], "#") {
			out.WriteString(lines[i] + "\n")
			i++
			continue
		}
		got := ""
		for ; i < len(lines) && lines[i] != "----" && lines[i] != ""; i++ {
			out.WriteString(lines[i] + "\n")
			got += w.do(t, lines[i])
		}
		want := ""
		for i++; i < len(lines) && lines[i] != ""; i++ {
			want += lines[i] + "\n"
		}
		if got != want && !*rewrite {
			t.Errorf("%s, before line %d:\ngot:\n%swant:\n%s", file, i+1, got, want)
		}
		out.WriteString("----\n" + got)
	}
	if *rewrite {
		if err := os.WriteFile(file, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// world is a cluster that a conversation builds up.
type world struct {
	nodes   []scheduler.Node
	pending []scheduler.Job
	running map[string]started
	policy  scheduler.Policy
	submits uint64
	timeline
}

type started struct {
	job       scheduler.Job
	placement scheduler.Placement
	atMS      int64
	saved     int64 // time of its newest checkpoint
	ending    bool
	stopAt    int64
	again     bool // it is pending again when it has stopped
	claim     *scheduler.Claim
}

// do runs one command:
//
//	node NAME cpu=4 mem=16 gpus=2xH100-80 [status=silent] [ports=20000-20003]
//	job NAME [prio=50] [waited=60000] ROLE:COUNT,cpu=2,mem=1,gpus=1,share=250,gpumem=10,model=H100-80,ports=1 ...
//	rack ZONE/RACK COUNT ...  that many nodes of a rack, with the words of a node; see nodeWord
//	set NAME status=... | sick=DEVICE
//	wait JOB MS     it has waited so long
//	schedule        place, commit, and say what was placed and why the others wait
//	finish JOB      release what the job holds
//	feasible JOB    could it ever fit? (the job is then forgotten)
//	details JOB     the reason with its remedy and details
//
// timeline.doInTime has the commands about time, queues and what runs.
func (w *world) do(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	switch words[0] {
	case "node":
		w.nodes = append(w.nodes, parseNode(t, words[1:]))
	case "rack":
		w.rack(t, words[1:])
	case "job":
		w.pending = append(w.pending, w.parseJob(t, words[1:]))
	case "set":
		w.set(t, words[1], words[2:])
	case "wait":
		i := slices.IndexFunc(w.pending, func(j scheduler.Job) bool { return j.ID == words[1] })
		w.pending[i].WaitedMS = number(t, words[2])
	case "schedule":
		return w.schedule()
	case "finish":
		w.finish(t, words[1])
	case "feasible":
		job := w.parseJob(t, words[1:])
		return describe(job.ID, scheduler.Feasible(job, w.nodes))
	case "details":
		plan := scheduler.Schedule(w.snapshot(), w.policy)
		reason, ok := plan.Explain(words[1])
		if !ok {
			return words[1] + " does not wait\n"
		}
		text := describe(words[1], reason)
		for _, change := range plan.WouldStart(words[1]) {
			text += "  would start: " + change + "\n"
		}
		return text
	default:
		return w.doInTime(t, words)
	}
	return ""
}

func describe(id string, r scheduler.Reason) string {
	if r.Cause == scheduler.CauseNone {
		return id + ": feasible\n"
	}
	s := fmt.Sprintf("%s: %s (%s)\n  remedy: %s\n", id, r.Text, r.Cause, r.Remedy)
	if r.Field != "" {
		s += "  field: " + r.Field + "\n"
	}
	for _, d := range r.Details {
		s += "  also: " + d + "\n"
	}
	return s
}

func (w *world) snapshot() scheduler.Snapshot {
	return w.inTime(scheduler.Snapshot{Nodes: slices.Clone(w.nodes), Pending: slices.Clone(w.pending)})
}

func (w *world) schedule() string {
	plan := scheduler.Schedule(w.snapshot(), w.policy)
	out := ""
	for _, p := range plan.Placements {
		out += p.JobID + w.whyPlaced(p) + ":"
		for rank, task := range p.Tasks {
			out += fmt.Sprintf(" %d@%s", rank, task.NodeID)
			var grants []string
			for _, g := range task.Devices {
				word := g.DeviceID
				if g.Share < 1000 {
					word += fmt.Sprintf("*%d/%dG", g.Share, g.Memory>>30)
				}
				grants = append(grants, word)
			}
			if len(grants) > 0 {
				out += "[" + strings.Join(grants, " ") + "]"
			}
			if len(task.Ports) > 0 {
				out += fmt.Sprintf("+%dports", len(task.Ports))
			}
		}
		out += "\n"
	}
	for _, waiting := range plan.Waiting {
		reason, _ := plan.Explain(waiting.JobID)
		out += fmt.Sprintf("%s waits: %s (%s)\n", waiting.JobID, reason.Text, reason.Cause)
		if len(waiting.Held) > 0 {
			out += "  held for it: " + strings.Join(waiting.Held, " ") + "\n"
		}
	}
	out += w.evict(plan)
	for _, p := range plan.Placements {
		w.commit(p)
	}
	if out == "" {
		out = "nothing is pending\n"
	}
	return out
}

func (w *world) commit(p scheduler.Placement) {
	i := slices.IndexFunc(w.pending, func(j scheduler.Job) bool { return j.ID == p.JobID })
	job := w.pending[i]
	w.pending = slices.Delete(w.pending, i, i+1)
	if w.running == nil {
		w.running = map[string]started{}
	}
	w.running[p.JobID] = started{job: job, placement: p, atMS: w.nowMS}
	w.move(job, p, 1)
}

func (w *world) finish(t *testing.T, id string) {
	t.Helper()
	run, ok := w.running[id]
	if !ok {
		t.Fatalf("job %s does not run", id)
	}
	delete(w.running, id)
	w.move(run.job, run.placement, -1)
}

// move takes (sign 1) or gives back (-1) what a placement holds.
func (w *world) move(job scheduler.Job, p scheduler.Placement, sign int64) {
	requests := requestsByRank(job, p.Counts)
	for rank, task := range p.Tasks {
		n := &w.nodes[slices.IndexFunc(w.nodes, func(n scheduler.Node) bool { return n.ID == task.NodeID })]
		n.CPUFree -= sign * requests[rank].CPU
		n.MemFree -= sign * requests[rank].Memory
		holding := scheduler.Holding{JobID: job.ID, CPU: requests[rank].CPU}
		n.Devices = slices.Clone(n.Devices)
		for _, g := range task.Devices {
			d := &n.Devices[slices.IndexFunc(n.Devices, func(d scheduler.Device) bool { return d.ID == g.DeviceID })]
			d.ShareFree -= int32(sign) * g.Share
			d.MemFree -= sign * g.Memory
			holding.Share += int64(g.Share)
		}
		if sign > 0 {
			n.Ports = append(slices.Clone(n.Ports), task.Ports...)
			slices.Sort(n.Ports)
			n.Holdings = append(slices.Clone(n.Holdings), holding)
			continue
		}
		n.Ports = slices.DeleteFunc(slices.Clone(n.Ports), func(p int32) bool { return slices.Contains(task.Ports, p) })
		n.Holdings = slices.DeleteFunc(slices.Clone(n.Holdings), func(h scheduler.Holding) bool { return h.JobID == job.ID })
	}
}

func requestsByRank(job scheduler.Job, counts []int32) []scheduler.Request {
	var requests []scheduler.Request
	for i, role := range job.Roles {
		if counts != nil {
			role.Count = counts[i]
		}
		for range role.Count {
			requests = append(requests, role.Task)
		}
	}
	return requests
}

func parseNode(t *testing.T, words []string) scheduler.Node {
	t.Helper()
	n := scheduler.Node{ID: words[0], Name: words[0], CPU: 64000, Memory: 512 << 30, PortMin: 20000, PortMax: 29999}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "cpu":
			n.CPU = number(t, value) * 1000
		case "mem":
			n.Memory = number(t, value) << 30
		case "gpus":
			for _, part := range strings.Split(value, "+") {
				count, model, _ := strings.Cut(part, "x")
				_, size, _ := strings.Cut(model, "-")
				for range number(t, count) {
					memory := number(t, size) << 30
					n.Devices = append(n.Devices, scheduler.Device{ID: fmt.Sprintf("%s.%d", n.ID, len(n.Devices)), Model: model,
						Memory: memory, MemFree: memory, ShareFree: 1000, Available: true})
				}
			}
		case "ports":
			low, high, _ := strings.Cut(value, "-")
			n.PortMin, n.PortMax = int32(number(t, low)), int32(number(t, high))
		case "status":
			n.Status = parseStatus(t, value)
		default:
			if !nodeWord(t, &n, key, value) {
				t.Fatalf("unknown word %q", word)
			}
		}
	}
	n.CPUFree, n.MemFree = n.CPU, n.Memory
	return n
}

func parseStatus(t *testing.T, word string) scheduler.NodeStatus {
	t.Helper()
	i := slices.Index([]string{"ready", "silent", "lost"}, word)
	if i < 0 {
		t.Fatalf("unknown status %q", word)
	}
	return scheduler.NodeStatus(i)
}

func (w *world) set(t *testing.T, name string, words []string) {
	t.Helper()
	n := &w.nodes[slices.IndexFunc(w.nodes, func(n scheduler.Node) bool { return n.ID == name })]
	for _, word := range words {
		key, value, _ := strings.Cut(word, "=")
		switch key {
		case "status":
			n.Status = parseStatus(t, value)
		case "sick":
			n.Devices = slices.Clone(n.Devices)
			n.Devices[number(t, value)].Available = false
		default:
			if !nodeWord(t, n, key, value) {
				t.Fatalf("unknown word %q", word)
			}
		}
	}
}

func (w *world) parseJob(t *testing.T, words []string) scheduler.Job {
	t.Helper()
	w.submits++
	job := scheduler.Job{ID: words[0], Priority: 50, Submit: w.submits, Attempt: 1}
	for _, word := range words[1:] {
		if key, value, _ := strings.Cut(word, "="); key == "prio" {
			job.Priority = int32(number(t, value))
		} else if key == "waited" {
			job.WaitedMS = number(t, value)
		} else if w.jobWord(t, &job, key, value) || placeWord(t, &job, key, value) {
			continue
		} else {
			job.Roles = append(job.Roles, parseRole(t, word))
		}
	}
	world := 0
	for _, r := range job.Roles {
		world += int(r.Count)
	}
	job.Rendezvous = world > 1
	return job
}

func parseRole(t *testing.T, word string) scheduler.Role {
	t.Helper()
	parts := strings.Split(word, ",")
	name, count, _ := strings.Cut(parts[0], ":")
	least, most, elastic := strings.Cut(count, "..")
	if elastic {
		count = most
	}
	role := scheduler.Role{Name: name, Count: int32(number(t, count)), Task: scheduler.Request{CPU: 1000, Memory: 1 << 30}}
	if elastic {
		role.Min = int32(number(t, least))
	}
	for _, part := range parts[1:] {
		key, value, _ := strings.Cut(part, "=")
		if key == "model" {
			role.Task.Model = value
			continue
		}
		if roleWord(&role, key, value) {
			continue
		}
		n := number(t, value)
		switch key {
		case "cpu":
			role.Task.CPU = n * 1000
		case "mem":
			role.Task.Memory = n << 30
		case "gpus":
			role.Task.GPUs = int32(n)
		case "share":
			role.Task.Share, role.Task.GPUs = int32(n), max(1, role.Task.GPUs)
		case "gpumem":
			role.Task.GPUMemory = n << 30
		case "ports":
			role.Task.Ports = int32(n)
		default:
			t.Fatalf("unknown word %q", part)
		}
	}
	return role
}

func number(t *testing.T, s string) int64 {
	t.Helper()
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		t.Fatalf("not a number: %q", s)
	}
	return n
}
