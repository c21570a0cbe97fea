package exec

import (
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The unified hierarchy holds a group to device files by a small program that the kernel
// runs at each opening. It is written here instruction by instruction: it is a list of
// comparisons, and needs no compiler and no library.

// instruction is one of a BPF program, as the kernel takes it.
type instruction struct {
	code      uint8
	registers uint8 // destination in the low half, source in the high one
	offset    int16
	value     int32
}

// What the kernel hands to the program, by byte offset of the context in register 1, and
// its numbers for kinds and accesses.
const (
	contextAccess, contextMajor, contextMinor = 0, 4, 8
	filterBlock, filterChar                   = 1, 2
	filterMknod, filterRead, filterWrite      = 1, 2, 4
)

const (
	opLoad32    = unix.BPF_LDX | unix.BPF_W | unix.BPF_MEM
	opMove      = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X
	opMoveValue = unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K
	opAndValue  = unix.BPF_ALU64 | unix.BPF_AND | unix.BPF_K
	opShift     = unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K
	opUnless    = unix.BPF_JMP | unix.BPF_JNE | unix.BPF_K // jumps when they differ
	opReturn    = unix.BPF_JMP | unix.BPF_EXIT
)

// deviceFilter writes the program that answers 1 for what a rule allows, else 0. Register 2
// holds the kind, 3 the access, 4 and 5 the numbers, 6 the part of the access that a rule
// lacks.
func deviceFilter(rules []deviceRule) []instruction {
	program := []instruction{
		{opLoad32, 0x12, contextAccess, 0},
		{opMove, 0x23, 0, 0},
		{opAndValue, 0x02, 0, 0xffff},
		{opShift, 0x03, 0, 16},
		{opLoad32, 0x14, contextMajor, 0},
		{opLoad32, 0x15, contextMinor, 0},
	}
	for _, r := range rules {
		kind := int32(filterChar)
		if r.kind == 'b' {
			kind = filterBlock
		}
		lacking := ^accessBits(r.access) & (filterMknod | filterRead | filterWrite)
		block := []instruction{{opUnless, 0x02, 0, kind}, {opMove, 0x36, 0, 0}, {opAndValue, 0x06, 0, lacking}, {opUnless, 0x06, 0, 0}}
		if r.major != anyNumber {
			block = append(block, instruction{opUnless, 0x04, 0, int32(r.major)})
		}
		if r.minor != anyNumber {
			block = append(block, instruction{opUnless, 0x05, 0, int32(r.minor)})
		}
		block = append(block, instruction{opMoveValue, 0x00, 0, 1}, instruction{opReturn, 0, 0, 0})
		for i := range block {
			if block[i].code == opUnless {
				block[i].offset = int16(len(block) - i - 1)
			}
		}
		program = append(program, block...)
	}
	return append(program, instruction{opMoveValue, 0x00, 0, 0}, instruction{opReturn, 0, 0, 0})
}

func accessBits(access string) (bits int32) {
	for letter, bit := range map[string]int32{"m": filterMknod, "r": filterRead, "w": filterWrite} {
		if strings.Contains(access, letter) {
			bits |= bit
		}
	}
	return bits
}

// programAttributes and attachAttributes are the first fields of the kernel's union bpf_attr.
type programAttributes struct {
	kind, count           uint32
	instructions, license uint64
	logLevel, logSize     uint32
	log                   uint64
	kernel, flags         uint32
	name                  [16]byte
	ifindex, attach       uint32
}

type attachAttributes struct{ target, program, kind, flags uint32 }

// attachDeviceFilter loads the program and binds it to the group; it lives as long as that.
func attachDeviceFilter(group int, program []instruction) error {
	license := []byte("MIT\x00")
	load := programAttributes{kind: unix.BPF_PROG_TYPE_CGROUP_DEVICE, count: uint32(len(program)), attach: unix.BPF_CGROUP_DEVICE,
		instructions: uint64(uintptr(unsafe.Pointer(&program[0]))), license: uint64(uintptr(unsafe.Pointer(&license[0])))}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&load)), unsafe.Sizeof(load))
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if errno != 0 {
		return errno
	}
	defer unix.Close(int(fd))
	attach := attachAttributes{target: uint32(group), program: uint32(fd), kind: unix.BPF_CGROUP_DEVICE, flags: unix.BPF_F_ALLOW_MULTI}
	if _, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_ATTACH, uintptr(unsafe.Pointer(&attach)), unsafe.Sizeof(attach)); errno != 0 {
		return errno
	}
	return nil
}
