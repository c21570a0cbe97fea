// Package mpi starts the ranks of Open MPI in the tasks of an attempt, without ssh. Each task
// of an MPI job runs the hidden verb TaskVerb. In rank 0 it runs mpirun, with AgentVerb in the
// place of ssh; in the others it waits for the command line that would go through ssh, which
// starts Open MPI's daemon there. The tasks talk over mutual TLS under the attempt's key, on
// ports that the ledger holds, so that no other attempt's mpirun, and nobody else, can start
// anything. Each rank runs below RankVerb: it writes to its own task's log, and its exit is its
// own task's, so that the rank that fails first is the one that is named.
//
// It knows no job and no cluster: it reads the environment that the agent has set. The agent's
// supervisor puts TaskVerb before the command, and main calls Main.
package mpi

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"llmos/transport/collective"
)

// The hidden verbs of the program.
const (
	TaskVerb  = "mpi-task"  // -- COMMAND...: what a task runs
	AgentVerb = "mpi-agent" // HOST COMMAND...: what mpirun runs in place of ssh
	RankVerb  = "mpi-rank"  // -- COMMAND...: what mpirun starts as a rank
)

// PeersVariable names the addresses of the tasks' verbs, by rank, with commas between them.
const PeersVariable = "LLMOS_MPI_PEERS"

// ownVariable is the port of this task's verb. stateVariable and outVariable tell a rank
// its file and its task's standard streams.
const (
	ownVariable   = "LLMOS_PORT_MPI"
	stateVariable = "LLMOS_MPI_STATE"
	outVariable   = "LLMOS_MPI_OUT"
)

const (
	hostPrefix      = "rank" // a task's name as Open MPI sees it, before its rank
	exitSetup       = 78     // EX_CONFIG: the task cannot run as an MPI rank here
	exitKilled      = 128 + 9
	dialWithin      = 60 * time.Second // until the verb of another task listens
	dialRetry       = 100 * time.Millisecond
	handshakeWithin = 10 * time.Second
	lingerFailure   = 3 * time.Second // before a task says that another's failure ended it
	stopGrace       = 5 * time.Second // between SIGTERM and SIGKILL of what has lost its mpirun
)

// Main runs a hidden verb and gives its exit code.
func Main(verb string, args []string) int {
	var code int
	var err error
	switch {
	case verb == AgentVerb && len(args) >= 2:
		code, err = runAgent(args[0], strings.Join(args[1:], " "))
	case verb == TaskVerb && len(args) >= 2 && args[0] == "--":
		code, err = runTask(args[1:])
	case verb == RankVerb && len(args) >= 2 && args[0] == "--":
		code, err = runRank(args[1:])
	default:
		code, err = exitSetup, errors.New("this verb is llmos' own: it runs in the tasks of jobs with framework: mpi")
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "llmos: %v\n", err)
	}
	return code
}

// place is what the environment says of this task.
type place struct {
	collective.Config
	peers []string
}

func readPlace() (place, error) {
	conf, err := collective.FromEnv()
	if err != nil {
		return place{}, err
	}
	p := place{Config: conf, peers: strings.Split(os.Getenv(PeersVariable), ",")}
	if len(p.peers) != conf.World {
		return place{}, fmt.Errorf("%s names %d tasks, and the attempt has %d", PeersVariable, len(p.peers), conf.World)
	}
	return p, nil
}

// hostOf names a rank's task to Open MPI. Rank 0 is where mpirun is.
func hostOf(rank int) string {
	if rank == 0 {
		return "localhost"
	}
	return hostPrefix + strconv.Itoa(rank)
}

// rankOf reads what hostOf has written.
func rankOf(host string, world int) (int, error) {
	text, named := strings.CutPrefix(host, hostPrefix)
	rank, err := strconv.Atoi(text)
	if !named || err != nil || rank < 1 || rank >= world {
		return 0, fmt.Errorf("mpirun asks for host %q, and the hosts of this job are %s1 to %s%d: leave its host file to llmos",
			host, hostPrefix, hostPrefix, world-1)
	}
	return rank, nil
}

// hostFile lists the tasks, one rank each.
func hostFile(world int) string {
	var b strings.Builder
	for rank := range world {
		fmt.Fprintf(&b, "%s slots=1\n", hostOf(rank))
	}
	return b.String()
}

// loopback reports whether all tasks are on this host, reached by its loopback interface: then
// Open MPI, which leaves that out, must be told to use it.
func (p place) loopback() bool {
	for _, addr := range p.peers {
		host, _, err := net.SplitHostPort(addr)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return false
		}
	}
	return true
}
