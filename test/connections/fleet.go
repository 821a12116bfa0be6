package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/test/rig"
)

const (
	atOnce   = 32 // that log in or are asked at a time
	bulk     = 100
	patience = 30 * time.Second
)

// fleet is devices of one key.
type fleet struct {
	service *rig.Service
	web     bool
	key     []byte
	conns   []io.ReadWriter
}

func deviceID(i int) string { return fmt.Sprintf("device-%05d", i) }

// makeFleet creates the devices at the hub, as applications do.
func makeFleet(ctx context.Context, s *rig.Service, n int, web bool) (*fleet, error) {
	f := &fleet{service: s, web: web, key: make([]byte, 32), conns: make([]io.ReadWriter, n)}
	rand.Read(f.key)
	key := map[string]string{"primaryKey": base64.StdEncoding.EncodeToString(f.key), "secondaryKey": base64.StdEncoding.EncodeToString(f.key)}
	connection, err := dps.ParseConnectionString(s.ConnectionString)
	if err != nil {
		return nil, err
	}
	client := s.Client()
	for from := 0; from < n; from += bulk {
		var lines []map[string]any
		for i := from; i < min(from+bulk, n); i++ {
			lines = append(lines, map[string]any{"id": deviceID(i), "importMode": "create", "status": "enabled",
				"authentication": map[string]any{"type": "sas", "symmetricKey": key}})
		}
		body, err := json.Marshal(lines)
		if err != nil {
			return nil, err
		}
		token, err := dps.NewToken(connection.Signer(), connection.HostName, time.Now().Add(time.Minute), connection.SharedAccessKeyName)
		if err != nil {
			return nil, err
		}
		request, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL("/devices?api-version=2021-04-12"), bytes.NewReader(body))
		if err != nil {
			return nil, err
		}
		request.Header.Set("Authorization", token)
		request.Header.Set("Content-Type", "application/json")
		answer, err := client.Do(request)
		if err != nil {
			return nil, err
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("making devices: %s %.500s %w", answer.Status, text, err)
		}
	}
	client.CloseIdleConnections()
	return f, nil
}

// each does something for all devices, some at a time.
func (f *fleet) each(ctx context.Context, do func(i int) error) error {
	places := make(chan struct{}, atOnce)
	failed := make([]error, len(f.conns))
	var under sync.WaitGroup
	for i := range f.conns {
		if ctx.Err() != nil {
			break
		}
		places <- struct{}{}
		under.Go(func() {
			if err := do(i); err != nil {
				failed[i] = fmt.Errorf("%s: %w", deviceID(i), err)
			}
			<-places
		})
	}
	under.Wait()
	lost := 0
	var last error
	for _, err := range failed {
		if err != nil {
			lost, last = lost+1, err
		}
	}
	if lost > 0 {
		return fmt.Errorf("missed: %d of %d connections failed, the last: %w", lost, len(f.conns), last)
	}
	return ctx.Err()
}

// connect has all log in and subscribe.
func (f *fleet) connect(ctx context.Context) error {
	return f.each(ctx, func(i int) (err error) {
		f.conns[i], err = f.login(ctx, i)
		return err
	})
}

func (f *fleet) login(ctx context.Context, i int) (io.ReadWriter, error) {
	id := deviceID(i)
	c, err := f.dial(ctx, net.IPv4(127, 1, byte(i>>8), byte(i)))
	if err != nil {
		return nil, err
	}
	password, err := dps.NewToken(dps.KeySigner(f.key), f.service.Host+"/devices/"+id, time.Now().Add(time.Hour), "")
	if err != nil {
		return nil, err
	}
	connect := append(text("MQTT"), 4, 0xc0, 0, 240) // not clean, as SDKs do; keep-alive of four minutes
	connect = append(append(append(connect, text(id)...), text(f.service.Host+"/"+id+"/?api-version=2021-04-12")...), text(password)...)
	if err := ask(c, packet(0x10, connect), []byte{0x20, 2, 0, 0}); err != nil {
		return nil, fmt.Errorf("CONNECT: %w", err)
	}
	subscribe := []byte{0, 1}
	for _, filter := range []string{"$iothub/twin/res/#", "$iothub/twin/PATCH/properties/desired/#", "$iothub/methods/POST/#", "devices/" + id + "/messages/devicebound/#"} {
		subscribe = append(append(subscribe, text(filter)...), 1)
	}
	if err := ask(c, packet(0x82, subscribe), []byte{0x90, 6, 0, 1, 1, 1, 1, 1}); err != nil {
		return nil, fmt.Errorf("SUBSCRIBE: %w", err)
	}
	return c, nil
}

// dial connects from an address of this machine.
func (f *fleet) dial(ctx context.Context, from net.IP) (io.ReadWriter, error) {
	dialer := &net.Dialer{LocalAddr: &net.TCPAddr{IP: from}, Timeout: patience}
	to := f.service.MQTT
	if f.web {
		to = f.service.HTTPS
	}
	nc, err := dialer.DialContext(ctx, "tcp", to)
	if err != nil {
		return nil, err
	}
	ws := websocket.Dialer{TLSClientConfig: f.service.TLS(), Subprotocols: []string{"mqtt"}, HandshakeTimeout: patience,
		NetDialContext: func(context.Context, string, string) (net.Conn, error) { return nc, nil }}
	if f.web {
		frames, _, err := ws.DialContext(ctx, "wss://"+f.service.Host+"/$iothub/websocket", nil)
		return &framed{frames: frames}, err
	}
	return secured(ctx, nc, f.service.TLS())
}

// ping wants an answer of every device's connection.
func (f *fleet) ping(ctx context.Context) error {
	return f.each(ctx, func(i int) error { return ask(f.conns[i], []byte{0xc0, 0}, []byte{0xd0, 0}) })
}

// ask sends a packet and wants another.
func ask(c io.ReadWriter, packet, want []byte) error {
	if _, err := c.Write(packet); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	if !bytes.Equal(got, want) {
		return fmt.Errorf("answered % x, not % x", got, want)
	}
	return nil
}

func text(s string) []byte { return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...) }

// packet is an MQTT packet of less than 16 KiB.
func packet(head byte, body []byte) []byte {
	p := []byte{head, byte(len(body))}
	if len(body) > 127 {
		p = []byte{head, byte(len(body)&127 | 128), byte(len(body) >> 7)}
	}
	return append(p, body...)
}

// framed is a stream of binary messages.
type framed struct {
	frames *websocket.Conn
	rest   []byte
}

func (f *framed) Read(p []byte) (n int, err error) {
	for len(f.rest) == 0 && err == nil {
		_, f.rest, err = f.frames.ReadMessage()
	}
	n = copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, err
}

func (f *framed) Write(p []byte) (int, error) {
	return len(p), f.frames.WriteMessage(websocket.BinaryMessage, p)
}

// resident is the memory of a process in bytes, 0 if it cannot be read.
func resident(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(status) {
		if fields := bytes.Fields(line); len(fields) == 3 && string(fields[0]) == "VmRSS:" {
			kilobytes, _ := strconv.ParseInt(string(fields[1]), 10, 64)
			return kilobytes << 10
		}
	}
	return 0
}

// secured does the TLS handshake.
func secured(ctx context.Context, nc net.Conn, config *tls.Config) (net.Conn, error) {
	c := tls.Client(nc, config)
	nc.SetDeadline(time.Now().Add(patience))
	err := c.HandshakeContext(ctx)
	nc.SetDeadline(time.Time{})
	return c, err
}
