package jobspec

// meant maps words that other systems use to the field that says the same here; an empty
// field means that there is none, and the hint says so.
var meant = []struct{ word, field, hint string }{
	{"replicas", "count", ""}, {"instances", "count", ""}, {"num_nodes", "count", ""}, {"workers", "count", ""},
	{"cmd", "command", ""}, {"run", "command", ""}, {"script", "command", ""}, {"entrypoint", "command", ""}, {"exec", "command", ""},
	{"environment", "env", ""}, {"envs", "env", ""}, {"vars", "env", ""},
	{"cwd", "workdir", ""}, {"working_dir", "workdir", ""}, {"working_directory", "workdir", ""},
	{"restarts", "retries", ""}, {"max_restarts", "retries", ""}, {"backoff_limit", "retries", ""},
	{"type", "kind", ""}, {"groups", "roles", ""}, {"tags", "labels", ""}, {"annotations", "labels", ""},
	{"cpus", "cpu", ""}, {"cores", "cpu", ""}, {"mem", "memory", ""}, {"ram", "memory", ""},
	{"gpu", "gpus", ""}, {"accelerators", "gpus", ""}, {"gpu_type", "gpu_model", ""}, {"vram", "gpu_memory", ""},
	{"kill_signal", "stop_signal", ""}, {"kill_timeout", "grace", ""}, {"grace_period", "grace", ""},
	{"timeout", "time_limit", ""}, {"walltime", "time_limit", ""}, {"max_run_time", "time_limit", ""}, {"time", "time_limit", ""},
	{"depends_on", "after", ""}, {"dependencies", "after", ""}, {"needs", "after", ""}, {"requires", "after", ""},
	{"schedule", "cron", ""}, {"crontab", "cron", ""}, {"replicas_min", "count", "write count: 2..8"},
	{"node_selector", "where", ""}, {"constraints", "where", ""}, {"constraint", "where", ""}, {"selector", "where", ""},
	{"affinity", "near", ""}, {"anti_affinity", "apart", ""}, {"topology", "within", ""},
	{"partition", "queue", ""}, {"project", "queue", ""}, {"account", "queue", ""}, {"nice", "priority", ""},
	{"backend", "framework", ""}, {"launcher", "framework", ""},
	{"sweep", "array", ""}, {"eta", "expected", ""}, {"estimate", "expected", ""}, {"due", "deadline", ""},
	{"mig_profile", "mig", ""}, {"no_preempt", "preemptible", ""}, {"migrate", "preemptible", ""},
	{"args", "", "write the arguments in command"},
	{"container", "image", ""}, {"docker", "image", ""}, {"runtime", "driver", ""}, {"ephemeral_storage", "disk", ""}, {"pids_limit", "pids", ""},
	{"volumes", "", "this version mounts nothing; use paths of the node"},
}

// suggest finds the field of known that an unknown word most likely stands for, directly or
// through a synonym; a hint when the word is known to have no field here.
func suggest(word string, known []string) (field, hint string) {
	best := suggestDistance + 1
	try := func(candidate, stands, says string) {
		if d := distance(word, candidate, best); d < best && d <= max(1, len(word)/3) {
			best, field, hint = d, stands, says
		}
	}
	for _, k := range known {
		try(k, k, "")
	}
	for _, m := range meant {
		if m.field == "" || contains(known, m.field) {
			try(m.word, m.field, m.hint)
		}
	}
	return field, hint
}

func contains(words []string, word string) bool {
	for _, w := range words {
		if w == word {
			return true
		}
	}
	return false
}

// distance counts the insertions, deletions, replacements and swaps of neighbours that turn
// a into b, or gives limit when there are at least so many.
func distance(a, b string, limit int) int {
	if len(a)-len(b) >= limit || len(b)-len(a) >= limit {
		return limit
	}
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(last[j]+1, row[j-1]+1, last[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, last, row = last, row, before
	}
	return min(last[len(b)], limit)
}
