package exec

import (
	"bufio"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// anyNumber stands for every major or minor number in a deviceRule.
const anyNumber = -1

// deviceRule lets a task use device files by their kind and numbers.
type deviceRule struct {
	kind         byte   // 'c' or 'b'
	major, minor int64  // anyNumber: all
	access       string // of r, w and m (mknod)
}

func (r deviceRule) String() string {
	number := func(n int64) string {
		if n == anyNumber {
			return "*"
		}
		return strconv.FormatInt(n, 10)
	}
	return string(r.kind) + " " + number(r.major) + ":" + number(r.minor) + " " + r.access
}

// baseDevices are what every task may use. Making a device file gives no access to it.
var baseDevices = []deviceRule{
	{'c', anyNumber, anyNumber, "m"},
	{'b', anyNumber, anyNumber, "m"},
	{'c', 1, 3, "rwm"}, // null
	{'c', 1, 5, "rwm"}, // zero
	{'c', 1, 7, "rwm"}, // full
	{'c', 1, 8, "rwm"}, // random
	{'c', 1, 9, "rwm"}, // urandom
	{'c', 5, 0, "rwm"}, // tty
	{'c', 5, 2, "rwm"}, // ptmx
	{'c', 136, anyNumber, "rwm"},
}

// networkDevices carry bytes between hosts past the kernel; every task may use them, as it
// may use the network.
var networkDevices = []string{"/dev/infiniband/*", "/dev/knem"}

// acceleratorDevices are what a task needs beside the device files that it was granted:
// those that control all devices of their kind.
var acceleratorDevices = []string{
	"/dev/nvidiactl", "/dev/nvidia-modeset", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools",
	"/dev/nvidia-caps/*", "/dev/nvidia-caps-imex-channels/*", "/dev/gdrdrv", "/dev/kfd", "/dev/vfio/vfio",
}

// acceleratorDrivers are names of the same in /proc/devices: their numbers are known there
// even while their files are not.
var acceleratorDrivers = []string{"nvidia-uvm", "nvidia-caps", "nvidia-caps-imex-channels", "gdrdrv"}

// deviceRules gives what the task may use: granted are patterns of its devices' files,
// allowed of those that the node's operator lets every task use.
func deviceRules(granted, allowed []string) []deviceRule {
	patterns := append(append([]string{}, networkDevices...), allowed...)
	rules := append([]deviceRule{}, baseDevices...)
	if len(granted) > 0 {
		patterns = append(append(patterns, acceleratorDevices...), granted...)
		rules = append(rules, driverRules("/proc/devices", acceleratorDrivers)...)
	}
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			continue
		}
		for _, file := range files {
			if r, ok := ruleOf(file); ok {
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// ruleOf gives the rule for one device file.
func ruleOf(file string) (deviceRule, bool) {
	var st unix.Stat_t
	if unix.Stat(file, &st) != nil {
		return deviceRule{}, false
	}
	r := deviceRule{major: int64(unix.Major(st.Rdev)), minor: int64(unix.Minor(st.Rdev)), access: "rw"}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFCHR:
		r.kind = 'c'
	case unix.S_IFBLK:
		r.kind = 'b'
	default:
		return deviceRule{}, false
	}
	return r, true
}

// driverRules gives the rules for all devices of the drivers so named in the table.
func driverRules(table string, names []string) (rules []deviceRule) {
	f, err := os.Open(table)
	if err != nil {
		return nil
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() && !strings.HasPrefix(lines.Text(), "Block devices") {
		number, name, found := strings.Cut(strings.TrimSpace(lines.Text()), " ")
		major, err := strconv.ParseInt(number, 10, 32)
		if !found || err != nil {
			continue
		}
		for _, wanted := range names {
			if name == wanted {
				rules = append(rules, deviceRule{'c', major, anyNumber, "rw"})
			}
		}
	}
	return rules
}

// limitDevices holds the group's processes to the device files of the rules: by a program
// in the unified hierarchy, or by v1's list. What cannot be had is left out, as with the
// group itself: an agent without rights has no devices that root alone may use.
func (g *group) limitDevices(rules []deviceRule) error {
	if g.v2 != "" {
		dir := g.openV2()
		if dir == nil {
			return nil
		}
		defer dir.Close()
		err := attachDeviceFilter(int(dir.Fd()), deviceFilter(rules))
		if err == unix.EPERM || err == unix.ENOSYS {
			return nil
		}
		return err
	}
	dir, there := g.v1["devices"]
	if !there {
		return nil
	}
	if err := writeControl(dir, "devices.deny", "a"); err != nil {
		return err
	}
	for _, r := range rules {
		if err := writeControl(dir, "devices.allow", r.String()); err != nil {
			return err
		}
	}
	return nil
}
