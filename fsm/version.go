package fsm

import pb "llmos/proto/llmos/v1"

// StateVersion is the version of what commands mean that this program writes. A cluster keeps the
// version that it has (ClusterMeta.state_version) until a leader raises it with InitCluster, once
// every server can follow: until then the same log gives the same records as before, so that
// servers of two versions agree on every hash, and a log that an older server wrote is replayed to
// the hash that it had.
const StateVersion = 3

// versionScheduling brought ready, running and run times of jobs, usage, avoided nodes, the counts
// of attempts, and room kept for gangs that lost a node.
const versionScheduling = 2

// versionCheckpoints brought checkpoints and what attempts go on from.
const versionCheckpoints = 3

// versionDevices brought devices that are BLOCKED, nodes that their agents call unfit, and what
// nodes say of interfaces, huge pages and disks. Servers are upgraded before agents: what a newer
// agent says beside is not kept under an older version, and the controller says FAILED for BLOCKED.
const versionDevices = 3

// stateVersionOf is the version that InitCluster asks for: the newest when it does not say.
func stateVersionOf(m *pb.ClusterMeta) uint32 {
	if m.StateVersion == 0 {
		return StateVersion
	}
	return m.StateVersion
}

// keepsTimes reports whether commands that version 1 knew write what version 2 brought.
func (a *applier) keepsTimes() bool {
	cluster := a.txn.Cluster()
	return cluster == nil || cluster.StateVersion >= versionScheduling
}

// keepsDevices reports whether a node's record may hold what version 3 brought.
func (a *applier) keepsDevices() bool {
	cluster := a.txn.Cluster()
	return cluster == nil || cluster.StateVersion >= versionDevices
}

// readyMS is the time at which a job begins to wait for a placement: now.
func (a *applier) readyMS() int64 {
	if !a.keepsTimes() {
		return 0
	}
	return a.txn.TimeMS()
}
