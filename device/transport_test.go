package device_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/tcp"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

func TestEverySpellingOfATPMOpensTheSameIdentity(t *testing.T) {
	needSwtpm(t)
	unix, overTCP := simtpm.NewSwtpm(t), simtpm.NewSwtpmTCP(t)
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	for name, spec := range map[string]string{
		"unix":                unix.Spec(),
		"path of the socket":  strings.TrimPrefix(unix.Spec(), "unix:"),
		"swtpm over TCP":      overTCP.Spec(),
		"Microsoft's framing": front.Spec(),
	} {
		t.Run(name, func(t *testing.T) {
			var ids []string
			for range 2 {
				id, err := device.Open(spec, device.WithAlgorithm(device.ECCP256))
				if err != nil {
					t.Fatal(err)
				}
				secret := newKey()
				key, err := id.Activate(seal(t, id.EK(), id.SRK(), secret))
				if err != nil {
					t.Fatal(err)
				}
				mustSign(t, key, secret, []byte("m"))
				ids = append(ids, id.RegistrationID())
				closeAll(t, id)
			}
			if ids[0] != ids[1] {
				t.Errorf("ids %v", ids)
			}
		})
	}
}

// The Microsoft simulator starts switched off.
func TestSimulatorIsSwitchedOn(t *testing.T) {
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	other, err := tcp.Open(tcp.Config{CommandAddress: front.CommandAddr(), PlatformAddress: front.PlatformAddr()})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.PowerOff(); err != nil {
		t.Fatal(err)
	}
	tpm, err := device.OpenTPM(front.Spec())
	if err != nil {
		t.Fatal(err)
	}
	defer closeAll(t, tpm)
	if _, err := (tpm2.GetRandom{BytesRequested: 8}).Execute(tpm); err != nil {
		t.Error(err)
	}
}

func TestTPMThatIsNotThere(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for spec, want := range map[string]error{
		filepath.Join(dir, "tpmrm0"): fs.ErrNotExist,
		"unix:" + dir + "/sock":      fs.ErrNotExist,
		file:                         nil,
		"":                           nil,
		"tpmrm0":                     nil,
		"serial:/dev/ttyS0":          nil,
		"tcp:nowhere":                nil,
		"tbs":                        nil,
	} {
		_, err := device.Open(spec)
		if err == nil || (want != nil && !errors.Is(err, want)) || !strings.Contains(err.Error(), spec) {
			t.Errorf("%q: %v", spec, err)
		}
	}
}

// What a socket may answer that is no TPM. Each must end with an error, soon.
func TestAnswersThatAreNoResponses(t *testing.T) {
	good := []byte{0x80, 0x01, 0, 0, 0, 10, 0, 0, 0, 0}
	framed := append(binary.BigEndian.AppendUint32(nil, 10), good...)
	for name, c := range map[string]struct {
		kind   string
		answer []byte
	}{
		"nothing":                 {"swtpm", nil},
		"half a header":           {"swtpm", good[:5]},
		"huge size":               {"swtpm", []byte{0x80, 0x01, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0}},
		"size below the header's": {"swtpm", []byte{0x80, 0x01, 0, 0, 0, 9, 0, 0, 0, 0}},
		"less than announced":     {"swtpm", []byte{0x80, 0x01, 0, 0, 0, 20, 0, 0, 0, 0}},
		"framed nothing":          {"tcp", nil},
		"framed huge":             {"tcp", []byte{0xff, 0xff, 0xff, 0xff}},
		"framed short":            {"tcp", framed[:8]},
		"framed without an end":   {"tcp", framed},
		"framed with a bad end":   {"tcp", append(framed[:len(framed):len(framed)], 0, 0, 0, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			address := answerOnce(t, c.answer)
			tpm, err := device.OpenTPM(c.kind + ":" + address)
			if err == nil {
				tpm.Close()
				t.Error("opened")
			}
			// A size that is refused must be refused before it is allocated.
			if strings.Contains(name, "huge") && !strings.Contains(fmt.Sprint(err), "response of 4294967295 bytes") {
				t.Errorf("got %v", err)
			}
		})
	}
	for kind, answer := range map[string][]byte{"swtpm": good, "tcp": append(framed[:len(framed):len(framed)], 0, 0, 0, 0)} {
		tpm, err := device.OpenTPM(kind + ":" + answerOnce(t, answer))
		if err != nil {
			t.Errorf("the good answer: %v", err)
			continue
		}
		tpm.Close()
	}
}

// answerOnce serves one connection: it reads a command and writes the answer a
// byte at a time, as a slow network may deliver it.
func answerOnce(t *testing.T, answer []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		io.ReadAtLeast(conn, make([]byte, 64), 12)
		for i := range answer {
			conn.Write(answer[i : i+1])
		}
	}()
	return l.Addr().String()
}
