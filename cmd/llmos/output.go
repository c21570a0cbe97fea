package main

import (
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// format is what -o asks for; as a flag's value it refuses what there is not.
type format struct{ json bool } // programs read the output

// String, Set and Type make a format a pflag.Value.
func (f *format) String() string {
	if f.json {
		return "json"
	}
	return "table"
}

func (f *format) Set(text string) error {
	if text != "table" && text != "json" {
		return errors.New("it is neither table nor json")
	}
	f.json = text == "json"
	return nil
}

func (f *format) Type() string { return "FORMAT" }

func (f *format) flag(cmd *cobra.Command) {
	cmd.Flags().VarP(f, "output", "o", "table, or json for programs")
	_ = cmd.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json"}, cobra.ShellCompDirectiveNoFileComp))
}

// print writes m as one JSON object with the field names of the .proto files, or calls table.
func (a *app) print(f *format, m proto.Message, table func()) error {
	if !f.json {
		table()
		return nil
	}
	return a.printJSON(m)
}

func (a *app) printJSON(m proto.Message) error {
	raw, err := protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true}.Marshal(m)
	if err != nil {
		return fmt.Errorf("write the answer as JSON: %w", err)
	}
	a.printf("%s\n", raw)
	return nil
}

// cell is one entry of a table.
type cell struct {
	text   string
	colour string
}

// table is rows of cells below a header, aligned by two spaces.
type table struct {
	header []string
	right  map[int]bool // columns that are aligned to the right
	rows   [][]cell
}

func (t *table) add(cells ...cell) { t.rows = append(t.rows, cells) }

func plain(text string) cell { return cell{text: text} }

const columnGap = "  "

// render writes the table. width bounds every line, the last column being cut; 0: no bound.
func (t *table) render(width int, tint tint) string {
	widths := make([]int, len(t.header))
	for i, h := range t.header {
		widths[i] = utf8.RuneCountInString(h)
	}
	for _, row := range t.rows {
		for i, c := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(c.text))
		}
	}
	var b strings.Builder
	head := make([]cell, len(t.header))
	for i, h := range t.header {
		head[i] = cell{h, faint}
	}
	for _, row := range append([][]cell{head}, t.rows...) {
		b.WriteString(t.line(row, widths, width, tint))
		b.WriteByte('\n')
	}
	return b.String()
}

func (t *table) line(row []cell, widths []int, width int, tint tint) string {
	var b strings.Builder
	used := 0
	for i, c := range row {
		text := oneLine(c.text)
		pad := strings.Repeat(" ", max(widths[i]-utf8.RuneCountInString(text), 0))
		last := i == len(row)-1
		if last && width > 0 {
			text = clip(text, max(width-used, 8))
		}
		switch {
		case t.right[i]:
			b.WriteString(pad + tint.paint(c.colour, text))
		case last:
			b.WriteString(tint.paint(c.colour, text))
		default:
			b.WriteString(tint.paint(c.colour, text) + pad)
		}
		if !last {
			b.WriteString(columnGap)
		}
		used += widths[i] + len(columnGap)
	}
	return strings.TrimRight(b.String(), " ")
}

// show prints a table as wide as the terminal, at most widthMax; elsewhere nothing is cut.
func (a *app) show(t *table) {
	width := 0
	if a.outTTY {
		width = min(a.columns(), widthMax)
	}
	a.printf("%s", t.render(width, a.outTint()))
}

// clip shortens text to so many characters, the last being an ellipsis.
func clip(text string, most int) string {
	if utf8.RuneCountInString(text) <= most {
		return text
	}
	runes := []rune(text)
	return strings.TrimRight(string(runes[:max(most-1, 0)]), " ") + "…"
}

// oneLine keeps what comes from elsewhere from moving the cursor.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || r == '\r' {
			return ' '
		}
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, text)
}

// age writes how long ago a time was, with one unit or two: 12s, 3m, 2h5m, 4d.
func age(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 10*time.Minute && int(d.Seconds())%60 > 0:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 10*time.Hour && int(d.Minutes())%60 > 0:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours())/24)
	}
}

// since gives the time from ms (Unix milliseconds) to now; 0 when ms is 0.
func (a *app) since(ms int64) time.Duration {
	if ms == 0 {
		return 0
	}
	return a.now().Sub(time.UnixMilli(ms))
}

// word turns an enum's name into the word that people read: JOB_STATE_RUNNING running.
func word(name, prefix string) string {
	return strings.ToLower(strings.TrimPrefix(name, prefix))
}

// joined lists words: a, b and c.
func joined(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " and " + words[len(words)-1]
}
