package daemon

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"latchkey.example/latchkey/internal/authority"
	"latchkey.example/latchkey/internal/config"
)

// certificate is the server's certificate, which can be changed while it is in use.
type certificate struct {
	current atomic.Pointer[tls.Certificate]
	path    atomic.Value // string: its file
	// scoped gives the certificate of a scope's own, by host name; nil if it has none. Set before the first handshake.
	scoped func(host string) *tls.Certificate
	expiry prometheus.Gauge
}

func loadCertificate(cfg config.Config, metrics prometheus.Registerer) (*certificate, error) {
	c := &certificate{expiry: prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "latchkey_certificate_expiry_seconds", Help: "Unix time at which the server's certificate ends.",
	})}
	metrics.MustRegister(c.expiry)
	return c, c.reload(cfg)
}

// reload reads the files again; on failure the certificate in use stays.
func (c *certificate) reload(cfg config.Config) error {
	pair, err := tls.LoadX509KeyPair(cfg.Certificate, cfg.PrivateKey)
	if err != nil {
		return fmt.Errorf("the server's certificate: %w; `latchkey cert renew` makes a new one", err)
	}
	if pair.Leaf == nil {
		if pair.Leaf, err = x509.ParseCertificate(pair.Certificate[0]); err != nil {
			return fmt.Errorf("the server's certificate: %w", err)
		}
	}
	c.current.Store(&pair)
	c.path.Store(cfg.Certificate)
	c.expiry.Set(float64(pair.Leaf.NotAfter.Unix()))
	return nil
}

// warn logs when the certificate ends within the warning time.
func (c *certificate) warn(log *slog.Logger) {
	end := c.current.Load().Leaf.NotAfter
	if left := time.Until(end); left < authority.RenewalWarning {
		log.Warn("the server's certificate ends soon: run `latchkey cert renew` and send SIGHUP", "end", end, "days", int(left.Hours()/24))
	}
}

// tls asks for a client certificate and takes any: whether it lets a device in is judged per request, by scope. The protocols are what a
// listener offers by ALPN, if it does.
func (c *certificate) tls(protocols ...string) *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS12,
		NextProtos:     protocols,
		ClientAuth:     tls.RequestClientCert,
		GetCertificate: c.choose,
	}
}

// choose takes the certificate of the scope whose name the client asks for, else the configured one.
func (c *certificate) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if own := c.scoped(hello.ServerName); own != nil {
		return own, nil
	}
	return c.current.Load(), nil
}
