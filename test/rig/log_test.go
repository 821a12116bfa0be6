package rig

import (
	"bytes"
	"strings"
	"testing"
)

func TestListenersAreReadFromALogThatComesInPieces(t *testing.T) {
	log := newServiceLog()
	https := log.next()
	for _, piece := range []string{
		"not JSON\n",
		`{"level":"INFO","msg":"other","what":"https","addr":"wrong"}` + "\n" + `{"msg":"listen`,
		`ing","what":"https","addr":"127.0.0.1:1"}`,
	} {
		log.Write([]byte(piece))
	}
	select {
	case <-https:
		t.Fatal("a line without its end was taken for one")
	default:
	}
	log.Write([]byte("\n" + `{"msg":"listening","what":"mqtt","addr":"127.0.0.1:2"}` + "\n"))
	select {
	case <-https:
	default:
		t.Fatal("nobody was told of the new listener")
	}
	if got := log.address("https") + " " + log.address("mqtt"); got != "127.0.0.1:1 127.0.0.1:2" {
		t.Errorf("addresses %q", got)
	}
	log.forget()
	if log.address("https") != "" {
		t.Error("the last run's address is still there")
	}
}

func TestOfALongLogTheEndIsKept(t *testing.T) {
	log := newServiceLog()
	line := append(bytes.Repeat([]byte("x"), 1<<20), '\n')
	for range 3 * logKept >> 20 {
		log.Write(line)
	}
	log.Write([]byte("the end\n"))
	text := log.String()
	if len(text) < logKept || len(text) > 2*logKept+2*len(line) || !strings.HasSuffix(text, "\nthe end\n") {
		t.Errorf("%d bytes are kept", len(text))
	}
}
