package device

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

const interfacesMax = 64 // of a host

// Interface is a network interface of the host: one with hardware behind it, or the only ones
// that there are.
type Interface struct {
	Name      string
	SpeedMbit int64  // of the link; 0: unknown, or it is down
	NUMANode  int32  // -1: unknown
	BusID     string // empty: not on PCI
}

// Rate is what went through an interface between two looks.
type Rate struct {
	Name                            string
	ReceiveBytesPerS, SendBytesPerS int64
}

// probeInterfaces lists the interfaces below root by name. InfiniBand ports count by the rate
// of the port, which their network interfaces do not tell.
func probeInterfaces(root string) []Interface {
	names, err := os.ReadDir(filepath.Join(root, "sys/class/net"))
	if err != nil {
		return nil
	}
	var hard, soft []Interface
	for _, entry := range names {
		dir := filepath.Join(root, "sys/class/net", entry.Name())
		if flags, ok := readHex(filepath.Join(dir, "flags")); !ok || flags&8 != 0 { // IFF_LOOPBACK
			continue
		}
		i := Interface{Name: entry.Name(), NUMANode: unknown}
		if speed, ok := readInt(filepath.Join(dir, "speed")); ok && speed > 0 {
			i.SpeedMbit = speed
		}
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
			soft = append(soft, i)
			continue
		}
		if node, ok := readInt(filepath.Join(dir, "device/numa_node")); ok {
			i.NUMANode = int32(node)
		}
		i.BusID = pciAddress(filepath.Join(dir, "device"))
		if rate := infinibandMbit(filepath.Join(dir, "device/infiniband")); rate > 0 {
			i.SpeedMbit = rate
		}
		hard = append(hard, i)
	}
	if len(hard) == 0 {
		hard = soft // a container has virtual ones alone
	}
	return hard[:min(len(hard), interfacesMax)]
}

// infinibandMbit is the rate of the fastest port, from text such as "400 Gb/sec (4X NDR)"; 0: none.
func infinibandMbit(dir string) (best int64) {
	files, err := filepath.Glob(filepath.Join(dir, "*/ports/*/rate"))
	if err != nil {
		return 0
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		number, rest, _ := strings.Cut(strings.TrimSpace(string(text)), " ")
		gbit, err := strconv.ParseFloat(number, 64)
		if err == nil && strings.HasPrefix(rest, "Gb/sec") && gbit > 0 && gbit < 1e6 {
			best = max(best, int64(gbit*1000))
		}
	}
	return best
}

// pciAddress is the last part of the path that a link to a PCI device leads to; empty when
// it leads elsewhere.
func pciAddress(link string) string {
	path, err := filepath.EvalSymlinks(link)
	if err != nil || strings.Count(filepath.Base(path), ":") != 2 {
		return ""
	}
	return filepath.Base(path)
}

func readHex(path string) (uint64, bool) {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimPrefix(strings.TrimSpace(string(text)), "0x"), 16, 64)
	return n, err == nil
}

// Wires measures what goes through interfaces. The zero value has not looked yet.
type Wires struct {
	root string // empty: /
	at   time.Time
	last map[string][2]int64 // by name: bytes received and sent since the host's start
}

// Rates gives what went through each interface since the last call, by name; nothing at the first.
func (w *Wires) Rates(interfaces []Interface, now time.Time) (rates []Rate) {
	passed := now.Sub(w.at).Seconds()
	next := make(map[string][2]int64, len(interfaces))
	for _, i := range interfaces {
		dir := filepath.Join("/", w.root, "sys/class/net", filepath.Base(i.Name), "statistics")
		in, ok1 := readInt(filepath.Join(dir, "rx_bytes"))
		out, ok2 := readInt(filepath.Join(dir, "tx_bytes"))
		if !ok1 || !ok2 {
			continue
		}
		next[i.Name] = [2]int64{in, out}
		if before, known := w.last[i.Name]; known && passed > 0 && in >= before[0] && out >= before[1] {
			rates = append(rates, Rate{Name: i.Name, ReceiveBytesPerS: int64(float64(in-before[0]) / passed), SendBytesPerS: int64(float64(out-before[1]) / passed)})
		}
	}
	w.at, w.last = now, next
	slices.SortFunc(rates, func(a, b Rate) int { return strings.Compare(a.Name, b.Name) })
	return rates
}
