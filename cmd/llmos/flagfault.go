package main

import (
	"slices"
	"strings"

	"llmos/proto/fault"
	"llmos/server/jobspec"
)

// flagNames maps a spec's field to the flag that sets it.
var flagNames = map[string]string{
	"name": "--name", "priority": "--priority", "retries": "--retries", "queue": "--queue", "after": "--after", "framework": "--framework",
	"array": "--array", "cron": "--cron", "time_limit": "--time-limit", "expected": "--expected", "deadline": "--deadline",
	"checkpoint": "--checkpoint", "checkpoint.path": "--checkpoint-path", "resume": "--resume", "reservation": "--reservation", "where": "--where", "within": "--within",
	"roles[0].count": "--tasks", "roles[0].env": "--env", "roles[0].workdir": "--workdir", "roles[0].user": "--user",
	"roles[0].command": "the command", "roles[0].resources.cpu": "--cpu", "roles[0].resources.memory": "--memory",
	"roles[0].resources.disk": "--disk", "roles[0].image": "--image", "roles[0].driver": "--image",
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

// flagWords turns the words of a job file in a hint into those of the flags.
var flagWords = strings.NewReplacer("time_limit", "--time-limit", "count: 2..8", "--tasks 2..8", "gpu_share", "--gpu-share", "set gpus", "set --gpus", "set workdir", "set --workdir", "set name", "set --name")

// atField puts an error of jobspec's Parse functions at a field.
func atField(err error, field string) *fault.Error { return fault.From(err).At(field, 0) }

// atLine names the flag of a fault that is at a line of the flag's file.
func atLine(err error, field string) *fault.Error {
	f := fault.From(err)
	return f.At(field, int(f.Fault.Line))
}

// merge adds the faults that are about fields without one.
func merge(faults, more jobspec.Faults) jobspec.Faults {
	known := slices.Clone(faults)
	for _, e := range more {
		if !slices.ContainsFunc(known, func(k *fault.Error) bool { return flagOf(k.Fault.Field) == flagOf(e.Fault.Field) }) {
			faults = append(faults, e)
		}
	}
	return faults
}
