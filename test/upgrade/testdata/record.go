package PACKAGE

import (
	"os"
	"strings"
	"sync"
)

var (
	recording sync.Mutex
	recorded  = map[string]bool{}
)

// record adds each statement once to the file that RECORD names.
func record(sql string) {
	recording.Lock()
	defer recording.Unlock()
	if recorded[sql] {
		return
	}
	recorded[sql] = true
	file, err := os.OpenFile(os.Getenv("RECORD"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		panic(err)
	}
	defer file.Close()
	if _, err := file.WriteString(strings.Join(strings.Fields(sql), " ") + ";\n"); err != nil {
		panic(err)
	}
}
