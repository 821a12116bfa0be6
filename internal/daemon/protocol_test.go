package daemon

import (
	"crypto/tls"
	"net"
	"testing"
)

// HTTP/1.1 alone is spoken: it is what device SDKs use, and what our deadlines were thought through for.
func TestHTTP2IsNotOffered(t *testing.T) {
	r := installed(t).run(t)
	config := r.tls()
	config.NextProtos = []string{"h2", "http/1.1"}
	conn, err := net.Dial("tcp", r.https)
	must(t, err)
	client := tls.Client(conn, config)
	defer client.Close()
	must(t, client.Handshake())
	if p := client.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
		t.Errorf("negotiated %q", p)
	}
}
