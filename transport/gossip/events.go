package gossip

import "sync"

// eventsMax bounds the events that wait for the reader.
const eventsMax = 256

// Kind says what happened to a member.
type Kind int

// The kinds of events. Left is a Failed that announced itself; when the announcement was
// lost, a member that left shows as Failed.
const (
	Joined Kind = iota + 1
	Left
	Failed
	Updated
	Resync // events were dropped: read Members again
)

// String gives the kind as a word.
func (k Kind) String() string {
	names := [...]string{"", "joined", "left", "failed", "updated", "resync"}
	if k < 1 || int(k) >= len(names) {
		return "unknown"
	}
	return names[k]
}

// Event is one change. Member is empty with Resync.
type Event struct {
	Kind   Kind
	Member Member
}

// events is a bounded queue whose writer never blocks: when it is full, one Resync takes
// the place of everything in it.
type events struct {
	out  chan Event
	done chan struct{}
	wake chan struct{}
	gone sync.WaitGroup

	mu    sync.Mutex
	queue []Event
}

func newEvents() *events {
	e := &events{out: make(chan Event), done: make(chan struct{}), wake: make(chan struct{}, 1)}
	e.gone.Add(1)
	go e.pump()
	return e
}

func (e *events) push(ev Event) {
	e.mu.Lock()
	if len(e.queue) >= eventsMax {
		clear(e.queue)
		e.queue = append(e.queue[:0], Event{Kind: Resync})
	} else {
		e.queue = append(e.queue, ev)
	}
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *events) pop() (Event, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.queue) == 0 {
		return Event{}, false
	}
	ev := e.queue[0]
	e.queue = append(e.queue[:0], e.queue[1:]...)
	return ev, true
}

// pump moves events from the queue to the reader. An event it holds already when the
// queue is replaced by a Resync goes out first, which is its place in the order.
func (e *events) pump() {
	defer e.gone.Done()
	defer close(e.out)
	for {
		ev, ok := e.pop()
		if !ok {
			select {
			case <-e.wake:
				continue
			case <-e.done:
				return
			}
		}
		select {
		case e.out <- ev:
		case <-e.done:
			return
		}
	}
}

func (e *events) close() {
	close(e.done)
	e.gone.Wait()
}
