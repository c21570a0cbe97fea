package main

import (
	"errors"
	"strings"

	"llmos/proto/fault"
	"llmos/server/jobspec"
)

// flagNames maps a spec's field to the flag that sets it.
var flagNames = map[string]string{
	"name": "--name", "priority": "--priority", "retries": "--retries",
	"roles[0].count": "--tasks", "roles[0].env": "--env", "roles[0].workdir": "--workdir", "roles[0].user": "--user",
	"roles[0].command": "the command", "roles[0].resources.cpu": "--cpu", "roles[0].resources.memory": "--memory",
	"roles[0].resources.gpus": "--gpus", "roles[0].resources.gpu_share": "--gpu-share",
	"roles[0].resources.gpu_memory": "--gpu-memory", "roles[0].resources.gpu_model": "--gpu-model",
}

// flagOf gives the flag of a field, or of what holds it; "" when there is none.
func flagOf(field string) string {
	for field != "" {
		if flag, known := flagNames[field]; known {
			return flag
		}
		field = field[:max(strings.LastIndexAny(field, ".["), 0)]
	}
	return ""
}

// asFaults puts an error of jobspec's Parse functions at a field.
func asFaults(err error, field string) error {
	return jobspec.Faults{fault.From(err).At(field, 0)}
}

// flagFaults makes faults of a spec into one about the flags that describe it. nil stays nil.
func flagFaults(err error) error {
	var faults jobspec.Faults
	if err == nil || !errors.As(err, &faults) {
		return err
	}
	sentences := make([]string, 0, len(faults))
	for _, e := range faults {
		at := e.Fault.Field
		if flag := flagOf(at); flag != "" {
			at = flag
		}
		sentences = append(sentences, strings.TrimPrefix(at+": "+e.Fault.Message, ": "))
	}
	all := invalid("%s", strings.Join(sentences, "; "))
	hint := strings.NewReplacer("gpu_share", "--gpu-share", "set gpus", "set --gpus", "set workdir", "set --workdir").Replace(faults[0].Fault.Hint)
	return all.Hint("%s", hint)
}
