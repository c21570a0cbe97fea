package main

import (
	"net"
	"strings"
)

// notifySystemd tells the service manager that started this process about its state, such
// as READY=1 or STOPPING=1: sd_notify(3). Without a manager it does nothing.
func (a *app) notifySystemd(state string) {
	path := a.env("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	if strings.HasPrefix(path, "@") {
		path = "\x00" + path[1:]
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return // the manager notices the missing word by its own timeout
	}
	defer conn.Close()
	_, _ = conn.Write([]byte(state))
}
