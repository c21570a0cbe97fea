// Package checkpoint keeps the state of a training run in a folder, so that a run that was
// cut off at any instruction goes on from a step that it had finished. A file is written
// beside its final name, synced and renamed, and carries a digest; one that is damaged is
// passed over for the one before. The folder remembers the highest epoch that has written
// to it: a process of an older attempt that is still alive is refused. Rank 0 calls it.
package checkpoint

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const (
	keep        = 3 // newest checkpoints that are kept
	magic       = "llmos-charlm-checkpoint-1\n"
	metaMax     = 64 << 10
	fileMax     = 1 << 30
	epochFile   = "epoch"
	nameSuffix  = ".ckpt"
	stepsDigits = 9
)

// ErrReplaced says that a newer attempt has taken over the folder.
var ErrReplaced = errors.New("a newer attempt has taken over the checkpoints")

// State is all that a run needs to go on.
type State struct {
	Step   int     `json:"step"`  // steps that are done
	Shape  string  `json:"shape"` // of the model; a run of another shape cannot use it
	Epoch  uint64  `json:"epoch"` // of the attempt that saved it
	Loss   float64 `json:"loss"`
	Params []float32
	M, V   []float32 // of the optimiser
}

// meta is the part of a file that is JSON.
type meta struct {
	Step   int     `json:"step"`
	Shape  string  `json:"shape"`
	Epoch  uint64  `json:"epoch"`
	Loss   float64 `json:"loss"`
	Params int     `json:"params"`
}

// Store is the folder, held by one attempt.
type Store struct {
	dir   string
	epoch uint64
}

// Open makes the folder when it is not there and claims it for an epoch. The error is
// ErrReplaced when a higher epoch has claimed it.
func Open(dir string, epoch uint64) (*Store, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("open the checkpoints: %w", err)
	}
	s := &Store{dir: dir, epoch: epoch}
	if err := s.fence(); err != nil {
		return nil, err
	}
	if err := WriteFile(filepath.Join(dir, epochFile), []byte(strconv.FormatUint(epoch, 10)+"\n")); err != nil {
		return nil, fmt.Errorf("claim the checkpoints: %w", err)
	}
	return s, nil
}

// fence fails when a newer attempt holds the folder.
func (s *Store) fence() error {
	text, err := os.ReadFile(filepath.Join(s.dir, epochFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read whose the checkpoints are: %w", err)
	}
	epoch, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err == nil && epoch > s.epoch {
		return fmt.Errorf("%w in %s: they belong to epoch %d, this is epoch %d", ErrReplaced, s.dir, epoch, s.epoch)
	}
	return nil
}

// Save writes a state and removes all but the newest. The file is whole and on disk when
// Save returns nil.
func (s *Store) Save(st State) error {
	if err := s.fence(); err != nil {
		return err
	}
	st.Epoch = s.epoch
	data, err := encode(st)
	if err != nil {
		return fmt.Errorf("save step %d: %w", st.Step, err)
	}
	if err := WriteFile(filepath.Join(s.dir, s.name(st.Step)), data); err != nil {
		return fmt.Errorf("save step %d: %w", st.Step, err)
	}
	names, err := s.names()
	if err != nil {
		return nil // the state is safe; old files are only untidy
	}
	for _, name := range names[min(keep, len(names)):] {
		os.Remove(filepath.Join(s.dir, name))
	}
	return nil
}

// WriteResult writes a file of the run's outcome into the folder, unless a newer attempt has
// taken it over.
func (s *Store) WriteResult(name string, data []byte) error {
	if err := s.fence(); err != nil {
		return err
	}
	return WriteFile(filepath.Join(s.dir, name), data)
}

// name holds the epoch too, so that two attempts can never write the same file.
func (s *Store) name(step int) string {
	return fmt.Sprintf("step-%0*d.e%d%s", stepsDigits, step, s.epoch, nameSuffix)
}

// parseName reads a name as name writes it.
func parseName(name string) (step int, epoch uint64, ok bool) {
	text, begins := strings.CutPrefix(name, "step-")
	text, ends := strings.CutSuffix(text, nameSuffix)
	first, second, cut := strings.Cut(text, ".e")
	if !begins || !ends || !cut {
		return 0, 0, false
	}
	step, stepErr := strconv.Atoi(first)
	epoch, epochErr := strconv.ParseUint(second, 10, 64)
	return step, epoch, stepErr == nil && epochErr == nil
}

// names lists the checkpoints, newest first: those of the highest epoch before all others.
// A process of an older epoch that looked at the fence and slept may still write a file, of
// whatever step; once a newer epoch has saved, nothing goes on from that.
func (s *Store) names() ([]string, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return nil, fmt.Errorf("list the checkpoints: %w", err)
	}
	var names []string
	for _, e := range entries {
		if _, _, ok := parseName(e.Name()); ok {
			names = append(names, e.Name())
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		stepA, epochA, _ := parseName(a)
		stepB, epochB, _ := parseName(b)
		return cmp.Or(cmp.Compare(epochB, epochA), cmp.Compare(stepB, stepA))
	})
	return names, nil
}

// Load gives the newest state that is whole. found is false when there is none. notes say
// which files were passed over and why. A whole state of another shape is an error.
func (s *Store) Load(shape string) (st State, found bool, notes []string, err error) {
	names, err := s.names()
	if err != nil {
		return State{}, false, nil, err
	}
	for _, name := range names {
		st, err := s.load(name)
		if err != nil {
			notes = append(notes, fmt.Sprintf("passed over checkpoint %s: %v", name, err))
			continue
		}
		if st.Shape != shape {
			return State{}, false, notes, fmt.Errorf("checkpoint %s is of a model %s, this run's is %s: give another -checkpoint or the same sizes", name, st.Shape, shape)
		}
		return st, true, notes, nil
	}
	return State{}, false, notes, nil
}

func (s *Store) load(name string) (State, error) {
	path := filepath.Join(s.dir, name)
	info, err := os.Stat(path)
	if err != nil {
		return State{}, err
	}
	if info.Size() > fileMax {
		return State{}, fmt.Errorf("%d bytes, at most %d", info.Size(), fileMax)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return State{}, err
	}
	return decode(data)
}

// encode makes: magic, length of the JSON, JSON, the three vectors, SHA-256 of all that.
func encode(st State) ([]byte, error) {
	if len(st.M) != len(st.Params) || len(st.V) != len(st.Params) {
		return nil, fmt.Errorf("%d parameters with %d and %d means", len(st.Params), len(st.M), len(st.V))
	}
	head, err := json.Marshal(meta{Step: st.Step, Shape: st.Shape, Epoch: st.Epoch, Loss: st.Loss, Params: len(st.Params)})
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	b.Grow(len(magic) + 4 + len(head) + 12*len(st.Params) + sha256.Size)
	b.WriteString(magic)
	b.Write(binary.BigEndian.AppendUint32(nil, uint32(len(head))))
	b.Write(head)
	for _, v := range [][]float32{st.Params, st.M, st.V} {
		for _, x := range v {
			var raw [4]byte
			binary.LittleEndian.PutUint32(raw[:], math.Float32bits(x))
			b.Write(raw[:])
		}
	}
	sum := sha256.Sum256(b.Bytes())
	b.Write(sum[:])
	return b.Bytes(), nil
}

func decode(data []byte) (State, error) {
	if len(data) < len(magic)+4+sha256.Size || string(data[:len(magic)]) != magic {
		return State{}, errors.New("it is not a checkpoint, or it is cut off")
	}
	body, sum := data[:len(data)-sha256.Size], data[len(data)-sha256.Size:]
	if want := sha256.Sum256(body); !bytes.Equal(sum, want[:]) {
		return State{}, errors.New("its digest is wrong: it is damaged")
	}
	rest := body[len(magic):]
	n := int(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if n > metaMax || n > len(rest) {
		return State{}, fmt.Errorf("its head says it has %d bytes", n)
	}
	var m meta
	if err := json.Unmarshal(rest[:n], &m); err != nil {
		return State{}, fmt.Errorf("its head: %w", err)
	}
	rest = rest[n:]
	if m.Params < 0 || m.Params > fileMax || len(rest) != 12*m.Params || m.Step < 0 {
		return State{}, fmt.Errorf("%d bytes for %d parameters", len(rest), m.Params)
	}
	vector := func() []float32 {
		v := make([]float32, m.Params)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(rest[4*i:]))
		}
		rest = rest[4*m.Params:]
		return v
	}
	return State{Step: m.Step, Shape: m.Shape, Epoch: m.Epoch, Loss: m.Loss, Params: vector(), M: vector(), V: vector()}, nil
}

// WriteFile writes a file so that its name holds either the old or the whole new content,
// also after a crash.
func WriteFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // fails once it has been renamed, which is the aim
	_, err = f.Write(data)
	err = errors.Join(err, f.Chmod(0o644), f.Sync(), f.Close())
	if err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
