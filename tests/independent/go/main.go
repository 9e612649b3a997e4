// Command logreader reads a Stepgrant log as a stranger does: over HTTP, with one public key, and with nothing of
// Stepgrant's own code. Signatures, hashing and proofs are those of golang.org/x/mod/sumdb/{note,tlog}.
//
// It prints one JSON object and exits with 0 if all of this holds, else one line on stderr and exit code 1:
//
//   - the newest checkpoint is signed by the key, and names the key's log;
//   - each older checkpoint that it is given is signed too, and is a beginning of the newest one;
//   - every entry hash that the log publishes is where the tree says, by a proof of inclusion for each;
//   - the entries that it is asked about are in the log at the index that is said.
package main

import (
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

var version = "unset"

// A list is a flag that may be given again.
type list []string

func (l *list) String() string         { return strings.Join(*l, " ") }
func (l *list) Set(value string) error { *l = append(*l, value); return nil }

// A report is what was verified.
type report struct {
	Origin         string  `json:"origin"`
	Size           int64   `json:"size"`
	Root           string  `json:"root"`
	Included       int64   `json:"included"`
	ConsistentWith []int64 `json:"consistent_with"`
	Found          []int64 `json:"found"`
}

func main() {
	if len(os.Args) == 2 && os.Args[1] == "version" {
		fmt.Println("logreader v" + version)
		return
	}
	var older, entries list
	base := flag.String("log", "", "where the log is: checkpoint and tile/... are below it")
	vkey := flag.String("vkey", "", "the log's verifier key")
	flag.Var(&older, "older", "file with a checkpoint of before; may be given again")
	flag.Var(&entries, "entry", "index:hash in hex of an entry that must be there; may be given again")
	flag.Parse()
	found, err := read(*base, *vkey, older, entries)
	if err != nil {
		fmt.Fprintln(os.Stderr, "logreader:", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}

func read(base, vkey string, older, entries []string) (*report, error) {
	verifier, err := note.NewVerifier(vkey)
	if err != nil {
		return nil, fmt.Errorf("the verifier key: %w", err)
	}
	log := &log{base: strings.TrimSuffix(base, "/")}
	message, err := log.get("checkpoint")
	if err != nil {
		return nil, err
	}
	head, err := open(message, verifier)
	if err != nil {
		return nil, fmt.Errorf("the checkpoint: %w", err)
	}
	found := &report{
		Origin: verifier.Name(), Size: head.N, Root: head.Hash.String(), ConsistentWith: []int64{}, Found: []int64{},
	}
	hashes := tlog.TileHashReader(*head, log)
	for _, file := range older {
		size, err := consistent(file, verifier, head, hashes)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		found.ConsistentWith = append(found.ConsistentWith, size)
	}
	known, err := all(log, head, hashes)
	if err != nil {
		return nil, err
	}
	found.Included = int64(len(known))
	for _, asked := range entries {
		index, err := check(asked, known)
		if err != nil {
			return nil, err
		}
		found.Found = append(found.Found, index)
	}
	return found, nil
}

// consistent verifies that an older checkpoint is signed and is a beginning of the tree.
func consistent(file string, verifier note.Verifier, head *tlog.Tree, hashes tlog.HashReader) (int64, error) {
	message, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	before, err := open(message, verifier)
	if err != nil {
		return 0, err
	}
	if before.N > head.N {
		return 0, fmt.Errorf("the log has %d entries, and had %d before", head.N, before.N)
	}
	if before.N == 0 {
		return 0, nil
	}
	proof, err := tlog.ProveTree(head.N, before.N, hashes)
	if err != nil {
		return 0, err
	}
	if err := tlog.CheckTree(proof, head.N, head.Hash, before.N, before.Hash); err != nil {
		return 0, fmt.Errorf("the log of %d entries is not a beginning of that of %d: %w", before.N, head.N, err)
	}
	return before.N, nil
}

// all verifies a proof of inclusion for every entry that the log publishes, and returns their hashes.
func all(log *log, head *tlog.Tree, hashes tlog.HashReader) ([][]byte, error) {
	var known [][]byte
	for number := int64(0); number*width < head.N; number++ {
		count := min(width, head.N-number*width)
		entries, err := log.entries(number, int(count))
		if err != nil {
			return nil, err
		}
		for at, entry := range entries {
			index := number*width + int64(at)
			proof, err := tlog.ProveRecord(head.N, index, hashes)
			if err != nil {
				return nil, err
			}
			if err := tlog.CheckRecord(proof, head.N, head.Hash, index, tlog.RecordHash(entry)); err != nil {
				return nil, fmt.Errorf("entry %d is not in the tree: %w", index, err)
			}
			known = append(known, entry)
		}
	}
	return known, nil
}

func check(asked string, known [][]byte) (int64, error) {
	number, hash, _ := strings.Cut(asked, ":")
	index, err := strconv.ParseInt(number, 10, 64)
	if err != nil || index < 0 || index >= int64(len(known)) {
		return 0, fmt.Errorf("the log has no entry %q", number)
	}
	if hex.EncodeToString(known[index]) != hash {
		return 0, fmt.Errorf("entry %d is another one", index)
	}
	return index, nil
}
