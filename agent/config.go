package agent

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"llmos/agent/device"
	"llmos/proto/fault"
	pb "llmos/proto/llmos/v1"
	"llmos/transport"
)

// Defaults of a Config.
const (
	DefaultListen  = ":7301"
	DefaultPortMin = 20000 // of the range from which tasks get ports, inclusive
	DefaultPortMax = 29999
)

// What becomes of a task that holds more of a shared device than it was granted.
const (
	OverrunEnd  = "end"  // it is warned, and ended when the next look sees it so too
	OverrunWarn = "warn" // it is warned
	OverrunOff  = "off"  // nothing
)

const (
	warmShims       = 2                // kept ready, so that a start waits for no process of ours
	inventoryEvery  = 15 * time.Second // between two looks at the devices
	inventoryFast   = time.Second      // the same with the timing of one host's tests
	nameBytesMax    = 63
	maxLabels       = 64
	labelBytesMax   = 256
	stopTimeout     = 5 * time.Second // for calls in progress when the agent ends
	gossipLeaveTime = time.Second
)

// Config says how one agent runs. DefaultConfig gives the defaults; DataDir has none.
type Config struct {
	// DataDir holds everything the agent keeps: identity, keys, journal, tasks and their
	// logs. It is made when absent. Task users must be able to pass through its parents.
	DataDir string
	// Listen is host:port of the one port (TCP and UDP); an empty host is every interface,
	// port 0 picks a free one.
	Listen string
	// Advertise is host:port, or a host alone, that servers reach this agent at and that
	// tasks on other nodes reach its tasks at. Default: Listen's host, or this machine's
	// first address that is not loopback; the bound port.
	Advertise string
	// Name is what people call this node. Default: the host name.
	Name string
	// Join lists servers (host:port) to find the cluster by.
	Join []string
	// Token is the join token; used in an empty DataDir alone.
	Token string
	// Devices scripts the node's devices ("4xH100-80GB", or a YAML file) in place of what
	// the hardware has; "none" is no devices at all. Empty: the hardware's.
	Devices string
	// XIDs says what is done about errors of GPUs. The zero value is the program's table.
	XIDs device.XIDTable
	// StrangerBytes is how much of a device's memory processes of no task must hold for it to
	// take no new work; 0: health.StrangerBytesMin; negative: they may hold all.
	StrangerBytes int64
	// Overrun says what becomes of a task that holds more of a shared device than it was
	// granted: OverrunEnd (the default), OverrunWarn or OverrunOff.
	Overrun string
	// AllowMIG lets operators have this agent make and destroy MIG slices.
	AllowMIG bool
	// CPUMilli and MemoryBytes replace what the host has to give; 0: what is found.
	CPUMilli, MemoryBytes int64
	// SharedDir is a directory that every node sees; each job gets a folder in it. Empty: none.
	SharedDir string
	// Labels describe the node for placement.
	Labels map[string]string
	// TaskUser runs the tasks that name no user. Empty: the agent's own.
	TaskUser string
	// AllowDevices are patterns of device files, such as /dev/fuse, that every task may use
	// beside those that it was granted and those that no program can do without.
	AllowDevices []string
	// Engine is the Unix socket of the container engine. Empty: Docker's or Podman's, where
	// they listen by default, looked for when a task needs it.
	Engine string
	// NoLandlock lets tasks of other users than the agent's reach what the modes of files
	// let them, of the data directory and of each other. With Landlock they do not, but
	// cannot mount file systems in namespaces of their own either.
	NoLandlock bool
	// PortMin and PortMax bound, inclusive, the ports given to tasks.
	PortMin, PortMax int
	// Self is the path of the llmos binary, whose hidden verbs are the shim and the NVML
	// probe. Default: this program.
	Self string
	// Version is the program's version, shown with the node.
	Version string
	// Gossip lets the agent take part in gossip, by which it finds servers that it was not
	// told of. FastGossip uses the timing of one host's tests.
	Gossip, FastGossip bool
	// Log receives everything worth telling. Default: discarded.
	Log *slog.Logger
}

// DefaultConfig gives a configuration that lacks only DataDir and a way to join.
func DefaultConfig() Config {
	return Config{Listen: DefaultListen, PortMin: DefaultPortMin, PortMax: DefaultPortMax, Gossip: true,
		Log: slog.New(slog.DiscardHandler)}
}

var nodeName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?$`)

// Validate checks the fields and their relations; what is wrong is a fault that names the
// field and says what to do.
func (c Config) Validate() error {
	bad := func(field, format string, args ...any) *fault.Error {
		return fault.New(pb.ErrorKind_ERROR_KIND_INVALID, format, args...).At(field, 0)
	}
	if c.DataDir == "" {
		return bad("data-dir", "no data directory is given").Hint("name a directory of this agent's own with --data-dir")
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		return bad("listen", "%q is not host:port", c.Listen).Hint("give it as in --listen :7301")
	}
	if c.Log == nil {
		return bad("log", "no logger is given")
	}
	for _, addr := range c.Join {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			return bad("join", "%q is not host:port", addr).Hint("name a server as in --join 10.0.0.1:7300")
		}
	}
	if c.Name != "" && (len(c.Name) > nameBytesMax || !nodeName.MatchString(c.Name)) {
		return bad("name", "%q cannot be a node's name", c.Name).
			Hint("use letters, digits, '.', '_' and '-', at most %d of them", nameBytesMax)
	}
	return c.validateTasks(bad)
}

// validateTasks checks what concerns the tasks of the node.
func (c Config) validateTasks(bad func(field, format string, args ...any) *fault.Error) error {
	if c.PortMin < 1 || c.PortMax > 65535 || c.PortMin > c.PortMax {
		return bad("port-range", "the ports for tasks, %d to %d, are not a range within 1 to 65535", c.PortMin, c.PortMax).
			Hint("give them as in --port-range 20000-29999")
	}
	switch c.Overrun {
	case "", OverrunEnd, OverrunWarn, OverrunOff:
	default:
		return bad("memory-overrun", "%q says nothing", c.Overrun).Hint("choose %s, %s or %s", OverrunEnd, OverrunWarn, OverrunOff)
	}
	if c.CPUMilli < 0 {
		return bad("cpu", "the CPU capacity of %d millicores is negative", c.CPUMilli)
	}
	if c.MemoryBytes < 0 {
		return bad("memory", "the memory capacity of %d bytes is negative", c.MemoryBytes)
	}
	if c.SharedDir != "" {
		if !filepath.IsAbs(c.SharedDir) {
			return bad("shared-dir", "%q is not an absolute path", c.SharedDir)
		}
		if info, err := os.Stat(c.SharedDir); err != nil || !info.IsDir() {
			return bad("shared-dir", "%s is not a directory on this node", c.SharedDir).Hint("mount or make it before the agent starts")
		}
	}
	if c.TaskUser != "" {
		if err := checkTaskUser(c.TaskUser); err != nil {
			return bad("user", "%w", err).Hint("name a user that `id %s` knows", c.TaskUser)
		}
	}
	if c.Engine != "" && !filepath.IsAbs(c.Engine) {
		return bad("engine", "%q is no socket's absolute path", c.Engine).Hint("give it as in --engine /run/docker.sock")
	}
	for _, pattern := range c.AllowDevices {
		if _, err := filepath.Match(pattern, ""); err != nil || !strings.HasPrefix(pattern, "/dev/") {
			return bad("allow-device", "%q is no device file", pattern).Hint("name one or several as in --allow-device /dev/fuse or '/dev/video*'")
		}
	}
	if len(c.Labels) > maxLabels {
		return bad("labels", "the node has %d labels, at most %d", len(c.Labels), maxLabels)
	}
	for key, value := range c.Labels {
		if key == "" || len(key)+len(value) > labelBytesMax {
			return bad("labels", "the label %q has no name or is longer than %d bytes", key+"="+value, labelBytesMax)
		}
	}
	return nil
}

// RootTasks says whether tasks that name no user run as root.
func (c Config) RootTasks() bool { return c.TaskUser == "" && os.Geteuid() == 0 }

// name gives the node's name.
func (c Config) name() string {
	if c.Name != "" {
		return c.Name
	}
	if h, err := os.Hostname(); err == nil {
		return h
	}
	return "node"
}

// advertised gives host:port that others reach an agent at which is bound to port.
func (c Config) advertised(port int) (string, error) {
	return transport.Advertised(c.Advertise, c.Listen, port)
}

// hosts gives the names and addresses for this agent's certificate.
func (c Config) hosts() []string {
	out := []string{"localhost", "127.0.0.1", "::1"}
	seen := map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true, "": true}
	add := func(h string) {
		if !seen[h] {
			seen[h] = true
			out = append(out, h)
		}
	}
	if adv, err := c.advertised(0); err == nil {
		host, _, _ := net.SplitHostPort(adv)
		add(host)
	}
	if name, err := os.Hostname(); err == nil {
		add(name)
	}
	return out
}
