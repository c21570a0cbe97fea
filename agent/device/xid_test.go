package device

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestXIDTable(t *testing.T) {
	if !slices.IsSortedFunc(xids, func(a, b XID) int { return int(a.Code) - int(b.Code) }) {
		t.Fatal("the table is not in order of code")
	}
	for i, x := range xids {
		if x.Meaning == "" || x.Changed || i > 0 && xids[i-1].Code == x.Code {
			t.Errorf("row %+v", x)
		}
	}
	var none XIDTable
	for code, want := range map[uint32]Action{13: ActionIgnore, 31: ActionIgnore, 48: ActionNeedsReset, 74: ActionDrainDevice, 79: ActionDrainNode,
		94: ActionRestartTask, 999: ActionDrainDevice} {
		if got := none.Of(code); got.Action != want || got.Changed {
			t.Errorf("XID %d: %v, want %v", code, got.Action, want)
		}
	}
	if got := none.Of(79).String(); got != "XID 79 (the GPU has fallen off the bus)" {
		t.Error(got)
	}
}

func TestXIDActionsOfAnOperator(t *testing.T) {
	path := filepath.Join(t.TempDir(), "xid.yaml")
	if err := os.WriteFile(path, []byte("# ours\n---\n79: needs reset  # we reset them over IPMI\n31: \"restart-task\"\n\n777=ignore\nunknown: ignore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{path, "79=needs reset, 31=restart_task,777=ignore,unknown=ignore"} {
		table, err := ParseXIDActions(words)
		if err != nil {
			t.Fatal(err)
		}
		for code, want := range map[uint32]Action{79: ActionNeedsReset, 31: ActionRestartTask, 777: ActionIgnore, 999: ActionIgnore, 48: ActionNeedsReset} {
			if x := table.Of(code); x.Action != want || x.Changed != (code != 48) {
				t.Errorf("%s: %+v, want %v", words, x, want)
			}
		}
		rows := table.Rows()
		if len(rows) != len(xids)+1 || rows[len(rows)-1].Code != 777 || table.Unknown() != ActionIgnore {
			t.Errorf("%d rows, the last %+v", len(rows), rows[len(rows)-1])
		}
	}
	if table, err := ParseXIDActions("  "); err != nil || len(table.Rows()) != len(xids) || table.Unknown() != ActionDrainDevice {
		t.Errorf("no words: %v", err)
	}
	bad := filepath.Join(t.TempDir(), "bad")
	if err := os.WriteFile(bad, []byte("79=drain node\n48=explode\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for words, want := range map[string]string{
		"/no/such/file":     `xid-actions: there is no file "/no/such/file" (hint: ` + xidHint + ")",
		bad:                 "line 2: xid-actions: " + bad + `:2: "explode" is no action (hint: ` + xidHint + ")",
		"79=":               `"" is no action`,
		"x=ignore":          `"x" is no XID code`,
		"0=ignore":          `"0" is no XID code`,
		"5=ignore,79":       `"79" has no action`,
		"5=ignore,5=ignore": "XID 5 is there twice",
	} {
		if _, err := ParseXIDActions(words); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", words, err, want)
		}
	}
}
