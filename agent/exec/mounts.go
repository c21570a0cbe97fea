package exec

import (
	"fmt"
	"os"
	"strings"
)

// checkMounts refuses a folder in which a file system is mounted: a task of root may have
// left it there, and deleting the folder would delete what the file system holds.
func checkMounts(dir string) error {
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("look for mounts: %w", err)
	}
	if at := mountBelow(string(table), dir); at != "" {
		return fmt.Errorf("a file system is mounted at %s: unmount it first", at)
	}
	return nil
}

// mountEscapes are the characters that mountinfo writes as octal numbers.
var mountEscapes = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// mountBelow gives a mount point of the table, in mountinfo's form, at or below dir; empty: none.
func mountBelow(table, dir string) string {
	const pathField = 4
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) <= pathField {
			continue
		}
		path := mountEscapes.Replace(fields[pathField])
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return path
		}
	}
	return ""
}
