package outbound

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// receiver is a webhook on this machine, and a client that may call it.
func receiver(t *testing.T, config Config, handler http.HandlerFunc) (*Client, string) {
	t.Helper()
	server := httptest.NewTLSServer(handler)
	t.Cleanup(server.Close)
	config.Private = append(config.Private, prefixes("127.0.0.0/8", "::1/128")...)
	config.Roots = x509.NewCertPool()
	config.Roots.AddCert(server.Certificate())
	client := New(config)
	t.Cleanup(client.Close)
	return client, server.URL
}

// The example that the libraries of Standard Webhooks are tested with.
func TestTheSignatureIsThatOfStandardWebhooks(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := base64.StdEncoding.EncodeToString(Signature(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`)))
	if want := "g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("the signature is %s, want %s", got, want)
	}
}

func TestACallIsSignedAndItsAnswerRead(t *testing.T) {
	key, now := []byte("0123456789abcdef0123456789abcdef"), time.Unix(1893456000, 0)
	client, url := receiver(t, Config{Now: func() time.Time { return now }}, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		want := "v1," + base64.StdEncoding.EncodeToString(Signature(key, "call-1", "1893456000", body))
		if r.Method != http.MethodPost || r.Header.Get("Webhook-Signature") != want || r.Header.Get("Webhook-Timestamp") != "1893456000" ||
			r.Header.Get("Webhook-Id") != "call-1" || r.Header.Get("Content-Type") != "application/json" || r.URL.RawQuery != "code=s3cret" {
			http.Error(w, "not as it should be", http.StatusBadRequest)
			return
		}
		w.Header().Set("Retry-After", "7")
		w.WriteHeader(http.StatusAccepted)
		_, _ = w.Write(append([]byte("got "), body...))
	})
	got, err := client.Post(t.Context(), Call{URL: url + "/pick?code=s3cret", ContentType: "application/json", Body: []byte(`{"a":1}`), ID: "call-1", Key: key})
	if err != nil || got.Status != http.StatusAccepted || string(got.Body) != `got {"a":1}` || got.RetryAfter != 7*time.Second {
		t.Errorf("the answer is %+v (%s), %v", got, got.Body, err)
	}
}

func TestWithoutAKeyThereIsNoSignature(t *testing.T) {
	client, url := receiver(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if _, signed := r.Header["Webhook-Signature"]; signed {
			w.WriteHeader(http.StatusTeapot)
		}
	})
	if got, err := client.Post(t.Context(), Call{URL: url, ID: "1"}); err != nil || got.Status != http.StatusOK {
		t.Errorf("the answer is %+v, %v", got, err)
	}
}

func TestARedirectIsAnAnswerAndNotFollowed(t *testing.T) {
	var calls atomic.Int32
	client, url := receiver(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		http.Redirect(w, r, "http://169.254.169.254/latest/meta-data/", http.StatusTemporaryRedirect)
	})
	got, err := client.Post(t.Context(), Call{URL: url, ID: "1"})
	if err != nil || got.Status != http.StatusTemporaryRedirect || calls.Load() != 1 {
		t.Errorf("after %d calls the answer is %+v, %v", calls.Load(), got, err)
	}
}

func TestAnAnswerIsReadUpToItsBound(t *testing.T) {
	const most = 1 << 10
	for size, want := range map[int]error{most: nil, most + 1: ErrAnswerTooLarge, 10 << 20: ErrAnswerTooLarge} {
		client, url := receiver(t, Config{Answer: most}, func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write(make([]byte, size))
		})
		if _, err := client.Post(t.Context(), Call{URL: url, ID: "1"}); !errors.Is(err, want) {
			t.Errorf("an answer of %d bytes gave %v, want %v", size, err, want)
		}
	}
}

func TestAReceiverThatHangsOrDripsIsLeft(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"drips": func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				_, _ = w.Write([]byte("x"))
				_ = http.NewResponseController(w).Flush()
				select {
				case <-time.After(time.Millisecond):
				case <-r.Context().Done():
				}
			}
		},
	} {
		client, url := receiver(t, Config{Timeout: 100 * time.Millisecond}, handler)
		if _, err := client.Post(t.Context(), Call{URL: url, ID: "1"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("one that %s gave %v", name, err)
		}
	}
}

func TestAnAnswerThatIsNoHTTPIsAnError(t *testing.T) {
	client, url := receiver(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		_, _ = conn.Write([]byte("SSH-2.0-OpenSSH_9.2\r\n"))
		conn.Close()
	})
	if got, err := client.Post(t.Context(), Call{URL: url, ID: "1"}); err == nil {
		t.Errorf("it gave %+v", got)
	}
}

func TestAHeaderHasItsBound(t *testing.T) {
	client, url := receiver(t, Config{}, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 2*maxHeader))
	})
	if _, err := client.Post(t.Context(), Call{URL: url, ID: "1"}); err == nil {
		t.Error("a header of twice the bound was read")
	}
}

// localhost is a name that leads here: what a name says is looked at when it was resolved.
func TestPrivateAddressesAreNotCalled(t *testing.T) {
	client := New(Config{})
	for _, host := range []string{
		"127.0.0.1", "localhost", "10.1.2.3", "172.16.0.1", "172.31.255.254", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255",
		"[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:10.0.0.1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fd00::1]", "[fe80::1]", "[ff02::1]",
		"2130706433", "0x7f000001", "0177.0.0.1", "127.1",
	} {
		_, err := client.Post(t.Context(), Call{URL: "https://" + host + ":1/", ID: "1"})
		if err == nil || strings.Contains(err.Error(), "refused") && !strings.Contains(err.Error(), "reserved") {
			t.Errorf("%s was called: %v", host, err)
		}
	}
}

func TestWhichAddressesMayBeCalled(t *testing.T) {
	open := prefixes("10.1.0.0/16", "fd00:1::/32")
	for address, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "172.15.255.255": true, "172.32.0.0": true, "11.0.0.0": true, "100.63.255.255": true, "100.128.0.0": true,
		"10.1.2.3": true, "::ffff:10.1.2.3": true, "fd00:1::7": true, // opened
		"10.2.0.0": false, "::ffff:10.2.0.0": false, "fd00:2::7": false, "fe80::1%eth0": false, "127.0.0.1": false, "192.0.2.1": false,
	} {
		if err := judge(netip.MustParseAddr(address), open); (err == nil) != want {
			t.Errorf("%s: %v", address, err)
		}
	}
}

func TestAURLThatCannotBeCalledIsRefused(t *testing.T) {
	for url, why := range map[string]string{
		"http://example.com/":                              "https://",
		"ftp://example.com/":                               "https://",
		"https:///path":                                    "no host",
		"https://user:secret@example.com/":                 "user name",
		"https://example.com/#part":                        "fragment",
		"https://example.com/" + strings.Repeat("a", 3000): "longer",
		"://": "not a URL",
	} {
		if err := CheckURL(url); err == nil || !strings.Contains(err.Error(), why) {
			t.Errorf("%.40s: %v", url, err)
		}
		if _, err := New(Config{}).Post(t.Context(), Call{URL: url, ID: "1"}); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.40s was called: %v", url, err)
		}
	}
	if err := CheckURL("https://alloc.example.net:8443/pick?code=abc"); err != nil {
		t.Error(err)
	}
}

// The query of a webhook's URL is often its password.
func TestErrorsDoNotHoldTheURL(t *testing.T) {
	client := New(Config{Private: prefixes("127.0.0.0/8"), Timeout: time.Second})
	_, err := client.Post(t.Context(), Call{URL: "https://127.0.0.1:1/pick?code=s3cret", ID: "1"})
	if err == nil || strings.Contains(fmt.Sprintf("%v %#v", err, err), "s3cret") {
		t.Errorf("the error is %v", err)
	}
}

func TestRetryAfterIsUnderstoodAndBounded(t *testing.T) {
	now := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "5": 5 * time.Second, "-5": 0, "soon": 0, "99999999": maxRetryAfter, "99999999999999": 0,
		"Tue, 01 Jan 2030 00:01:00 GMT": time.Minute, "Mon, 31 Dec 2029 00:00:00 GMT": 0, "Fri, 01 Jan 2100 00:00:00 GMT": maxRetryAfter,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q is %v, want %v", text, got, want)
		}
	}
}
