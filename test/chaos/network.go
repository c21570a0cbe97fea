package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// network is the cluster's wires: a bridge with one namespace for each process when the
// program may make them, or plain loopback, where nothing can be cut.
type network struct {
	isolated bool
	cuts     map[[2]string]bool // from, to: packets in this direction are dropped
}

// canIsolate reports whether namespaces, ip and nft are there for us.
func canIsolate() bool {
	if os.Geteuid() != 0 {
		return false
	}
	for _, tool := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			fmt.Printf("chaos: %s is not installed; processes alone, no partitions\n", tool)
			return false
		}
	}
	return true
}

// reexecIsolated runs this program again in network and mount namespaces of its own, so
// that nothing it makes there outlives it or touches the machine's network.
func reexecIsolated() int {
	cmd := exec.Command("/proc/self/exe", append(os.Args[1:], "-isolated")...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if err := cmd.Run(); err != nil {
		if exit, ok := err.(*exec.ExitError); ok {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "chaos: make namespaces:", err)
		return 1
	}
	return 0
}

const bridge = "llbr"

func newNetwork(isolated bool) (*network, error) {
	n := &network{isolated: isolated, cuts: map[[2]string]bool{}}
	if !isolated {
		return n, nil
	}
	script := []string{
		"mount --make-rprivate /",
		"mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns",
		"ip link set lo up",
		"ip link add " + bridge + " type bridge",
		"ip addr add 10.77.0.1/24 dev " + bridge,
		"ip link set " + bridge + " up",
	}
	for kind, count := range map[string]int{"server": servers, "agent": agents} {
		for i := range count {
			name := port(kind, i)
			script = append(script,
				"ip netns add "+name,
				fmt.Sprintf("ip link add %s type veth peer name eth0 netns %s", name, name),
				fmt.Sprintf("ip link set %s master %s", name, bridge),
				fmt.Sprintf("ip link set %s up", name),
				fmt.Sprintf("ip -n %s addr add %s/24 dev eth0", name, ip(kind, i)),
				fmt.Sprintf("ip -n %s link set eth0 up", name),
				fmt.Sprintf("ip -n %s link set lo up", name))
		}
	}
	for _, line := range script {
		if out, err := exec.Command("sh", "-c", line).CombinedOutput(); err != nil {
			return nil, fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
		}
	}
	return n, nil
}

// port names the bridge's end of a process's wire, and its namespace.
func port(kind string, i int) string { return fmt.Sprintf("ll%c%d", kind[0], i+1) }

func ip(kind string, i int) string {
	if kind == "server" {
		return fmt.Sprintf("10.77.0.%d", 11+i)
	}
	return fmt.Sprintf("10.77.0.%d", 21+i)
}

// host is the rig's view: what to run process i under, and its address.
func (n *network) host() func(kind string, i int) ([]string, string) {
	if !n.isolated {
		return nil
	}
	return func(kind string, i int) ([]string, string) {
		return []string{"ip", "netns", "exec", port(kind, i)}, ip(kind, i)
	}
}

// cut drops the packets that go from one port to another.
func (n *network) cut(pairs ...[2]string) error {
	for _, p := range pairs {
		n.cuts[p] = true
	}
	return n.apply()
}

// heal lets every packet pass again.
func (n *network) heal() error {
	if len(n.cuts) == 0 {
		return nil
	}
	n.cuts = map[[2]string]bool{}
	return n.apply()
}

func (n *network) apply() error {
	var rules strings.Builder
	rules.WriteString("table bridge llmos {}\ndelete table bridge llmos\ntable bridge llmos {\n chain cut {\n  type filter hook forward priority 0;\n")
	for pair := range n.cuts {
		fmt.Fprintf(&rules, "  iifname \"%s\" oifname \"%s\" drop\n", pair[0], pair[1])
	}
	rules.WriteString(" }\n}\n")
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules.String())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, strings.TrimSpace(string(out)))
	}
	return nil
}

func (n *network) close() {
	if n.isolated {
		_ = n.heal()
	}
}
