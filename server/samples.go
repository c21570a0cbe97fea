package server

import (
	"sync"

	pb "llmos/proto/llmos/v1"
)

// Limits of what nodes say of themselves, which is kept in the leader's memory alone.
const (
	sampledNodesMax   = 16384
	sampledDevicesMax = 1024 // of a node; a sample with more is dropped
	sampledOthersMax  = 256  // of a node: interfaces, sizes of huge pages
)

// nodeSamples remembers what each node last said that it has left. The zero value is empty;
// safe for concurrent use.
type nodeSamples struct {
	mu    sync.Mutex
	nodes map[string]*pb.NodeSample
}

// note keeps a sample, which is not changed afterwards.
func (n *nodeSamples) note(nodeID string, s *pb.NodeSample) {
	if s == nil || len(s.Devices) > sampledDevicesMax || len(s.Interfaces) > sampledOthersMax || len(s.HugePagesFree) > sampledOthersMax {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.nodes == nil {
		n.nodes = map[string]*pb.NodeSample{}
	}
	if _, known := n.nodes[nodeID]; !known && len(n.nodes) >= sampledNodesMax {
		clear(n.nodes) // nodes that are gone; the others say it again in seconds
	}
	n.nodes[nodeID] = s
}

// of gives the newest sample of a node; nil: none.
func (n *nodeSamples) of(nodeID string) *pb.NodeSample {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.nodes[nodeID]
}
