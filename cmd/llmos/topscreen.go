package main

import (
	"context"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"
)

// What a terminal understands: another screen without a cursor, and back; the first place, and
// nothing behind the text.
const (
	screenOpen  = "\x1b[?1049h\x1b[?25l"
	screenClose = "\x1b[?25h\x1b[?1049l"
	screenHome  = "\x1b[H"
	lineRest    = "\x1b[K"
	screenRest  = "\x1b[J"
)

// keyBytes is the most that is read at a time of what is typed.
const keyBytes = 64

// watchTop draws the board on a screen of its own until a key or ctx ends it. No library of
// terminals is used for it: those at hand ask the terminal for its colours as soon as the
// program starts, which is any verb, and eat what has been typed.
func (a *app) watchTop(ctx context.Context, b *topBoard, look func() topLook, every time.Duration) error {
	in, isFile := a.in.(*os.File)
	if !isFile || !term.IsTerminal(int(in.Fd())) {
		return invalid("llmos top takes keys from a terminal, and standard input is none").Hint("llmos top --once prints one look")
	}
	before, err := term.MakeRaw(int(in.Fd()))
	if err != nil {
		return invalid("the terminal cannot be prepared: %w", err).Hint("llmos top --once prints one look")
	}
	a.printf("%s", screenOpen)
	defer func() {
		a.printf("%s", screenClose)
		_ = term.Restore(int(in.Fd()), before)
	}()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	keys, looks := make(chan string, 16), make(chan topLook, 1)
	go readKeys(ctx, in, keys)
	go lookAgain(ctx, look, every, looks)
	resized := make(chan os.Signal, 1)
	signal.Notify(resized, syscall.SIGWINCH)
	defer signal.Stop(resized)
	for {
		a.drawTop(b, int(in.Fd()))
		select {
		case <-ctx.Done():
			return nil
		case <-resized:
		case l := <-looks:
			b.take(l)
		case key, open := <-keys:
			if !open || !b.key(key) {
				return nil
			}
		}
	}
}

func (a *app) drawTop(b *topBoard, fd int) {
	width, height, err := term.GetSize(fd)
	if err != nil {
		width, height = widthDefault, 24
	}
	text := strings.ReplaceAll(b.render(width, height), "\n", lineRest+"\r\n")
	a.printf("%s%s%s%s", screenHome, text, lineRest, screenRest)
}

// lookAgain looks every so often until ctx ends.
func lookAgain(ctx context.Context, look func() topLook, every time.Duration, looks chan<- topLook) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case looks <- look():
		case <-ctx.Done():
			return
		}
	}
}

// readKeys names the keys that are typed. It ends with the input, or with the first key after
// ctx has ended.
func readKeys(ctx context.Context, in io.Reader, keys chan<- string) {
	defer close(keys)
	for buf := make([]byte, keyBytes); ; {
		n, err := in.Read(buf)
		if err != nil || ctx.Err() != nil {
			return
		}
		for _, key := range keyNames(buf[:n]) {
			select {
			case keys <- key:
			case <-ctx.Done():
				return
			}
		}
	}
}

// named are the keys that are more than a character.
var named = []struct{ bytes, name string }{
	{"\x1b[A", "up"}, {"\x1bOA", "up"}, {"\x1b[B", "down"}, {"\x1bOB", "down"},
	{"\r", "enter"}, {"\n", "enter"}, {"\x03", "ctrl+c"}, {"\x1b", "esc"},
}

// keyNames names what was typed. A sequence that is not known is passed over.
func keyNames(typed []byte) (names []string) {
	text := string(typed)
next:
	for len(text) > 0 {
		for _, k := range named {
			rest, found := strings.CutPrefix(text, k.bytes)
			if !found {
				continue
			}
			if k.name == "esc" && strings.HasPrefix(rest, "[") { // of another key
				break next
			}
			names, text = append(names, k.name), rest
			continue next
		}
		names, text = append(names, text[:1]), text[1:]
	}
	return names
}
