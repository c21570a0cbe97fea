package jobspec

import (
	"path"
	"regexp"
	"strings"
)

// stopSignals are the signals that a task may be asked to stop with.
var stopSignals = []string{"SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGABRT", "SIGALRM", "SIGKILL"}

// reservedEnv are the variables that tell a task its place, besides LLMOS_*.
var reservedEnv = []string{"RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "CUDA_VISIBLE_DEVICES"}

const nameHint = "use lower-case letters, digits and -, beginning with a letter and not ending with -, at most 48"

var (
	namePattern  = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	userPattern  = regexp.MustCompile(`^([a-z_][a-z0-9_-]{0,31}|[0-9]{1,9})$`)
	envPattern   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
	labelPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._/-]*$`)
)

func isName(s string) bool { return len(s) <= NameBytesMax && namePattern.MatchString(s) }

// isQueueName admits names with / between the levels of the tree.
func isQueueName(s string) bool {
	for _, part := range strings.Split(s, "/") {
		if !isName(part) {
			return false
		}
	}
	return true
}

func isUser(s string) bool      { return userPattern.MatchString(s) }
func isEnvName(s string) bool   { return len(s) <= EnvNameBytesMax && envPattern.MatchString(s) }
func isLabelName(s string) bool { return len(s) <= LabelBytesMax && labelPattern.MatchString(s) }

// interpreters are programs whose first plain argument says more about a job than they do.
var interpreters = map[string]bool{"python": true, "python3": true, "bash": true, "sh": true, "dash": true, "zsh": true,
	"node": true, "ruby": true, "perl": true, "torchrun": true, "uv": true, "env": true, "nice": true, "time": true, "exec": true}

// NameFor makes the prefix of a name for a job that runs the command and was given no name:
// the program's base name, or the script's when the program is an interpreter. It is always
// a valid generate_name.
func NameFor(command []string) string {
	for i, word := range command {
		if i > 0 && (strings.HasPrefix(word, "-") || word == "run") {
			continue
		}
		base := path.Base(word)
		if i+1 < len(command) && interpreters[base] {
			continue
		}
		if strings.ContainsAny(word, " \t\n;|&<>$(") {
			break
		}
		return nameFrom(strings.TrimSuffix(base, path.Ext(base)))
	}
	if len(command) > 0 {
		return nameFrom(path.Base(command[0]))
	}
	return nameFrom("")
}

// nameFrom makes a valid name of any text.
func nameFrom(text string) string {
	var b strings.Builder
	for _, r := range strings.ToLower(text) {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9' && b.Len() > 0:
			b.WriteRune(r)
		case b.Len() > 0 && !strings.HasSuffix(b.String(), "-"):
			b.WriteByte('-')
		}
		if b.Len() >= generatedNameBytesMax {
			break
		}
	}
	if name := strings.Trim(b.String(), "-"); name != "" {
		return name
	}
	return "job"
}

// canonicalSignal gives TERM, term and SIGTERM as SIGTERM.
func canonicalSignal(text string) string {
	upper := strings.ToUpper(text)
	if upper == "" || strings.HasPrefix(upper, "SIG") {
		return upper
	}
	return "SIG" + upper
}
