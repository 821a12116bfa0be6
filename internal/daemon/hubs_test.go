package daemon

import (
	"encoding/base64"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
)

// linking is a message that links a hub at an address of this machine.
func linking(name, address string) string {
	key := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("k", 32)))
	return `{"kind":"azure","settings":{"address":"` + address + `"},"secret":{"connectionString":"HostName=` + name + `;SharedAccessKeyName=p;SharedAccessKey=` + key + `"}}`
}

// nobody is an address of this machine where nothing listens, and reports whether somebody came.
func nobody(t *testing.T) (address string, visited func() bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	came := make(chan struct{}, 1)
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			conn.Close()
			select {
			case came <- struct{}{}:
			default:
			}
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().String(), func() bool {
		select {
		case <-came:
			return true
		default:
			return false
		}
	}
}

// A tenant must not search the installation's networks by linking hubs; the operator of the installation links hubs wherever they are.
func TestATenantReachesNoPrivateAddress(t *testing.T) {
	h := installed(t)
	r := h.run(t)
	address, visited := nobody(t)
	home := operator{t, r, r.client()}
	var refused struct{ Message string }
	must(t, json.Unmarshal(home.ask(http.StatusBadRequest, http.MethodPut, "/latchkey/v1/hubs/far.example.net", asJSON, linking("far.example.net", address)), &refused))
	if !strings.Contains(refused.Message, "closes the connection") || !visited() {
		t.Errorf("the installation's operator is told %q", refused.Message)
	}

	var made struct{ ConnectionString string }
	name := "plant2." + host
	must(t, json.Unmarshal(home.ask(http.StatusOK, http.MethodPost, "/latchkey/v1/scopes", asJSON, `{"hosts":["`+name+`"]}`), &made))
	connection, err := dps.ParseConnectionString(made.ConnectionString)
	must(t, err)
	token, err := dps.NewToken(connection.Signer(), name, time.Now().Add(time.Hour), connection.SharedAccessKeyName)
	must(t, err)
	status, body, err := ask(r.client(), http.MethodPut, "https://"+name+"/latchkey/v1/hubs/far.example.net", token, []byte(linking("far.example.net", address)))
	must(t, err)
	if status != http.StatusBadRequest || !strings.Contains(string(body), "private or reserved network") || strings.Contains(string(body), "127.0.0.1") || visited() {
		t.Errorf("the tenant is told %d %s, visited %t", status, body, visited())
	}
	// Nor by linking it without the check, and having it looked at.
	status, body, err = ask(r.client(), http.MethodPut, "https://"+name+"/latchkey/v1/hubs/far.example.net?check=false", token, []byte(linking("far.example.net", address)))
	if err != nil || status != http.StatusOK {
		t.Fatalf("%d %s %v", status, body, err)
	}
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // until the service has looked by itself
		status, body, err = ask(r.client(), http.MethodGet, "https://"+name+"/latchkey/v1/hubs/far.example.net", token, nil)
		must(t, err)
		if status == http.StatusOK && strings.Contains(string(body), `"failing"`) && strings.Contains(string(body), "private or reserved network") {
			break
		}
		if time.Now().After(limit) {
			t.Fatalf("looked at: %d %s", status, body)
		}
	}
	if visited() {
		t.Error("the private address was called")
	}
}
