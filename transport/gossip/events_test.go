package gossip

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

func number(i int) Event {
	return Event{Kind: Joined, Member: Member{ID: fmt.Sprintf("n-%d", i)}}
}

// TestEventsBecomeResync: the writer is never blocked, and a reader that fell behind finds
// a prefix, one Resync, and what came after, in order.
func TestEventsBecomeResync(t *testing.T) {
	e := newEvents()
	defer e.close()
	const written = 3*eventsMax + eventsMax/2
	for i := range written {
		e.push(number(i))
	}
	last := -1
	resyncs := 0
	for last != written-1 {
		ev := <-e.out
		if ev.Kind == Resync {
			resyncs++
			continue
		}
		var i int
		if _, err := fmt.Sscanf(ev.Member.ID, "n-%d", &i); err != nil {
			t.Fatal(err)
		}
		if i <= last {
			t.Fatalf("event %d after %d", i, last)
		}
		if i != last+1 && resyncs == 0 {
			t.Fatalf("event %d after %d without a resync", i, last)
		}
		last = i
	}
	// One may have been taken out of the queue, unread, before the queue was full again.
	if resyncs < 1 || resyncs > 2 {
		t.Fatalf("%d resyncs, want 1 or 2", resyncs)
	}
}

func TestEventsInOrderWithoutLoss(t *testing.T) {
	e := newEvents()
	defer e.close()
	for i := range 4 * eventsMax {
		e.push(number(i))
		if got := <-e.out; got != number(i) {
			t.Fatalf("event is %v, want %d", got, i)
		}
	}
}

func TestLoggerLevels(t *testing.T) {
	var out bytes.Buffer
	log := newLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelInfo})))
	log.Printf("[DEBUG] memberlist: Stream connection from=x")
	log.Printf("[INFO] memberlist: Suspect x has failed")
	log.Printf("[WARN] memberlist: Refuting a dead message")
	log.Printf("[ERR] memberlist: Failed to send")
	got := out.String()
	if strings.Contains(got, "Stream") || strings.Contains(got, "Suspect") {
		t.Errorf("chatter is logged:\n%s", got)
	}
	for _, want := range []string{`level=INFO msg="gossip: Refuting a dead message"`, `level=INFO msg="gossip: Failed to send"`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s is missing:\n%s", want, got)
		}
	}
}

func TestEncodedMetaFits(t *testing.T) {
	m := wireMeta{Cluster: "c-1", Role: 2, Name: strings.Repeat("x", 440), Addr: "10.0.0.1:7301"}
	b, err := encodeMeta(m)
	if err != nil || len(b) > MetaBytesMax {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	m.Name = strings.Repeat("x", 480)
	if _, err := encodeMeta(m); err == nil {
		t.Fatal("too long a name is accepted")
	}
}
