package daemon

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"strings"

	"latchkey.example/latchkey/internal/store/sqlite"
)

// tableSum is what a table holds, whatever the order of its rows: their number, and the sum of their digests.
type tableSum struct {
	rows int64
	sum  [4]uint64
}

// summer adds rows up.
type summer struct {
	tableSum
	hash hash.Hash
	buf  []byte
}

func newSummer() *summer { return &summer{hash: sha256.New()} }

// add adds a row. Its encoding tells kinds and lengths, so that two rows are one only if each value is.
func (s *summer) add(row []any) error {
	s.hash.Reset()
	for _, value := range row {
		s.buf = s.buf[:0]
		switch v := value.(type) {
		case nil:
			s.buf = append(s.buf, 'n')
		case bool:
			s.buf = append(s.buf, 'b', 0)
			if v {
				s.buf[1] = 1
			}
		case int64:
			s.buf = binary.BigEndian.AppendUint64(append(s.buf, 'i'), uint64(v))
		case string:
			s.buf = append(binary.BigEndian.AppendUint64(append(s.buf, 's'), uint64(len(v))), v...)
		case []byte:
			s.buf = append(binary.BigEndian.AppendUint64(append(s.buf, 'x'), uint64(len(v))), v...)
		default:
			return fmt.Errorf("a row holds a %T", value)
		}
		s.hash.Write(s.buf)
	}
	digest := s.hash.Sum(s.buf[:0])
	for i := range s.sum {
		s.sum[i] += binary.BigEndian.Uint64(digest[8*i:])
	}
	s.rows++
	return nil
}

// compare reads every table at both ends, whole. What differs is not copied anew bit by bit: the next run starts over.
func (c *copier) compare() error {
	var differ []string
	var rows int64
	for _, table := range sqlite.CopyTables() {
		there, err := c.sumOfTarget(table[0])
		if err != nil {
			return fmt.Errorf("comparing %s: %w", table[0], err)
		}
		here, err := c.sumOfSource(table[0])
		if err != nil {
			return fmt.Errorf("comparing %s: %w", table[0], err)
		}
		if here != there {
			differ = append(differ, fmt.Sprintf("%s (%d rows here, %d there)", table[0], here.rows, there.rows))
		}
		rows += here.rows
		if err := c.told(CopyStep{What: "compared", Table: table[0], Rows: rows}); err != nil {
			return err
		}
	}
	numbers, err := c.source.Numbers()
	if err != nil {
		return err
	}
	if err := c.target.Check(c.ctx, numbers); err != nil {
		differ = append(differ, err.Error())
	}
	if len(differ) == 0 {
		return nil
	}
	return errors.Join(fmt.Errorf("the copy is not what is here: %s. One of the two was changed meanwhile. Nothing is served from the copy; run it again, it starts over",
		strings.Join(differ, ", ")), c.source.Begin(""))
}

func (c *copier) sumOfTarget(table string) (tableSum, error) {
	sum, failed := newSummer(), error(nil)
	err := c.target.Each(c.ctx, table, func(row []any) {
		if failed == nil {
			failed = sum.add(row)
		}
	})
	return sum.tableSum, errors.Join(err, failed)
}

func (c *copier) sumOfSource(table string) (tableSum, error) {
	sum := newSummer()
	for after := int64(0); ; {
		page, last, err := c.source.Page(table, after, copyPage, copyBytes)
		if err != nil || len(page) == 0 {
			return sum.tableSum, err
		}
		for _, row := range page {
			if err := sum.add(row); err != nil {
				return tableSum{}, err
			}
		}
		after = last
	}
}
