package device

import (
	"fmt"
	"regexp"
	"strings"
)

// soldSizesGB are the memory sizes that GPUs are sold with. NVML reports a little less, what
// ECC and the firmware leave.
var soldSizesGB = []int64{2, 3, 4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 80, 94, 96, 141, 144, 180, 192, 288}

// nameless are the parts of a vendor's name that do not tell one model from another here:
// the brand, the way it is plugged in, the kind of memory and its size.
var nameless = regexp.MustCompile(`(?i)^(nvidia|tesla|geforce|graphics|sxm[0-9]*|pcie?|nvl|hbm[0-9]*e?|[0-9]+gb|)$`)

// modelName makes the model that people write in a job file, such as H100-80GB, from the
// vendor's name, such as "NVIDIA H100 80GB HBM3", and the memory in bytes.
func modelName(name string, memoryBytes int64) string {
	var parts []string
	for _, part := range strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '-' || r == '_' }) {
		if !nameless.MatchString(part) {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		parts = []string{"GPU"}
	}
	model := strings.Join(parts, "-")
	if memoryBytes <= 0 {
		return model
	}
	return fmt.Sprintf("%s-%dGB", model, soldGB(memoryBytes))
}

func soldGB(memoryBytes int64) int64 {
	for _, gb := range soldSizesGB {
		if memoryBytes <= gb<<30 {
			return gb
		}
	}
	return (memoryBytes + 1<<30 - 1) >> 30
}
