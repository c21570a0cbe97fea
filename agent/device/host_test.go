package device

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// fakeRoot writes files below a folder that stands for /.
func fakeRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, text := range files {
		full := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(full, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestProbeHost(t *testing.T) {
	plain := map[string]string{"proc/meminfo": "MemTotal:       65536000 kB\nMemFree: 1 kB\n",
		"proc/cpuinfo": "processor: 0\nmodel name\t: EPYC 9654\nmodel name : other\n", "etc/os-release": "NAME=x\nPRETTY_NAME=\"Debian 12\"\n"}
	with := func(more map[string]string) map[string]string {
		all := map[string]string{}
		for _, m := range []map[string]string{plain, more} {
			for k, v := range m {
				all[k] = v
			}
		}
		return all
	}
	for _, c := range []struct {
		name   string
		files  map[string]string
		milli  int64
		memory int64
		numa   int
	}{
		{"no limits", plain, 16000, 65536000 << 10, 1},
		{"v2 quota of a parent", with(map[string]string{"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/b/cpu.max": "max 100000\n",
			"sys/fs/cgroup/a/cpu.max": "250000 100000\n", "sys/fs/cgroup/a/memory.max": "1073741824\n", "sys/fs/cgroup/a/b/memory.max": "max\n"}), 2500, 1 << 30, 1},
		{"v1", with(map[string]string{"proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/x\n0::/\n", "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "50000\n",
			"sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n", "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "9223372036854771712\n"}), 500, 65536000 << 10, 1},
		{"v1 without quota", with(map[string]string{"proc/self/cgroup": "4:cpu,cpuacct:/x\n", "sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "-1\n",
			"sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n"}), 16000, 65536000 << 10, 1},
		{"quota above the affinity", with(map[string]string{"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}), 16000, 65536000 << 10, 1},
		{"two NUMA nodes", with(map[string]string{"sys/devices/system/node/node0/x": "", "sys/devices/system/node/node1/x": "",
			"sys/devices/system/node/nodes_online": "0-1"}), 16000, 65536000 << 10, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			h, err := probeHost(fakeRoot(t, c.files), 16)
			if err != nil {
				t.Fatal(err)
			}
			if h.CPUMilli != c.milli || h.MemoryBytes != c.memory || h.NUMANodes != c.numa || h.CPUModel != "EPYC 9654" || !strings.HasPrefix(h.OS, "Debian 12 ") {
				t.Errorf("%+v", h)
			}
		})
	}
	if _, err := probeHost(fakeRoot(t, map[string]string{"proc/meminfo": "MemTotal: lots\n"}), 1); err == nil || !strings.Contains(err.Error(), `MemTotal is "lots"`) {
		t.Errorf("a host without memory gives %v", err)
	}
}

func TestHostsPagesAndInterfaces(t *testing.T) {
	root := fakeRoot(t, map[string]string{
		"proc/meminfo": "MemTotal: 65536000 kB\nMemAvailable: 1024 kB\n",
		"sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages": "512\n", "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages": "100\n",
		"sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages": "0\n",
		"sys/class/net/lo/flags":                                   "0x9\n",
		"sys/class/net/eth0/flags":                                 "0x1003\n", "sys/class/net/eth0/speed": "25000\n",
		"sys/class/net/eth0/device/numa_node": "1\n",
		"sys/class/net/ib0/flags":             "0x1003\n", "sys/class/net/ib0/device/infiniband/mlx5_0/ports/1/rate": "400 Gb/sec (4X NDR)\n",
		"sys/class/net/down0/flags": "0x1002\n", "sys/class/net/down0/speed": "-1\n", "sys/class/net/down0/device/vendor": "0x15b3\n",
		"sys/class/net/veth1/flags": "0x1003\n", "sys/class/net/veth1/speed": "10000\n",
		"sys/class/net/eth0/statistics/rx_bytes": "1000\n", "sys/class/net/eth0/statistics/tx_bytes": "5000\n",
	})
	h, err := probeHost(root, 4)
	if err != nil {
		t.Fatal(err)
	}
	wantPages := []HugePages{{PageBytes: 2 << 20, Pages: 512}}
	want := []Interface{{Name: "down0", NUMANode: -1}, {Name: "eth0", SpeedMbit: 25000, NUMANode: 1}, {Name: "ib0", SpeedMbit: 400_000, NUMANode: -1}}
	if !slices.Equal(h.HugePages, wantPages) || !slices.Equal(h.Interfaces, want) {
		t.Errorf("%+v and %+v", h.HugePages, h.Interfaces)
	}
	if free := probeHugePages(root); free[0].Free != 100 || memoryAvailable(root) != 1<<20 {
		t.Errorf("free %+v, memory %d", free, memoryAvailable(root))
	}
	w := Wires{root: root}
	at := time.Unix(1000, 0)
	if r := w.Rates(h.Interfaces, at); len(r) != 0 {
		t.Errorf("rates of one look: %v", r)
	}
	for name, text := range map[string]string{"rx_bytes": "21000\n", "tx_bytes": "4000\n"} { // what was sent has begun anew
		if err := os.WriteFile(filepath.Join(root, "sys/class/net/eth0/statistics", name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if r := w.Rates(h.Interfaces, at.Add(10*time.Second)); len(r) != 0 {
		t.Errorf("rates over a counter that began anew: %v", r)
	}
	if err := os.WriteFile(filepath.Join(root, "sys/class/net/eth0/statistics/tx_bytes"), []byte("5000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := w.Rates(h.Interfaces, at.Add(20*time.Second)); len(r) != 1 || r[0] != (Rate{Name: "eth0", SendBytesPerS: 100}) {
		t.Errorf("rates %v", r)
	}
	other, err := probeHost(root, 4)
	if err != nil || !h.equal(other) {
		t.Errorf("the same host is another: %+v", other)
	}
	if other.Interfaces[1].SpeedMbit = 10; h.equal(other) {
		t.Error("a slower link is no news")
	}
	container := fakeRoot(t, map[string]string{"sys/class/net/lo/flags": "0x9\n", "sys/class/net/eth0/flags": "0x1003\n"})
	if got := probeInterfaces(container); len(got) != 1 || got[0].Name != "eth0" {
		t.Errorf("of a container: %v", got)
	}
	if d := DiskOf(root); d.Bytes <= 0 || d.FreeBytes < 0 || d.FreeBytes > d.Bytes || DiskOf("/no/such/place") != (Disk{}) {
		t.Errorf("disk %+v", d)
	}
}
