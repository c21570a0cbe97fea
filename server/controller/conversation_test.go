package controller_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
	"llmos/server/controller"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the expected parts of testdata")

// TestConversations runs testdata/*.txt: commands up to a line "----", then the effects
// they had up to an empty line. rig.do lists the commands. The log and the state are the
// real ones, and every invariant of the state is checked after each command.
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
	r := newRig(t)
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
			got += r.do(lines[i])
			if err := state.Check(r.log.State()); err != nil {
				t.Fatalf("%s:%d: %v", file, i+1, err)
			}
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

// do runs one command and prints the effects that follow at once:
//
//	submit NAME [count=1] [cpu=1] [gpus=0] [lost=ms] [retries=n] [framework=n]   as the API would
//	stop JOB
//	hello NODE/SESSION [cpu=8] [gpus=0] [name=NAME] [TASK=STATE ...]
//	report NODE/SESSION SEQ TASK=STATE ...       FAILED ends with code 1
//	save|lost NODE/SESSION SEQ TASK@STEP ...     reports checkpoints, or that they are not there
//	close NODE/SESSION | heard NODE
//	commit          apply the proposals in flight and tell their outcome
//	early           apply them and tell their outcome, but show the state only afterwards
//	remove NODE     as the API would
//	settle          commit until none is in flight
//	refuse          their outcome is an error, and they are not applied
//	unknown         their outcome is an error, and they are applied all the same
//	wait 5s         let time pass
//	ticks 60s [NODE ...]   let time pass, ticking whenever it is wanted, and commit what follows;
//	                the nodes send heartbeats meanwhile
//	lead            another server leads: a new controller on the same state, no sessions
//	show            the state in short
//	explain JOB
//	plan ...        a dry run of a job, in the words of submit
//	forecast JOB    what is known of its demand in an hour, in short
//	log COMMAND     a command of the log as text, such as log drain_node{node_id:"n-a" drain{}}
//	progress NODE TASK STEP/STEPS [MiB of memory]
func (r *rig) do(line string) string {
	words := strings.Fields(line)
	switch words[0] {
	case "submit":
		r.apply(submit(r.t, words[1:]))
	case "stop":
		r.apply(stop(words[1]))
	case "hello":
		r.hello(words[1:])
	case "report":
		r.report(words[1:])
	case "save", "lost":
		r.saved(words[0] == "lost", words[1:])
	case "close":
		r.closeSession(words[1])
	case "heard":
		r.heard(words[1])
	case "commit":
		return r.commit(outcomeApplied)
	case "settle":
		out := r.flush()
		for range 20 {
			if len(r.flight) == 0 {
				return out
			}
			out += r.commit(outcomeApplied)
		}
		r.t.Fatalf("the proposals do not come to an end:\n%s", out)
	case "early":
		return r.commit(outcomeEarly)
	case "remove":
		r.apply(&pb.Command{Op: &pb.Command_RemoveNode{RemoveNode: &pb.RemoveNode{NodeId: words[1]}}})
	case "refuse":
		return r.commit(outcomeRefused)
	case "unknown":
		return r.commit(outcomeUnknown)
	case "wait":
		r.pass(duration(r.t, words[1]))
	case "ticks":
		return r.ticks(duration(r.t, words[1]), words[2:]...)
	case "lead":
		r.lead()
	case "show":
		return show(r.log.State())
	case "explain":
		x := r.loop.Explain(words[1])
		reason, remedy, details := x.GetReason(), x.GetRemedy(), x.GetDetails()
		return fmt.Sprintf("%s: %s; %s; %q\n", words[1], reason, remedy, details)
	case "plan":
		return planText(r.loop.PlanJob(submit(r.t, words[1:]).GetSubmitJob().Spec, "someone"))
	case "forecast":
		return forecastText(r.loop.Forecast(words[1], time.Hour.Milliseconds()))
	case "log":
		r.apply(command(r.t, strings.TrimPrefix(line, "log ")))
	case "progress":
		r.loop.Step(controller.ProgressArrived{NodeID: words[1], Progress: []*pb.Progress{r.progress(words[2:])}}, r.now)
	default:
		r.t.Fatalf("unknown command %q", line)
	}
	return r.flush()
}

func duration(t testing.TB, s string) time.Duration {
	t.Helper()
	d, err := time.ParseDuration(s)
	if err != nil {
		t.Fatal(err)
	}
	return d
}
