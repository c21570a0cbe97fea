package exec

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// obey takes an order of an agent. One that comes before the task runs waits for follow.
func (s *shim) obey(o order) {
	target := s.stop
	switch o.Op {
	case opKill:
		target = s.kill
	case opEnd:
		select {
		case s.end <- o.Reason:
		default:
		}
		return
	}
	select {
	case target <- struct{}{}:
	default: // the same order waits already
	}
}

// outcome is what follow saw.
type outcome struct {
	asked    bool   // the task was told to stop before its first process ended
	blame    string // why it was ended, when nobody had asked it to stop before; empty: it was not
	leftover bool   // something outlived the first process
}

// follow waits until the whole tree has gone. It passes on the stop signal, kills when the
// grace is over, and kills what the first process leaves behind. Nothing here waits for
// an agent: an order once taken is carried out whatever becomes of it.
func (s *shim) follow() (o outcome) {
	const retryMin, retryMax = 2 * time.Millisecond, time.Second
	var again, deadline <-chan time.Time
	ended, killing, retry := false, false, retryMin
	for {
		nowEnded, empty := s.tree.reap()
		if empty {
			return o
		}
		if nowEnded && !ended {
			ended, killing, o.leftover = true, true, s.tree.alone()
		}
		if killing {
			s.tree.kill()
			again = time.After(retry)
			retry = min(2*retry, retryMax)
		}
		select {
		case <-s.children:
		case <-again:
		case <-deadline:
			killing = true
		case <-s.stop:
			o.asked = o.asked || !ended && o.blame == ""
			if deadline == nil {
				s.tree.signal(stopSignal(s.spec.StopSignal))
				deadline = time.After(grace(s.spec))
			}
		case <-s.kill:
			o.asked = o.asked || !ended && o.blame == ""
			killing = true
		case reason := <-s.end:
			if !o.asked && !ended {
				o.blame = reason
			}
			killing = true
		}
	}
}

// grace is the time between the stop signal and the kill.
func grace(spec Spec) time.Duration {
	if spec.GraceMS <= 0 {
		return DefaultGrace
	}
	return time.Duration(spec.GraceMS) * time.Millisecond
}

// ended is how a task came to its end by itself, or by what met it.
type ended struct {
	code, signal int
	how          string // in words
	limit        string // the limit that it met, in words; empty: none
}

// endOf says how the first process of a tree ended.
func (s *shim) endOf(status unix.WaitStatus) ended {
	e := ended{code: status.ExitStatus()}
	e.how = fmt.Sprintf("exit %d", e.code)
	if status.Signaled() {
		e.signal = int(status.Signal())
		e.code = 128 + e.signal
		e.how = fmt.Sprintf("ended by signal %s", unix.SignalName(status.Signal()))
	}
	if e.code != 0 {
		e.limit = s.forker.group.blame(s.spec, e.how)
	}
	return e
}

// conclude drains the log and makes the record of the end.
func (s *shim) conclude(id Identity, o outcome, end ended) Exit {
	e := Exit{StartedMS: id.StartedMS, EndedMS: s.now().UnixMilli(), LeftoverTree: o.leftover, Code: end.code, Signal: end.signal, Reason: end.how}
	if o.blame != "" {
		s.log.put(record{stderr: true, timeMS: e.EndedMS, data: []byte("llmos: ended: " + o.blame + "\n")})
	}
	s.endLog()
	e.LogDropped = s.log.dropped.Load()
	switch {
	case o.asked:
		e.State = Stopped
	case e.Code == 0:
		e.State, e.Reason = Succeeded, ""
	case o.blame != "":
		e.State, e.Reason = Failed, o.blame
	case end.limit != "":
		e.State, e.Reason = Failed, end.limit
	default:
		e.State = Failed
	}
	return e
}
