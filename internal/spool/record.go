package spool

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A record in a segment: magic, length of what follows the header, sequence number, sequence number of the first record that was synced together with
// it, CRC-32C of all that but the magic and of the content; all little-endian. Then the content.
const (
	headerSize = 4 + 4 + 8 + 8 + 4
	maxRecord  = 4 << 20
)

var (
	magic    = []byte("LKr1")
	castagno = crc32.MakeTable(crc32.Castagnoli)
)

// errNoRecord says that what stands there is no whole record.
var errNoRecord = errors.New("no whole record")

// Damaged says that acknowledged records cannot be read. It is never passed over.
type Damaged struct {
	File   string
	Offset int64
	Cause  error
}

func (d *Damaged) Error() string {
	return fmt.Sprintf("%s is damaged at byte %d (%v): records that were acknowledged cannot be read. Bring the folder back from a copy, or move it away to go on without what it holds",
		d.File, d.Offset, d.Cause)
}

func (d *Damaged) Unwrap() error { return d.Cause }

type header struct {
	length     uint32
	seq, batch uint64
	sum        uint32
}

// appendRecord appends a record to buf.
func appendRecord(buf []byte, seq, batch uint64, content []byte) []byte {
	at := len(buf)
	buf = append(buf, magic...)
	buf = binary.LittleEndian.AppendUint32(buf, uint32(len(content)))
	buf = binary.LittleEndian.AppendUint64(buf, seq)
	buf = binary.LittleEndian.AppendUint64(buf, batch)
	sum := crc32.Update(crc32.Checksum(buf[at+4:], castagno), castagno, content)
	buf = binary.LittleEndian.AppendUint32(buf, sum)
	return append(buf, content...)
}

// readHeader reads the header at an offset of a file that counts up to size; errNoRecord if none with room for its content is there.
func readHeader(file io.ReaderAt, offset, size int64) (h header, err error) {
	var raw [headerSize]byte
	if size-offset < headerSize {
		return h, errNoRecord
	}
	if _, err := file.ReadAt(raw[:], offset); err != nil {
		return h, err
	}
	h.length = binary.LittleEndian.Uint32(raw[4:])
	h.seq, h.batch = binary.LittleEndian.Uint64(raw[8:]), binary.LittleEndian.Uint64(raw[16:])
	h.sum = binary.LittleEndian.Uint32(raw[24:])
	if !bytes.Equal(raw[:4], magic) || h.length > maxRecord || int64(h.length) > size-offset-headerSize || h.batch > h.seq {
		return h, errNoRecord
	}
	return h, nil
}

// readRecord reads the record at an offset, and checks it.
func readRecord(file io.ReaderAt, offset, size int64) (h header, content []byte, err error) {
	if h, err = readHeader(file, offset, size); err != nil {
		return h, nil, err
	}
	raw := make([]byte, headerSize+int(h.length))
	if _, err := file.ReadAt(raw, offset); err != nil {
		return h, nil, err
	}
	content = raw[headerSize:]
	if crc32.Update(crc32.Checksum(raw[4:headerSize-4], castagno), castagno, content) != h.sum {
		return h, nil, errNoRecord
	}
	return h, content, nil
}

// recover finds how far the last segment is good: end is the number after its last good record, good its length in bytes. What follows may be what was not
// synced when the power went, of which any part may be there. It is not if it holds a record of a later batch: that was begun after the batch that
// is missing had been synced, so acknowledged records are damaged.
func recoverSegment(file File, name string, first uint64) (end uint64, good int64, err error) {
	size, err := file.Size()
	if err != nil {
		return 0, 0, err
	}
	end = first
	for good < size {
		h, _, err := readRecord(file, good, size)
		if errors.Is(err, errNoRecord) || err == nil && h.seq != end {
			break
		} else if err != nil {
			return 0, 0, err
		}
		end, good = end+1, good+headerSize+int64(h.length)
	}
	if good == size {
		return end, good, nil
	}
	later, err := laterBatch(file, good, size, end)
	if err == nil && later {
		err = &Damaged{name, good, errNoRecord}
	}
	return end, good, err
}

// laterBatch looks for a good record between two offsets whose batch begins after the record end.
func laterBatch(file File, from, to int64, end uint64) (bool, error) {
	rest := make([]byte, min(to-from, 64<<20))
	if _, err := file.ReadAt(rest, from); err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	whole := bytes.NewReader(rest)
	for at := 0; ; at++ {
		i := bytes.Index(rest[at:], magic)
		if i < 0 {
			return false, nil
		}
		at += i
		if h, _, err := readRecord(whole, int64(at), int64(len(rest))); err == nil && h.batch > end {
			return true, nil
		}
	}
}
