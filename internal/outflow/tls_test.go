package outflow

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Brokers are spoken to over TLS with a certificate that is checked, and one of our own if they want to see it.
func TestABrokerMustHaveACertificateOfTheCAThatIsNamed(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	made, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, made.Public(), made)
	must(t, err)
	key, err := x509.MarshalPKCS8PrivateKey(made)
	must(t, err)
	crt, private := filepath.Join(folder, "server.crt"), filepath.Join(folder, "server.key")
	must(t, os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: certificate}), 0o600))
	must(t, os.WriteFile(private, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	open, secured := freeAddr(t), freeAddr(t)
	_, openPort, _ := strings.Cut(open, ":")
	_, securedPort, _ := strings.Cut(secured, ":")
	config := filepath.Join(folder, "mosquitto.conf")
	must(t, os.WriteFile(config, fmt.Appendf(nil, "listener %s 127.0.0.1\nlistener %s 127.0.0.1\ncertfile %s\nkeyfile %s\ncafile %s\nrequire_certificate true\nallow_anonymous true\nuser root\n",
		openPort, securedPort, crt, private, crt), 0o600))
	(&server{t: t, name: "mosquitto", args: []string{"-c", config}, addr: open}).start()
	got := newArrivals()
	listen(t, open, func(_ string, payload []byte) { got.take(payload) })
	trusted := Trust{CAFile: crt, CertificateFile: crt, KeyFile: private}
	for name, c := range map[string]struct {
		trust Trust
		works bool
	}{"it has": {trusted, true}, "it has one of a CA that nobody named": {Trust{}, false}, "it wants to see one": {Trust{CAFile: crt}, false}} {
		t.Run(name, func(t *testing.T) {
			before := got.count()
			f := openFlow(t, Config{Folder: t.TempDir(), Outputs: []Output{{Name: "b", To: ToMQTT{URL: "mqtts://" + secured, ClientID: "b", Topic: "t", Payload: PayloadRecord, Trust: c.trust}}}})
			defer f.Close()
			_, err := f.Write(record("0ne00000001", "dev", before, `1`))
			must(t, err)
			eventually(t, "nothing happens", func() bool { return len(f.Trouble()) > 0 || got.count() > before })
			if works := got.count() > before; works != c.works {
				t.Errorf("works: %t; %v", works, f.Trouble())
			}
			if err := f.Reload(); err != nil {
				t.Error(err)
			}
		})
	}
	must(t, os.Chmod(private, 0o644))
	_, err = Open(Config{Folder: t.TempDir(), Limit: 64 << 20, Outputs: []Output{{Name: "b", To: ToMQTT{URL: "mqtts://" + secured, Topic: "t", Trust: trusted}}}})
	if err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others may read: %v", err)
	}
}
