package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// evidence is what tasks write about themselves: one line each, appended to one file by a
// single write, and a lock held on a file of every device while they live.
type evidence struct{ dir string }

func newEvidence(shared string) (*evidence, error) {
	dir := filepath.Join(shared, "evidence")
	return &evidence{dir: dir}, os.MkdirAll(filepath.Join(dir, "devices"), 0o777)
}

// line is one sentence of a task: what, of which job, epoch and rank.
type line struct {
	what  string // start, end, conflict
	job   string
	epoch string
	rank  string
	extra string
}

func (l line) attempt() string { return l.job + " epoch " + l.epoch + " rank " + l.rank }

func (e *evidence) lines() ([]line, error) {
	f, err := os.Open(filepath.Join(e.dir, "diary"))
	if os.IsNotExist(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var out []line
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		fields := strings.SplitN(scanner.Text(), " ", 5)
		if len(fields) != 5 {
			return nil, fmt.Errorf("diary: a torn line %q", scanner.Text())
		}
		out = append(out, line{fields[0], fields[1], fields[2], fields[3], fields[4]})
	}
	return out, scanner.Err()
}

// taskMain is the body of every chaos task: task DIR MILLISECONDS EXITCODE. It takes the
// lock of each of its devices (the kernel drops it when the process dies, however it dies),
// writes down a lock that another live task holds, works, and writes its end.
func taskMain(args []string) int {
	dir, millis, code := args[0], args[1], args[2]
	write := func(what, extra string) {
		text := fmt.Sprintf("%s %s %s %s %s\n", what, os.Getenv("LLMOS_JOB_ID"), os.Getenv("LLMOS_EPOCH"), os.Getenv("RANK"), extra)
		f, err := os.OpenFile(filepath.Join(dir, "diary"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			fmt.Fprintln(os.Stderr, "diary:", err)
			os.Exit(90)
		}
		defer f.Close()
		if _, err := f.WriteString(text); err != nil {
			fmt.Fprintln(os.Stderr, "diary:", err)
			os.Exit(91)
		}
	}
	write("start", "devices="+os.Getenv("LLMOS_DEVICES"))
	for _, id := range strings.Split(os.Getenv("LLMOS_DEVICES"), ",") {
		if id == "" {
			continue
		}
		f, err := os.OpenFile(filepath.Join(dir, "devices", id), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o666)
		if err != nil {
			fmt.Fprintln(os.Stderr, "device file:", err)
			return 92
		}
		if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
			write("conflict", "device="+id)
			return 93
		}
		defer f.Close()
	}
	ms, err := strconv.Atoi(millis)
	if err != nil {
		return 94
	}
	time.Sleep(time.Duration(ms) * time.Millisecond) // the task's work
	write("end", "ok")
	exit, err := strconv.Atoi(code)
	if err != nil {
		return 95
	}
	return exit
}
