package outflow

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
)

// mosquitto is the real broker, with a password, and a gate in front of it.
func mosquitto(t *testing.T, settings ...string) (*server, *gate) {
	t.Helper()
	folder := t.TempDir()
	addr := freeAddr(t)
	_, port, _ := strings.Cut(addr, ":")
	passwords := filepath.Join(folder, "passwords")
	must(t, os.WriteFile(passwords, []byte("latchkey:canary\n"), 0o600))
	if output, err := exec.Command(program(t, "mosquitto_passwd"), "-U", passwords).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	config := filepath.Join(folder, "mosquitto.conf")
	must(t, os.WriteFile(config, []byte(fmt.Sprintf("listener %s 127.0.0.1\nallow_anonymous false\npassword_file %s\nuser root\nmax_inflight_messages 0\nmax_queued_messages 0\n%s\n", port, passwords, strings.Join(settings, "\n"))), 0o600))
	s := &server{t: t, name: "mosquitto", args: []string{"-c", config}, addr: addr}
	s.start()
	return s, newGate(t, addr)
}

// listener subscribes to everything, as another client of the broker.
func listen(t *testing.T, addr string, each func(topic string, payload []byte)) {
	t.Helper()
	o := mqtt.NewClientOptions().AddBroker("tcp://" + addr).SetClientID("listener").SetUsername("latchkey").SetPassword("canary").SetAutoReconnect(false)
	c := mqtt.NewClient(o)
	for _, ask := range []func() mqtt.Token{c.Connect, func() mqtt.Token {
		return c.Subscribe("#", 1, func(_ mqtt.Client, m mqtt.Message) { each(m.Topic(), m.Payload()) })
	}} {
		if token := ask(); !token.WaitTimeout(patience) || token.Error() != nil {
			t.Fatal(token.Error())
		}
	}
	t.Cleanup(func() { c.Disconnect(0) })
}

// The broker is killed, comes back, and connections are cut under load; what it acknowledged before it was killed had been handed on.
func TestAnMQTTBrokerThatIsKilledAndCutGetsEverything(t *testing.T) {
	t.Parallel()
	broker, g := mosquitto(t)
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte("canary\n"), 0o600))
	var log logs
	f := openFlow(t, Config{Folder: t.TempDir(), Logger: slog.New(slog.NewTextHandler(&log, nil)), Outputs: []Output{{Name: "bridge", To: ToMQTT{
		URL: "mqtt://" + g.addr(), ClientID: "latchkey-bridge", Topic: "t/{scope}/{deviceId}", Payload: PayloadRecord, Username: "latchkey", PasswordFile: secret}}}})
	defer f.Close()
	got, topics := newArrivals(), sync.Map{}
	each := func(topic string, payload []byte) { topics.Store(topic, true); got.take(payload) }
	listen(t, broker.addr, each)
	acknowledged := sendAll(t, f, 4, 0, 50) // the gate is closed: all of it waits
	g.set(true)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 5 {
			time.Sleep(20 * time.Millisecond) // somewhere in the middle of what is sent below
			g.cut()
		}
	}()
	acknowledged = append(acknowledged, sendAll(t, f, 4, 50, 400)...)
	<-done
	eventually(t, "not everything came before the kill", func() bool { return got.count() == 1600 })
	broker.kill()
	g.set(false)
	acknowledged = append(acknowledged, sendAll(t, f, 4, 400, 450)...)
	broker.start()
	listen(t, broker.addr, each)
	g.set(true)
	eventually(t, "not everything came", func() bool { return got.count() == 1800 })
	if wrong := got.missing(acknowledged); len(wrong) > 0 {
		t.Error(wrong)
	}
	if _, ok := topics.Load("t/0ne00000001/device03"); !ok {
		t.Error("not at the topic of the template")
	}
	if log.count("canary") > 0 {
		t.Errorf("the password is in the log:\n%s", log.String())
	}
	t.Logf("%d came twice", got.twice)
}

// A broker of MQTT 3.1.1 that takes no message of this size can only end the connection. One device that sends such a message stops no other.
func TestARecordThatEndsEachConnectionToABrokerIsSetAside(t *testing.T) {
	t.Parallel()
	broker, g := mosquitto(t, "max_packet_size 20000")
	g.set(true)
	secret, folder := filepath.Join(t.TempDir(), "password"), t.TempDir()
	must(t, os.WriteFile(secret, []byte("canary\n"), 0o600))
	f := openFlow(t, Config{Folder: folder, Outputs: []Output{{Name: "bridge", To: ToMQTT{
		URL: "mqtt://" + g.addr(), ClientID: "latchkey-bridge", Topic: "t/{deviceId}", Payload: PayloadRecord, Username: "latchkey", PasswordFile: secret}}}})
	defer f.Close()
	got := newArrivals()
	listen(t, broker.addr, func(_ string, payload []byte) { got.take(payload) })
	acknowledged := sendAll(t, f, 2, 0, 20)
	if _, err := f.Write(record("0ne00000001", "device09", 0, `"`+strings.Repeat("x", 30_000)+`"`)); err != nil {
		t.Fatal(err)
	}
	acknowledged = append(acknowledged, sendAll(t, f, 2, 20, 40)...)
	eventually(t, "a record of one device stops the others", func() bool { return got.count() == 80 })
	if wrong := got.missing(acknowledged); len(wrong) > 0 {
		t.Error(wrong)
	}
	aside := newArrivals()
	readLines(t, filepath.Join(folder, "refused.bridge.ndjson"), aside.take)
	if wrong := aside.missing([]string{"0ne00000001-device09-000000"}); len(wrong) > 0 || aside.count() != 1 {
		t.Errorf("%d set aside, %v", aside.count(), wrong)
	}
}

func TestAnMQTTBrokerGetsTheBodyAloneIfThatIsAsked(t *testing.T) {
	t.Parallel()
	broker, g := mosquitto(t)
	g.set(true)
	secret := filepath.Join(t.TempDir(), "password")
	must(t, os.WriteFile(secret, []byte("wrong"), 0o600))
	bodies := make(chan string, 10)
	listen(t, broker.addr, func(topic string, payload []byte) { bodies <- topic + " " + string(payload) })
	f := openFlow(t, Config{Folder: t.TempDir(), Outputs: []Output{{Name: "bridge", Scope: "0ne00000001", To: ToMQTT{URL: "mqtt://" + g.addr(), ClientID: "b", Topic: "t/{hub}/{deviceId}",
		Payload: PayloadBody, Username: "latchkey", PasswordFile: secret}}}})
	defer f.Close()
	for _, line := range [][]byte{record("0ne00000002", "foreign", 1, `1`), record("0ne00000001", "a/b+#", 1, `{"t": 1}`)} {
		_, err := f.Write(line)
		must(t, err)
	}
	eventually(t, "a wrong password is no failure", func() bool { return len(f.Trouble()) == 1 })
	must(t, os.WriteFile(secret, []byte("canary"), 0o600))
	must(t, f.Reload())
	select {
	case got := <-bodies:
		if want := `t/hub.0ne00000001.test/a%2Fb%2B%23 {"t":1}`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	case <-time.After(patience):
		t.Error("nothing came")
	}
}

func TestWhatCanBeNoBridgeIsRefusedAtTheStart(t *testing.T) {
	for name, c := range map[string]struct {
		to   To
		want string
	}{
		"another scheme":         {ToMQTT{URL: "http://b", Topic: "t"}, "url must be mqtts://"},
		"a password in the URL":  {ToMQTT{URL: "mqtts://u:canary@b", Topic: "t"}, "must not hold a user name"},
		"a wildcard":             {ToMQTT{URL: "mqtts://b", Topic: "t/#"}, "topic: it must not hold"},
		"a system topic":         {ToMQTT{URL: "mqtts://b", Topic: "$SYS/t"}, "nor begin with $"},
		"no such placeholder":    {ToMQTT{URL: "mqtts://b", Topic: "t/{device}"}, "it has {device}; there are {scope}, {hub} and {deviceId}"},
		"an empty topic":         {ToMQTT{URL: "mqtts://b"}, "topic: it is empty"},
		"a brace alone":          {ToMQTT{URL: "mqtts://b", Topic: "t/{deviceId"}, "braces alone"},
		"a key without its half": {ToMQTT{URL: "mqtts://b", Topic: "t", Trust: Trust{KeyFile: "k"}}, "go together"},
		"no such CA":             {ToMQTT{URL: "mqtts://b", Topic: "t", Trust: Trust{CAFile: "/nonexistent"}}, "no such file"},
		"NATS, another scheme":   {ToNATS{URL: "mqtt://b", Subject: "t"}, "url must be tls://"},
		"NATS, a wildcard":       {ToNATS{URL: "tls://b", Subject: "t.>"}, "subject: it must not hold"},
		"NATS, a blank":          {ToNATS{URL: "tls://b", Subject: "t b"}, "subject: it must not hold"},
		"NATS, a password":       {ToNATS{URL: "tls://u:canary@b", Subject: "t"}, "must not hold a user name"},
		"NATS, no credentials":   {ToNATS{URL: "tls://b", Subject: "t", CredentialsFile: "/nonexistent"}, "no such file"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(Config{Folder: t.TempDir(), Limit: 64 << 20, Outputs: []Output{{Name: "out", To: c.to}}})
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "canary") {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}
