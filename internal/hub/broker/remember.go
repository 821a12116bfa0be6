package broker

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// The file that logins are written to, so that a process that was restarted knows when tokens end: a line for each device, "{hub}/{deviceId} {when it was let in}
// {when its token ends}", in seconds. It holds no secret. A line that is none is passed over: what it said is forgotten, as without the file.
const (
	rememberEvery = time.Minute
	maxRemembered = 1 << 20 // lines
	rememberName  = "latchkey logins at brokers 1\n"
)

// load reads the file. None is no error.
func (l *logins) load(path string) error {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	lines := bufio.NewScanner(file)
	if !lines.Scan() || lines.Text()+"\n" != rememberName {
		return fmt.Errorf("%s is not what this release writes: what it said of logins is forgotten", path)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for range maxRemembered {
		if !lines.Scan() {
			break
		}
		key, rest, _ := strings.Cut(lines.Text(), " ")
		at, until, _ := strings.Cut(rest, " ")
		began, err1 := strconv.ParseInt(at, 10, 64)
		ends, err2 := strconv.ParseInt(until, 10, 64)
		if err1 == nil && err2 == nil && strings.Contains(key, "/") {
			l.byDevice[key] = login{at: time.Unix(began, 0), expires: time.Unix(ends, 0)}
		}
	}
	return lines.Err()
}

// save writes the file in the place of the one before, if there is anything new.
func (l *logins) save(path string) error {
	l.mu.Lock()
	changed := l.changed
	var text strings.Builder
	if changed {
		text.WriteString(rememberName)
		for key, x := range l.byDevice {
			fmt.Fprintf(&text, "%s %d %d\n", key, x.at.Unix(), x.expires.Unix())
		}
	}
	l.changed = false
	l.mu.Unlock()
	if !changed {
		return nil
	}
	err := replaceFile(path, text.String())
	if err != nil {
		l.mu.Lock()
		l.changed = true
		l.mu.Unlock()
	}
	return err
}

func replaceFile(path, text string) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	if err = errors.Join(err, file.Close()); err == nil {
		err = os.Rename(file.Name(), path)
	}
	if err != nil {
		os.Remove(file.Name())
	}
	return err
}

// remember saves what this process knows of logins, and says so once if it cannot.
func (h *Hub) remember() {
	if h.config.Remember == "" {
		return
	}
	err := h.logins.save(h.config.Remember)
	if err != nil && !h.forgetful {
		h.log.Warn("logins at brokers are not written down: after a restart connections there may outlive their SAS tokens, up to the longest life of one", "err", err)
	}
	h.forgetful = err != nil
}
