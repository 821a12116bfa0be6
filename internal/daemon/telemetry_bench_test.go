package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/config"
	"latchkey.example/latchkey/internal/hub/embedded"
	"latchkey.example/latchkey/internal/registration"
)

// BenchmarkTelemetry measures messages from PUBLISH to PUBACK over loopback TCP, each device with one on its way, 200 bytes each. "written" is a file without
// fsync, which is what a hub that acknowledges before its record is durable would do.
func BenchmarkTelemetry(b *testing.B) {
	for _, sink := range []string{"written", "durable"} {
		for _, devices := range []int{1, 100} {
			b.Run(fmt.Sprintf("sink=%s/devices=%d", sink, devices), func(b *testing.B) { benchmarkTelemetry(b, sink, devices) })
		}
	}
}

func benchmarkTelemetry(b *testing.B, sink string, devices int) {
	path := filepath.Join(b.TempDir(), "telemetry", "hub.ndjson")
	durable, err := openTelemetryFile(config.Config{Hub: config.Hub{Telemetry: path}})
	if err != nil {
		b.Fatal(err)
	}
	defer durable.Close()
	var to io.Writer = durable
	if sink == "written" {
		file, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		to = file
	}
	stage := newTelemetryStage(b, to, devices)
	message := publishPacket("devices/%s/messages/events/", bytes.Repeat([]byte("x"), 200))
	var work sync.WaitGroup
	b.ResetTimer()
	for i := range devices {
		work.Go(func() {
			packet, ack := message(fmt.Sprintf("device%03d", i)), make([]byte, 4)
			for range b.N/devices + 1 {
				if _, err := stage[i].Write(packet); err != nil {
					b.Error(err)
					return
				}
				if _, err := io.ReadFull(stage[i], ack); err != nil || ack[0] != 0x40 {
					b.Errorf("% x: %v", ack, err)
					return
				}
			}
		})
	}
	work.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// notAsked is the rest of an Identities.
type notAsked interface{ embedded.Identities }

// oneKey is an Identities in which every device has the key that it was given.
type oneKey struct {
	notAsked
	mu   sync.Mutex
	rows map[string]registration.Identity
}

func (o *oneKey) PutIdentity(_ context.Context, _ string, put registration.IdentityPut, _ registration.Audit) (registration.Verdict, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.rows[put.DeviceID] = put.Identity
	return registration.Applied, nil
}

func (o *oneKey) Identity(_ context.Context, _, _, id string) (registration.Identity, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if row, ok := o.rows[id]; ok {
		return row, nil
	}
	return registration.Identity{}, registration.ErrNotFound
}

func (o *oneKey) Session(context.Context, string, string, string) (uint32, error) { return 0, nil }

func (o *oneKey) PutSession(context.Context, string, string, string, uint32) (registration.Verdict, error) {
	return registration.Applied, nil
}

// unsealed leaves all in clear.
type unsealed struct{}

func (unsealed) Seal(_ string, plain []byte) ([]byte, error)  { return bytes.Clone(plain), nil }
func (unsealed) Open(_ string, sealed []byte) ([]byte, error) { return bytes.Clone(sealed), nil }

// newTelemetryStage is a hub with so many devices logged in.
func newTelemetryStage(b *testing.B, sink io.Writer, devices int) []io.ReadWriter {
	const name = "hub.latchkey.test"
	hub, err := embedded.New(embedded.Config{Identities: &oneKey{rows: map[string]registration.Identity{}}, Serve: true, Sealer: unsealed{}, Telemetry: sink,
		Names: func(hub string) (string, bool) { return "0ne00000001", hub == name }, Limits: embedded.Limits{PendingPerAddress: 1000}})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go hub.Serve(l)
	b.Cleanup(func() { hub.Close(context.Background()) })
	key := bytes.Repeat([]byte("k"), 32)
	var all []io.ReadWriter
	for i := range devices {
		id := fmt.Sprintf("device%03d", i)
		device := registration.HubDevice{DeviceID: id, Credential: registration.Credential{Primary: key}, Generation: 1}
		if err := hub.EnsureDevice(b.Context(), "0ne00000001", name, device); err != nil {
			b.Fatal(err)
		}
		token, err := dps.NewToken(dps.KeySigner(key), name+"/devices/"+id, time.Now().Add(time.Hour), "")
		if err != nil {
			b.Fatal(err)
		}
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { c.Close() })
		body := append(mqttText("MQTT"), 4, 0xc0, 0, 60)
		for _, s := range []string{id, name + "/" + id + "/?api-version=2021-04-12", token} {
			body = append(body, mqttText(s)...)
		}
		c.Write(mqttPacket(0x10, body))
		answer := make([]byte, 4)
		if _, err := io.ReadFull(c, answer); err != nil || answer[0] != 0x20 || answer[3] != 0 {
			b.Fatalf("login: % x %v", answer, err)
		}
		all = append(all, struct {
			io.Reader
			io.Writer
		}{bufio.NewReader(c), c})
	}
	return all
}

func mqttText(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}

func mqttPacket(head byte, body []byte) []byte {
	packet := binary.AppendUvarint([]byte{head}, uint64(len(body))) // the same variable length as MQTT's
	return append(packet, body...)
}

func publishPacket(topic string, payload []byte) func(id string) []byte {
	return func(id string) []byte {
		body := append(mqttText(fmt.Sprintf(topic, id)), 0, 7)
		return mqttPacket(0x32, append(body, payload...))
	}
}
