package rig

import (
	"fmt"
	"net"
	"os"
	"sync"
)

// The ports of test processes lie below the range of the kernel's outgoing connections and
// of llmos' tasks.
const (
	firstPort  = 11000
	portSpread = 8900
)

// FreePort finds a port that is free for TCP and UDP below the range from which the kernel
// takes the ports of outgoing connections, so that a restart finds it free again.
func FreePort() (int, error) {
	portMu.Lock()
	defer portMu.Unlock()
	for range 2000 {
		nextPort++
		if nextPort >= firstPort+portSpread {
			nextPort = firstPort
		}
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		if err != nil {
			continue
		}
		u, err := net.ListenPacket("udp", fmt.Sprintf("127.0.0.1:%d", nextPort))
		l.Close()
		if err != nil {
			continue
		}
		u.Close()
		return nextPort, nil
	}
	return 0, fmt.Errorf("no free port between %d and %d", firstPort, firstPort+portSpread)
}

var (
	portMu   sync.Mutex
	nextPort = firstPort + int(uint32(os.Getpid())*2654435761%portSpread) // processes side by side begin far apart
)
