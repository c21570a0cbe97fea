package state

import (
	"bytes"
	"iter"
	"slices"

	iradix "github.com/hashicorp/go-immutable-radix/v2"
	"google.golang.org/protobuf/proto"
)

// row is a record with its part of the state hash. A row of a committed tree never changes.
type row[T proto.Message] struct {
	rec T
	sum sum
}

// rows is a table: an ordered tree of rows.
type rows[T proto.Message] = *iradix.Tree[*row[T]]

// journal undoes the writes of a transaction, newest first.
type journal struct{ undo []func() }

// edit is one tree within a transaction. It opens the tree at the first write.
type edit[V any] struct {
	base    *iradix.Tree[V]
	txn     *iradix.Txn[V]
	journal *journal
	notify  bool // remember the watch channels of what changed
	grown   int  // entries more than in base
}

func editOf[V any](base *iradix.Tree[V], j *journal) edit[V] { return edit[V]{base: base, journal: j} }

func (e *edit[V]) len() int { return e.base.Len() + e.grown }

func (e *edit[V]) get(key []byte) (V, bool) {
	if e.txn == nil {
		return e.base.Get(key)
	}
	return e.txn.Get(key)
}

func (e *edit[V]) root() *iradix.Node[V] {
	if e.txn == nil {
		return e.base.Root()
	}
	return e.txn.Root()
}

func (e *edit[V]) open() {
	if e.txn == nil {
		e.txn = e.base.Txn()
		e.txn.TrackMutate(e.notify)
	}
}

// put writes a value. The tree keeps the key: the caller must not use its bytes again.
func (e *edit[V]) put(key []byte, value V) {
	e.open()
	old, had := e.txn.Insert(key, value)
	if !had {
		e.grown++
	}
	if e.journal == nil { // a restore is never rolled back
		return
	}
	if had {
		e.journal.undo = append(e.journal.undo, func() { e.txn.Insert(key, old) })
		return
	}
	e.journal.undo = append(e.journal.undo, func() { e.txn.Delete(key); e.grown-- })
}

func (e *edit[V]) remove(key []byte) {
	if _, ok := e.get(key); !ok {
		return
	}
	e.open()
	old, _ := e.txn.Delete(key)
	e.grown--
	if e.journal == nil {
		return
	}
	e.journal.undo = append(e.journal.undo, func() { e.txn.Insert(key, old); e.grown++ })
}

// collect gives at most limit values (-1: all) below a prefix in order, so that the caller may
// write meanwhile.
func (e *edit[V]) collect(prefix []byte, limit int) (out []V) {
	for v := range values(e.root(), prefix) {
		if len(out) == limit {
			break
		}
		out = append(out, v)
	}
	return out
}

func (e *edit[V]) commit() *iradix.Tree[V] {
	if e.txn == nil {
		return e.base
	}
	return e.txn.CommitOnly()
}

// editTable is a table within a transaction. Hashes are computed once a record, at the commit.
type editTable[T proto.Message] struct {
	edit[*row[T]]
	id    tableID
	dirty [][]byte            // keys written, each once
	seen  map[string]struct{} // the same, once they are many
}

func editTableOf[T proto.Message](id tableID, base rows[T], j *journal) editTable[T] {
	return editTable[T]{edit: editOf(base, j), id: id}
}

func (t *editTable[T]) rec(key []byte) T {
	if r, ok := t.get(key); ok {
		return r.rec
	}
	var none T
	return none
}

// dirtyScanMax is how many keys are searched one by one before a map is made of them.
const dirtyScanMax = 16

// mark remembers that a key was written.
func (t *editTable[T]) mark(key []byte) {
	if t.seen == nil {
		if slices.ContainsFunc(t.dirty, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return
		}
		t.dirty = append(t.dirty, key)
		if len(t.dirty) > dirtyScanMax {
			t.seen = make(map[string]struct{}, 2*dirtyScanMax)
			for _, k := range t.dirty {
				t.seen[string(k)] = struct{}{}
			}
		}
		return
	}
	if _, ok := t.seen[string(key)]; !ok {
		t.seen[string(key)] = struct{}{}
		t.dirty = append(t.dirty, key)
	}
}

func (t *editTable[T]) putRec(key []byte, rec T) {
	t.mark(key)
	t.put(key, &row[T]{rec: rec})
}

func (t *editTable[T]) removeRec(key []byte) {
	t.mark(key)
	t.remove(key)
}

// load writes a record of a snapshot with its hash; false when its key is taken.
func (t *editTable[T]) load(key []byte, rec T, total *sum, buf []byte) ([]byte, bool) {
	if _, taken := t.get(key); taken {
		return buf, false
	}
	r := &row[T]{rec: rec}
	r.sum, buf = hashRecord(t.id, key, rec, buf)
	total.add(r.sum)
	t.put(key, r)
	return buf, true
}

// commitHash finishes the table and moves total from the base's records to the new ones.
func (t *editTable[T]) commitHash(total *sum, buf []byte) (rows[T], []byte) {
	for _, key := range t.dirty {
		before, had := t.base.Get(key)
		after, has := t.get(key)
		if had && has && before == after { // written and undone
			continue
		}
		if had {
			total.sub(before.sum)
		}
		if has {
			after.sum, buf = hashRecord(t.id, key, after.rec, buf)
			total.add(after.sum)
		}
	}
	return t.commit(), buf
}

// values walks the values below a prefix in the order of their keys.
func values[V any](root *iradix.Node[V], prefix []byte) iter.Seq[V] {
	return func(yield func(V) bool) {
		root.WalkPrefix(prefix, func(_ []byte, v V) bool { return !yield(v) })
	}
}

// keys walks the keys below a prefix in order. They must not be modified.
func keys[V any](root *iradix.Node[V], prefix []byte) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		root.WalkPrefix(prefix, func(key []byte, _ V) bool { return !yield(key) })
	}
}

// holds reports whether there is an entry below a prefix.
func holds[V any](e *edit[V], prefix []byte) bool {
	for range keys(e.root(), prefix) {
		return true
	}
	return false
}

// records walks the records below a prefix in the order of their keys.
func records[T proto.Message](t rows[T], prefix []byte) iter.Seq[T] {
	return func(yield func(T) bool) {
		t.Root().WalkPrefix(prefix, func(_ []byte, r *row[T]) bool { return !yield(r.rec) })
	}
}

// lookup gives the record of a key, or nil.
func lookup[T proto.Message](t rows[T], key []byte) T {
	if r, ok := t.Get(key); ok {
		return r.rec
	}
	var none T
	return none
}
