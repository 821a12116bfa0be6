package daemon

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestTheServiceDrainsBeforeItEnds(t *testing.T) {
	r := installed(t).run(t)
	c := r.device(0)
	must(t, c.whole())
	password, err := c.password()
	must(t, err)
	hub, err := c.login(password)
	must(t, err)

	atWork := r.dial()
	must(t, c.begin(atWork))
	r.end()
	r.log.wait(t, 0, "draining", message("draining: no new connections, requests at work finish"))

	if status, body := r.probe("/readyz"); status != http.StatusServiceUnavailable || body != "draining\n" {
		t.Errorf("readyz while draining: %d %q", status, body)
	}
	if status, body := r.probe("/healthz"); status != http.StatusOK {
		t.Errorf("healthz while draining: %d %q", status, body)
	}
	r.refusesSoon(t, r.https)
	select {
	case <-r.done:
		t.Fatal("the service ended with a request at work")
	default:
	}
	_, err = atWork.Write(c.body()[100:])
	must(t, err)
	if answer, err := io.ReadAll(atWork); err != nil || !strings.Contains(string(answer), "HTTP/1.1 401 ") || !strings.Contains(string(answer), "authenticationKey") {
		t.Errorf("the request at work got %q %v", answer, err)
	}
	r.stop()
	for _, addr := range []string{r.https, r.mqtt, r.metrics} {
		if conn, err := net.Dial("tcp", addr); err == nil {
			conn.Close()
			t.Errorf("something still listens at %s", addr)
		}
	}
	if settled(hub.Publish("devices/"+c.id+"/messages/events/", 1, false, "late")) == nil {
		t.Error("the hub took a message after the end")
	}
}

// A proof that is at work when the end comes is redeemed whole, hub and all.
func TestAProofAtWorkIsFinishedWhileDraining(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	c := r.device(0)
	must(t, c.enroll())
	status, body, err := c.put("")
	must(t, err)
	if status != 401 {
		t.Fatalf("challenge: %d %s", status, body)
	}
	must(t, c.answer(body))
	conn := r.dial()
	must(t, c.beginWith(conn, "Authorization: "+c.token+"\r\n"))
	r.end()
	r.log.wait(t, 0, "draining", message("draining: no new connections, requests at work finish"))
	_, err = conn.Write(c.body()[100:])
	must(t, err)
	answer, err := io.ReadAll(conn)
	must(t, err)
	if !strings.Contains(string(answer), "HTTP/1.1 202 ") {
		t.Fatalf("the proof at work got %q", answer)
	}
	_, text, _ := strings.Cut(string(answer), "\r\n\r\n")
	must(t, c.accepted([]byte(text)))
	r.stop()
	again := c.moved(h.run(t))
	must(t, again.poll())
	must(t, again.send("on the other side"))
}

// refusesSoon waits until no new connection is taken: the listener closes a moment after draining was announced.
func (r *running) refusesSoon(t *testing.T, addr string) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_, err = tls.Client(conn, r.tls()).Write([]byte("x"))
			conn.Close()
		}
		if err != nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("new connections are taken while draining")
		}
	}
}
