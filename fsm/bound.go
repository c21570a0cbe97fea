package fsm

import (
	"strings"
	"unicode/utf8"

	"llmos/fsm/state"
	pb "llmos/proto/llmos/v1"
)

// The bounds of what a command may bring into the state. The API refuses more with the line of
// the job file (server/jobspec); these keep the state bounded whatever a command says.
const (
	unfinishedJobsMax = 100_000
	jobNamesMax       = 1_000_000 // names ever used: their sequences are kept for good
	rolesMax          = 64        // of a job
	tasksMax          = 4096      // of a job
	portsMax          = 64        // of a role
	specBytesMax      = 1 << 20
	priorityMax       = 100
	retriesMax        = 1000
	lostAttemptsMax   = 100 // of a job, before it fails: its nodes never last
	claimsMax         = 10_000
	usageRecordsMax   = 1_000_000 // one for each day, queue and user
	nodesMax          = 100_000
	devicesMax        = 1024 // of a node
	labelsMax         = 64
	nodeBytesMax      = 1 << 20
	tokensMax         = 10_000
	gangsMax          = 10_000         // of a plan; evictions and claims alike
	reportsMax        = 100_000        // of a command
	namesShown        = 4              // in a sentence
	textBytesMax      = 1024           // of a reason, a name for people, an event
	quantityMax       = int64(1) << 56 // of bytes, millicores and milliseconds: sums cannot overflow
	timeMSMax         = int64(1) << 52 // year 144,683
	collectLimit      = 1000           // of each kind, when Collect says none
	collectLimitMax   = 100_000
)

// DeviceShareWhole is a whole device, in thousandths.
const DeviceShareWhole = 1000

func invalid(field, format string, args ...any) *pb.Fault {
	f := state.Refuse(pb.ErrorKind_ERROR_KIND_INVALID, "", format, args...)
	f.Field = field
	return f
}

func limit(hint, format string, args ...any) *pb.Fault {
	return state.Refuse(pb.ErrorKind_ERROR_KIND_LIMIT, hint, format, args...)
}

// cut bounds text for people to textBytesMax, at the end of a character.
func cut(s string) string {
	if len(s) > textBytesMax {
		s = s[:textBytesMax]
		for !utf8.ValidString(s) && len(s) > textBytesMax-utf8.UTFMax {
			s = s[:len(s)-1]
		}
	}
	return strings.ToValidUTF8(s, "?")
}

// quantity reports whether n is a possible amount.
func quantity(n int64) bool { return n >= 0 && n <= quantityMax }
