package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
)

// openTestLog opens a log in which even few records are many segments.
func openTestLog(t *testing.T, folder string, change func(*LogOptions)) *Log {
	t.Helper()
	o := LogOptions{Limit: 8 << 10, Segment: 512, Readers: []string{"a"}}
	if change != nil {
		change(&o)
	}
	l, err := OpenLog(folder, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func put(t *testing.T, l *Log, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		if _, err := l.Write(fmt.Appendf(nil, "record %d", n)); err != nil {
			t.Fatalf("record %d: %v", n, err)
		}
	}
}

// take reads records and passes them, and saves.
func take(t *testing.T, c *Cursor, from, to int) {
	t.Helper()
	for n := from; n < to; {
		all, err := c.Next(t.Context(), to-n, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range all {
			if want := fmt.Sprintf("record %d", n); string(r.Content) != want {
				t.Fatalf("read %q, want %q", r.Content, want)
			}
			n++
			c.Pass(r.Seq + 1)
		}
	}
	if err := c.Save(); err != nil {
		t.Fatal(err)
	}
}

func files(t *testing.T, folder, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(folder, pattern))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRecordsAreReadInOrderAndRemovedWhenAllHavePassedThem(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a", "b"} })
	put(t, l, 0, 100)
	if n := len(files(t, folder, "*.log")); n < 5 {
		t.Fatalf("%d segments: the test tests little", n)
	}
	take(t, l.Cursor("a"), 0, 100)
	before := len(files(t, folder, "*.log"))
	if records, _ := l.Cursor("b").Lag(); records != 100 {
		t.Errorf("b lags by %d records", records)
	}
	take(t, l.Cursor("b"), 0, 95)
	if n := len(files(t, folder, "*.log")); n >= before || n > 2 {
		t.Errorf("%d segments are left of %d", n, before)
	}
	if records, size := l.Cursor("b").Lag(); records != 5 || size < 5*headerSize || size > 600 {
		t.Errorf("b lags by %d records, %d bytes", records, size)
	}
}

func TestALogGoesOnWhereItWasAfterAnEnd(t *testing.T) {
	folder := t.TempDir()
	for life := range 10 {
		l := openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a"} })
		put(t, l, life*20, life*20+20)
		take(t, l.Cursor("a"), life*20, life*20+20)
		l.Close()
	}
}

func TestAReaderThatDidNotSaveReadsAgain(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, nil)
	put(t, l, 0, 30)
	take(t, l.Cursor("a"), 0, 10)
	all, err := l.Cursor("a").Next(t.Context(), 5, 1<<20)
	if err != nil || len(all) != 5 {
		t.Fatal(len(all), err)
	}
	l.Cursor("a").Pass(all[4].Seq + 1)
	l.Close()
	take(t, openTestLog(t, folder, nil).Cursor("a"), 10, 30)
}

func TestANewReaderBeginsWithWhatSomeOtherHadNotPassed(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a", "b"} })
	put(t, l, 0, 30)
	take(t, l.Cursor("a"), 0, 30)
	take(t, l.Cursor("b"), 0, 7)
	l.Close()
	l = openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a", "renamed"} })
	take(t, l.Cursor("renamed"), 7, 30)
	l.Close()
	if left := files(t, folder, "cursor.b*"); len(left) > 0 {
		t.Errorf("%v is left", left)
	}
	l = openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a", "renamed", "new"} })
	put(t, l, 30, 31)
	take(t, l.Cursor("new"), 30, 31)
}

func TestNextGivesNoMoreThanAsked(t *testing.T) {
	l := openTestLog(t, t.TempDir(), nil)
	put(t, l, 0, 10)
	for _, c := range []struct{ records, bytes, want int }{{3, 1 << 20, 3}, {10, 16, 2}, {10, 1, 1}, {100, 1 << 20, 10}} {
		if all, err := l.Cursor("a").Next(t.Context(), c.records, c.bytes); err != nil || len(all) != c.want {
			t.Errorf("%+v: %d, %v", c, len(all), err)
		}
	}
}

func TestAFullLogWaitsForItsReadersAndThenRefuses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPower()
		var changes []bool
		l, err := OpenLog("/d", LogOptions{FS: p, Limit: 4096, Segment: 512, Readers: []string{"a"}, Changed: func(full bool) { changes = append(changes, full) }})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		n := 0
		for ; ; n++ {
			if _, err := l.Write(fmt.Appendf(nil, "record %d", n)); err != nil {
				if !errors.Is(err, ErrFull) {
					t.Error(err)
				}
				break
			}
		}
		if s := l.State(); s.Bytes > s.Limit || s.Bytes < s.Limit*8/10 || !s.Full {
			t.Errorf("refused at %+v", s)
		}
		done := make(chan error)
		go func() { _, err := l.Write(fmt.Appendf(nil, "record %d", n)); done <- err }()
		synctest.Wait()
		take(t, l.Cursor("a"), 0, n/2)
		if err := <-done; err != nil {
			t.Errorf("there was room again: %v", err)
		}
		take(t, l.Cursor("a"), n/2, n+1)
		if s := l.State(); s.Full || s.Bytes > 1024 {
			t.Errorf("everything was passed: %+v", s)
		}
		if fmt.Sprint(changes) != "[true false]" {
			t.Errorf("told %v", changes)
		}
	})
}

func TestAFullDiskOrAFailedSyncIsRefusedAndLeavesNothingBehind(t *testing.T) {
	for name, sicken := range map[string]func(p *power, ill bool){
		"full": func(p *power, ill bool) { p.full = map[bool]int{true: 20, false: -1}[ill] },
		"sync": func(p *power, ill bool) { p.failSync = map[bool]int{true: 1, false: 0}[ill] },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPower()
			open := func() *Log {
				l, err := OpenLog("/d", LogOptions{FS: p, Readers: []string{"a"}})
				if err != nil {
					t.Fatal(err)
				}
				return l
			}
			l := open()
			put(t, l, 0, 3)
			sicken(p, true)
			if _, err := l.Write([]byte("refused: not acknowledged to anybody")); err == nil {
				t.Fatal("acknowledged")
			}
			sicken(p, false)
			put(t, l, 3, 6)
			take(t, l.Cursor("a"), 0, 2)
			l.Close()
			l = open()
			defer l.Close()
			take(t, l.Cursor("a"), 2, 6)
		})
	}
}

// A full disk must not keep the log from getting smaller.
func TestAReaderMakesRoomOnAFullDisk(t *testing.T) {
	p := newPower()
	l, err := OpenLog("/d", LogOptions{FS: p, Segment: 256, Readers: []string{"a"}})
	if err != nil {
		t.Fatal(err)
	}
	put(t, l, 0, 50)
	p.full = 0
	before := l.State().Bytes
	c := l.Cursor("a")
	for n := 0; n < 45; n++ {
		all, err := c.Next(t.Context(), 1, 1)
		if err != nil {
			t.Fatal(err)
		}
		c.Pass(all[0].Seq + 1)
	}
	if err := c.Save(); err == nil {
		t.Error("saved on a full disk")
	}
	if after := l.State().Bytes; after > before/3 {
		t.Errorf("%d bytes of %d are left", after, before)
	}
	p.full = -1
	put(t, l, 50, 55)
	take(t, c, 45, 48)
	l.Close()
	if l, err = OpenLog("/d", LogOptions{FS: p, Readers: []string{"a"}}); err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	take(t, l.Cursor("a"), 48, 55)
}

// Every byte of a log that was acknowledged counts: one that is changed is found, at the start or when it is read, and nothing is passed over.
func TestDamageIsFoundAndNeverPassedOver(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, nil)
	put(t, l, 0, 40)
	l.Close()
	for _, path := range files(t, folder, "*.log") {
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(whole); at += 13 {
			broken := bytes.Clone(whole)
			broken[at] ^= 0x40
			os.WriteFile(path, broken, 0o600)
			if got := readAll(folder); !strings.Contains(got, "damaged") && !strings.HasSuffix(got, "torn") {
				t.Fatalf("%s with another byte %d reads as %s", filepath.Base(path), at, got)
			}
			os.WriteFile(path, whole, 0o600)
		}
	}
	if got := readAll(folder); got != "whole" {
		t.Errorf("untouched it reads as %s", got)
	}
}

// readAll opens a log of 40 records in a copy of its folder and says what is read: whole, damaged, or torn at the last record. Anything that is neither
// the first records in order nor an error is told as it is.
func readAll(folder string) string {
	copied, err := os.MkdirTemp(filepath.Dir(folder), "copy")
	if err != nil {
		return err.Error()
	}
	defer os.RemoveAll(copied)
	if err := os.CopyFS(copied, os.DirFS(folder)); err != nil {
		return err.Error()
	}
	l, err := OpenLog(copied, LogOptions{Readers: []string{"a"}})
	if err != nil {
		return err.Error()
	}
	defer l.Close()
	for n := 0; n < 40; n++ {
		if records, _ := l.Cursor("a").Lag(); records == 0 && n == 39 {
			return "torn" // the last record: nobody can tell it from one that was not acknowledged
		}
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		all, err := l.Cursor("a").Next(ctx, 1, 1)
		if err != nil {
			return err.Error()
		}
		if string(all[0].Content) != fmt.Sprintf("record %d", n) {
			return fmt.Sprintf("%q in place of record %d", all[0].Content, n)
		}
		l.Cursor("a").Pass(all[0].Seq + 1)
	}
	return "whole"
}

func TestALogThatLacksWhatAReaderPassedIsNotServed(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, func(o *LogOptions) { o.Segment = 1 << 20 })
	put(t, l, 0, 10)
	take(t, l.Cursor("a"), 0, 10)
	l.Close()
	path := files(t, folder, "*.log")[0]
	if err := os.Truncate(path, 100); err != nil {
		t.Fatal(err)
	}
	_, err := OpenLog(folder, LogOptions{Readers: []string{"a"}})
	var damaged *Damaged
	if !errors.As(err, &damaged) || damaged.File != path {
		t.Errorf("got %v", err)
	}
	os.Remove(path) // the operator gives up what was in it: numbers go on
	l = openTestLog(t, folder, nil)
	put(t, l, 10, 11)
	take(t, l.Cursor("a"), 10, 11)
}

func TestADamagedCursorReadsAgainFromTheOldest(t *testing.T) {
	folder := t.TempDir()
	l := openTestLog(t, folder, func(o *LogOptions) { o.Segment = 1 << 20; o.Readers = []string{"a", "b"} })
	put(t, l, 0, 10)
	take(t, l.Cursor("a"), 0, 10)
	take(t, l.Cursor("b"), 0, 5)
	l.Close()
	for _, text := range []string{"", "x", "12", "-1\n", "18446744073709551616\n", "007\n"} {
		os.WriteFile(filepath.Join(folder, "cursor.a"), []byte(text), 0o600)
		l = openTestLog(t, folder, func(o *LogOptions) { o.Readers = []string{"a", "b"} })
		take(t, l.Cursor("a"), 0, 10)
		l.Close()
	}
}

// FuzzSegment: whatever stands behind the good records of the last segment, they are read, in order, and what is not a record is not.
func FuzzSegment(f *testing.F) {
	good := appendRecord(appendRecord(nil, 1, 1, []byte("record 0")), 2, 1, []byte("record 1"))
	f.Add([]byte(nil))
	f.Add(appendRecord(nil, 3, 3, []byte("record 2"))[:20])
	f.Add(append(make([]byte, 100), appendRecord(nil, 4, 4, nil)...))
	f.Add(appendRecord(nil, 9, 3, []byte("x")))
	f.Add([]byte("LKr1\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, tail []byte) {
		p := newPower()
		file, _ := p.Open("/d/"+segmentName(1), os.O_CREATE)
		file.Write(append(bytes.Clone(good), tail...))
		l, err := OpenLog("/d", LogOptions{FS: p, Readers: []string{"a"}})
		var damaged *Damaged
		if errors.As(err, &damaged) {
			return // the tail holds a record of a later batch
		} else if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		take(t, l.Cursor("a"), 0, 2)
		records, _ := l.Cursor("a").Lag()
		if records*headerSize > uint64(len(tail)) {
			t.Fatalf("%d records in %d bytes", records, len(tail))
		}
		for range records {
			if _, err := l.Cursor("a").Next(t.Context(), 1, 1); err != nil {
				t.Fatal(err)
			}
		}
	})
}
