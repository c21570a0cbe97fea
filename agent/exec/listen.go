package exec

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// ErrNotListening says that no process of the task listens on the port.
var ErrNotListening = errors.New("nothing listens there")

// tcpListen is the state of a listening socket in /proc/net/tcp.
const tcpListen = "0A"

// Listens gives an address of this host at which a process of the task that lives in dir
// listens on the port.
func Listens(dir string, port int) (addr string, err error) {
	sockets, err := listening(port)
	if err != nil {
		return "", err
	}
	if len(sockets) == 0 {
		return "", ErrNotListening
	}
	owners := OwnersOf([]string{dir})
	for _, pid := range processes() {
		if _, ok := owners.Of(pid); !ok {
			continue
		}
		for _, inode := range socketsOf(pid) {
			if addr, ok := sockets[inode]; ok {
				return addr, nil
			}
		}
	}
	return "", fmt.Errorf("%w: the port belongs to somebody else", ErrNotListening)
}

// listening gives the sockets of this host that listen on the port: the address to connect to
// by inode.
func listening(port int) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range []string{"/proc/net/tcp", "/proc/net/tcp6"} {
		f, err := os.Open(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			fields := strings.Fields(lines.Text())
			if len(fields) < 10 || fields[3] != tcpListen {
				continue
			}
			if addr, at, ok := socketAddr(fields[1]); ok && at == port {
				out[fields[9]] = addr
			}
		}
		f.Close()
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("read %s: %w", name, err)
		}
	}
	return out, nil
}

// socketAddr reads an address as /proc/net/tcp writes it: words of four bytes in the host's
// order, then the port. An address that stands for all gives the loopback one.
func socketAddr(text string) (addr string, port int, ok bool) {
	host, portText, found := strings.Cut(text, ":")
	number, err := strconv.ParseUint(portText, 16, 16)
	raw, err2 := hex.DecodeString(host)
	if !found || err != nil || err2 != nil || len(raw)%4 != 0 {
		return "", 0, false
	}
	for i := 0; i < len(raw); i += 4 { // every platform with NVML has the little end first
		raw[i], raw[i+1], raw[i+2], raw[i+3] = raw[i+3], raw[i+2], raw[i+1], raw[i]
	}
	ip, ok := netip.AddrFromSlice(raw)
	if !ok {
		return "", 0, false
	}
	switch {
	case ip.IsUnspecified() && ip.Is4():
		return "127.0.0.1", int(number), true
	case ip.IsUnspecified():
		return "localhost", int(number), true // most take connections of both kinds
	}
	return ip.Unmap().String(), int(number), true
}

// socketsOf gives the inodes of the sockets that a process has open.
func socketsOf(pid int) (inodes []string) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		link, err := os.Readlink(filepath.Join(dir, e.Name()))
		if err != nil {
			continue
		}
		if inode, ok := strings.CutPrefix(link, "socket:["); ok {
			inodes = append(inodes, strings.TrimSuffix(inode, "]"))
		}
	}
	return inodes
}
