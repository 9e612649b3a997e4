package main

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const (
	height = 8 // C2SP tlog-tiles
	width  = int64(1) << height
	limit  = 1 << 20
)

var client = &http.Client{Timeout: time.Minute}

// open verifies a checkpoint (C2SP tlog-checkpoint): signed by the key, and of the key's own log.
func open(message []byte, verifier note.Verifier) (*tlog.Tree, error) {
	opened, err := note.Open(message, note.VerifierList(verifier))
	if err != nil {
		return nil, err
	}
	lines := strings.Split(opened.Text, "\n")
	if len(lines) != 4 || lines[3] != "" {
		return nil, errors.New("not the three lines of a checkpoint")
	}
	if lines[0] != verifier.Name() {
		return nil, fmt.Errorf("of the log %q", lines[0])
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || lines[1] != strconv.FormatInt(size, 10) {
		return nil, fmt.Errorf("no size: %q", lines[1])
	}
	root, err := base64.StdEncoding.Strict().DecodeString(lines[2])
	if err != nil || len(root) != tlog.HashSize {
		return nil, fmt.Errorf("no root: %q", lines[2])
	}
	return &tlog.Tree{N: size, Hash: tlog.Hash(root)}, nil
}

// A log is what is published below one address. It is the tile reader that tlog.TileHashReader checks against the head.
type log struct {
	base string
	seen map[string][]byte
}

func (l *log) Height() int { return height }

func (l *log) ReadTiles(tiles []tlog.Tile) ([][]byte, error) {
	found := make([][]byte, len(tiles))
	for at, tile := range tiles {
		path := path(tile)
		data, ok := l.seen[path]
		if !ok {
			var err error
			if data, err = l.get(path); err != nil {
				return nil, err
			}
		}
		found[at] = data
	}
	return found, nil
}

// SaveTiles is told of tiles that were found to belong to the tree.
func (l *log) SaveTiles(tiles []tlog.Tile, data [][]byte) {
	if l.seen == nil {
		l.seen = map[string][]byte{}
	}
	for at, tile := range tiles {
		l.seen[path(tile)] = data[at]
	}
}

// path is the tile's place by C2SP tlog-tiles, which leaves out the height that sumdb puts first.
func path(tile tlog.Tile) string {
	return "tile/" + strings.TrimPrefix(tile.Path(), fmt.Sprintf("tile/%d/", height))
}

// entries reads one bundle: each entry after its length in two bytes.
func (l *log) entries(number int64, count int) ([][]byte, error) {
	tile := tlog.Tile{H: height, L: 0, N: number, W: count}
	where := "tile/entries/" + strings.TrimPrefix(path(tile), "tile/0/")
	data, err := l.get(where)
	if err != nil {
		return nil, err
	}
	var found [][]byte
	for len(data) >= 2 {
		size := int(binary.BigEndian.Uint16(data))
		if len(data) < 2+size {
			break
		}
		found, data = append(found, data[2:2+size]), data[2+size:]
	}
	if len(data) != 0 || len(found) != count {
		return nil, fmt.Errorf("%s: %d entries and %d bytes, not %d entries", where, len(found), len(data), count)
	}
	return found, nil
}

func (l *log) get(path string) ([]byte, error) {
	answer, err := client.Get(l.base + "/" + path)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", path, answer.Status)
	}
	data, err := io.ReadAll(io.LimitReader(answer.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if len(data) > limit {
		return nil, fmt.Errorf("%s: more than %d bytes", path, limit)
	}
	return data, nil
}
