package device

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
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
