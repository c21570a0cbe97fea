package transport

import (
	"net"
	"strconv"
)

// Advertised gives host:port that others reach a member at which listens on listen and is
// bound to port: what advertise says, and for what it leaves open the listener's own host or,
// where that is every address, the first of this machine that others may reach.
func Advertised(advertise, listen string, port int) (string, error) {
	host, given, err := net.SplitHostPort(advertise)
	if err != nil {
		host, given = advertise, ""
	}
	if host == "" {
		if host, _, err = net.SplitHostPort(listen); err != nil {
			return "", err
		}
	}
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = firstAddress()
	}
	if given == "" || given == "0" {
		given = strconv.Itoa(port)
	}
	return net.JoinHostPort(host, given), nil
}

// firstAddress gives this machine's first address that others may reach, or loopback.
func firstAddress() string {
	best := "127.0.0.1"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return best
	}
	for _, a := range addrs {
		n, ok := a.(*net.IPNet)
		if !ok || !n.IP.IsGlobalUnicast() {
			continue
		}
		if n.IP.To4() != nil {
			return n.IP.String()
		}
		if best == "127.0.0.1" {
			best = n.IP.String()
		}
	}
	return best
}
