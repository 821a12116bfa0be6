package outflow

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// jetStream is the real server, with its streams on disk.
func jetStream(t *testing.T, extra ...string) *server {
	t.Helper()
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	s := &server{t: t, name: "nats-server", addr: addr, args: append([]string{"-a", "127.0.0.1", "-p", port, "-js", "-sd", t.TempDir()}, extra...)}
	s.start()
	return s
}

func makeStream(t *testing.T, addr string, config jetstream.StreamConfig) {
	t.Helper()
	c, err := nats.Connect("nats://"+addr, nats.Token("canary"))
	must(t, err)
	defer c.Close()
	js, err := jetstream.New(c)
	must(t, err)
	_, err = js.CreateStream(t.Context(), config)
	must(t, err)
}

// readStream gives all that a stream has.
func readStream(t *testing.T, addr, stream string) *arrivals {
	t.Helper()
	c, err := nats.Connect("nats://"+addr, nats.Token("canary"))
	must(t, err)
	defer c.Close()
	js, err := jetstream.New(c)
	must(t, err)
	s, err := js.Stream(t.Context(), stream)
	must(t, err)
	info, err := s.Info(t.Context())
	must(t, err)
	got := newArrivals()
	for seq := info.State.FirstSeq; seq > 0 && seq <= info.State.LastSeq; seq++ {
		m, err := s.GetMsg(t.Context(), seq)
		must(t, err)
		got.take(m.Data)
	}
	return got
}

// JetStream is killed under load and comes back; its stream has everything once, in order, since it drops what comes twice.
func TestAJetStreamThatIsKilledHasEverythingOnce(t *testing.T) {
	t.Parallel()
	secret := filepath.Join(t.TempDir(), "token")
	must(t, os.WriteFile(secret, []byte("canary\n"), 0o600))
	s := jetStream(t, "--auth", "canary")
	makeStream(t, s.addr, jetstream.StreamConfig{Name: "T", Subjects: []string{"telemetry.>"}})
	var log logs
	f := openFlow(t, Config{Folder: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Outputs: []Output{{Name: "js", To: ToNATS{
		URL: "nats://" + s.addr, Subject: "telemetry.{scope}.{deviceId}", Stream: "T", Payload: PayloadRecord, TokenFile: secret}}}})
	defer f.Close()
	var acknowledged []string
	for round := range 4 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			if round > 0 {
				s.kill()
				s.start()
			}
		}()
		acknowledged = append(acknowledged, sendAll(t, f, 8, round*50, round*50+50)...)
		<-done
	}
	eventually(t, "the output does not catch up", func() bool { n, _ := f.pumps[0].cursor.Lag(); return n == 0 })
	got := readStream(t, s.addr, "T")
	if wrong := got.missing(acknowledged); len(wrong) > 0 || got.twice > 0 {
		t.Errorf("%v; %d twice", wrong, got.twice)
	}
	if log.count("canary") > 0 {
		t.Errorf("the token is in the log:\n%s", log.String())
	}
}

// Until there is a stream for the subject nothing is passed, and the log says what is missing; a message that the stream does not take is set aside.
func TestAStreamThatIsMissingIsWaitedForAndWhatItRefusesIsSetAside(t *testing.T) {
	t.Parallel()
	s := jetStream(t)
	var log logs
	folder := t.TempDir()
	f := openFlow(t, Config{Folder: folder, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Outputs: []Output{{Name: "js", To: ToNATS{URL: "nats://" + s.addr, Subject: "t.{deviceId}", Payload: PayloadRecord}}}})
	defer f.Close()
	large := record("0ne00000001", "large", 1, `"`+strings.Repeat("x", 5000)+`"`)
	for _, line := range [][]byte{record("0ne00000001", "a", 1, `1`), large, record("0ne00000001", "a.b*", 1, `2`)} {
		_, err := f.Write(line)
		must(t, err)
	}
	eventually(t, "no line says what is missing", func() bool { return log.count("no JetStream stream takes t.a: make one") == 1 })
	makeStream(t, s.addr, jetstream.StreamConfig{Name: "T", Subjects: []string{"t.*"}, MaxMsgSize: 2000})
	eventually(t, "the output does not catch up", func() bool { n, _ := f.pumps[0].cursor.Lag(); return n == 0 })
	got, aside := readStream(t, s.addr, "T"), newArrivals()
	if wrong := got.missing([]string{"0ne00000001-a-000001", "0ne00000001-a.b*-000001"}); len(wrong) > 0 || got.count() != 2 {
		t.Errorf("%d in the stream, %v", got.count(), wrong)
	}
	readLines(t, filepath.Join(folder, "refused.js.ndjson"), aside.take)
	if !aside.seen["0ne00000001-large-000001"] || aside.count() != 1 {
		t.Errorf("%d set aside", aside.count())
	}
}
