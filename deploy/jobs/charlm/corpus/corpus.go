// Package corpus turns files into the text that a character model learns, and picks samples
// from it. The text of a Markdown file is taken whole; of Go and proto files the comments,
// which are the prose in them. Which sample comes at which step depends on the seed alone,
// never on how many ranks share the work. It keeps everything in memory; package train and
// the program call it.
package corpus

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
)

// Vocab is the number of different characters: the end of a line and printable ASCII.
const Vocab = 96

// Bounds of a corpus.
const (
	filesMax  = 20_000
	bytesMax  = 8 << 20  // of text; what is over is left out, and Read says so
	fileMax   = 2 << 20  // of one file; a larger one is not prose
	SymbolMin = 20 << 10 // characters below which there is nothing to learn
)

// The text is divided into blocks, and every heldOutEvery-th is never trained on.
const (
	blockSymbols = 512
	heldOutEvery = 20
)

// Corpus is text as symbols 0 to Vocab-1.
type Corpus struct {
	Text  []byte
	Files int
	Cut   bool // files were left out because of the bound
}

// Digest names the text in 12 characters.
func (c *Corpus) Digest() string {
	sum := sha256.Sum256(c.Text)
	return hex.EncodeToString(sum[:6])
}

// typographic maps what editors make of plain characters back to them.
var typographic = strings.NewReplacer("\u2018", "'", "\u2019", "'", "\u201c", `"`, "\u201d", `"`, "\u2013", "-", "\u2014", "-",
	"\u2026", "...", "\u2192", "->", "\u00d7", "x", "\u2264", "<=", "\u2265", ">=", "\u00a0", " ", "\t", "  ", "\r", "")

// encode turns text into symbols. What is outside the vocabulary is left out, and so are
// line ends beyond two in a row.
func encode(text string) []byte {
	text = typographic.Replace(text)
	out := make([]byte, 0, len(text))
	ends := 0
	for _, r := range text {
		switch {
		case r == '\n':
			if ends++; ends <= 2 {
				out = append(out, 0)
			}
		case r >= ' ' && r <= '~':
			ends = 0
			out = append(out, byte(r-' ')+1)
		}
	}
	return out
}

// Decode turns symbols into text.
func Decode(symbols []byte) string {
	var b strings.Builder
	for _, s := range symbols {
		if s == 0 {
			b.WriteByte('\n')
		} else {
			b.WriteByte(s - 1 + ' ')
		}
	}
	return b.String()
}

// Encode turns text into symbols, for the beginning of a sample.
func Encode(text string) []byte { return encode(text) }

// check refuses a corpus that is too small for a context.
func (c *Corpus) check() error {
	if len(c.Text) < SymbolMin {
		return fmt.Errorf("the corpus has %d characters in %d files, at least %d are needed to learn from", len(c.Text), c.Files, SymbolMin)
	}
	return nil
}

// heldOut says whether the character at a position is kept for the evaluation.
func heldOut(at int) bool { return at/blockSymbols%heldOutEvery == heldOutEvery-1 }

// Sample gives the i-th sample of a step: a context and the character after it.
func (c *Corpus) Sample(seed uint64, step, i, context int) (window []byte, next byte) {
	return c.pick(mix(mix(seed)^mix(uint64(step)<<32|uint64(uint32(i)))), context, false)
}

// HeldOut gives the i-th sample of the part of the text that is never trained on.
func (c *Corpus) HeldOut(seed uint64, i, context int) (window []byte, next byte) {
	return c.pick(mix(mix(seed)^uint64(i)), context, true)
}

// pick draws positions until one is on the wanted side.
func (c *Corpus) pick(state uint64, context int, wanted bool) (window []byte, next byte) {
	places := uint64(len(c.Text) - context)
	for {
		state = mix(state)
		at := int(state%places) + context
		if heldOut(at) == wanted {
			return c.Text[at-context : at], c.Text[at]
		}
	}
}

// mix is the output function of SplitMix64: equal inputs give equal outputs everywhere.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
