package main

import "llmos/server/scheduler"

// singles are jobs of one task: of ten 6 with 1 GPU, 2 with 2, one with 4 and one with 8,
// with the CPU and memory that such jobs ask, in three sizes.
func singles() []scheduler.Role {
	var roles []scheduler.Role
	for _, cpu := range []int64{4000, 8000, 12_000} {
		for _, gpus := range []int32{1, 1, 1, 1, 1, 1, 2, 2, 4, 8} {
			roles = append(roles, role(1, gpus, cpu))
		}
	}
	return roles
}

func gangsOf(tasks, gpus int32) []scheduler.Role {
	return []scheduler.Role{role(tasks, gpus, 8000), role(tasks, gpus, 12_000)}
}

// mixed are singles, shares, gangs and tasks without GPUs, with 1 to 14 CPUs a device: 112
// shapes, and soon as many states of nodes as there are nodes.
func mixed() []scheduler.Role {
	roles := []scheduler.Role{role(1, 1, 0), role(1, 1, 0), role(1, 1, 0), role(1, 2, 0), role(1, 4, 0), role(1, 8, 0), role(4, 1, 0), role(2, 8, 0)}
	shared := role(1, 1, 0)
	shared.Task.Share = 250
	return append(roles, shared, role(1, 0, 0))
}

// role asks CPU and memory by the device.
func role(tasks, gpus int32, cpu int64) scheduler.Role {
	per := int64(max(1, gpus))
	return scheduler.Role{Name: "worker", Count: tasks, Task: scheduler.Request{CPU: cpu * per, Memory: 64 << 30 * per, GPUs: gpus}}
}
