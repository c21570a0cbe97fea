package jobspec

import (
	"fmt"
	"strconv"
	"strings"

	"llmos/proto/fault"
)

// The readers of values: each gives a function that reads a node into a variable, or adds
// a fault.

func (d *decoder) wrong(n *node, field, want string) *fault.Error {
	return d.add(field, n.line, "must be %s, not %s", want, n.shape)
}

func (d *decoder) text(into *string) func(*node, string) {
	return func(n *node, field string) {
		switch n.shape {
		case text:
			*into = n.text
		case number, boolean:
			d.wrong(n, field, "text").Hint("put it in quotes: %q", n.text)
		default:
			d.wrong(n, field, "text")
		}
	}
}

// scalar takes text, a number or a truth value as it is written.
func (d *decoder) scalar(into *string) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != text && n.shape != number && n.shape != boolean {
			d.wrong(n, field, "text")
			return
		}
		*into = n.text
	}
}

func (d *decoder) integer(into *int32) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != number {
			e := d.wrong(n, field, "a whole number")
			if _, err := strconv.Atoi(n.text); err == nil && n.shape == text {
				e.Hint("remove the quotes")
			}
			return
		}
		v, err := strconv.ParseInt(n.text, 10, 32)
		if err != nil {
			d.add(field, n.line, "%s is not a whole number in range", n.text).Hint("write plain digits, such as 4")
			return
		}
		*into = int32(v)
	}
}

// amount reads a number with a unit; a number without one is given to parse as written.
func (d *decoder) amount(into *int64, parse func(string) (int64, error)) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != text && n.shape != number {
			d.wrong(n, field, "a number, with its unit where it has one")
			return
		}
		v, err := parse(n.text)
		if err != nil {
			d.at(n, field, err)
			return
		}
		*into = v
	}
}

// list reads a list of scalars, each as it is written.
func (d *decoder) list(into *[]string) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != list {
			d.wrong(n, field, "a list, such as [a, b]")
			return
		}
		values := make([]string, len(n.items))
		for i, item := range n.items {
			at := fmt.Sprintf("%s[%d]", field, i)
			d.lines[at] = item.line
			d.scalar(&values[i])(item, at)
		}
		*into = values
	}
}

// texts reads a mapping of scalars, each as it is written.
func (d *decoder) texts(into *map[string]string) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != mapping {
			d.wrong(n, field, "a mapping, such as {NAME: value}")
			return
		}
		values := make(map[string]string, len(n.fields))
		for _, e := range n.fields {
			at := field + "." + e.key
			d.lines[at] = e.line
			if e.value.shape == nothing {
				d.add(at, e.line, "the value is missing").Hint(`write "" for the empty one`)
				continue
			}
			var v string
			d.scalar(&v)(e.value, at)
			values[e.key] = v
		}
		*into = values
	}
}

func (d *decoder) boolean(into *bool) func(*node, string) {
	return func(n *node, field string) {
		if n.shape != boolean {
			d.wrong(n, field, "true or false")
			return
		}
		*into = n.text == "true" || n.text == "True" || n.text == "TRUE"
	}
}

// oneOf reads one of some words.
func (d *decoder) oneOf(into *string, words ...string) func(*node, string) {
	return func(n *node, field string) {
		var word string
		d.text(&word)(n, field)
		if n.shape != text {
			return
		}
		if !contains(words, word) {
			d.add(field, n.line, "%s is none of %s", quoted(word), strings.Join(words, ", "))
			return
		}
		*into = word
	}
}

// oneOrList reads a list of names, or one alone.
func (d *decoder) oneOrList(into *[]string) func(*node, string) {
	return func(n *node, field string) {
		if n.shape == list {
			d.list(into)(n, field)
			return
		}
		var one string
		d.text(&one)(n, field)
		*into = []string{one}
	}
}
