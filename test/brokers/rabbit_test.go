package brokers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"latchkey.example/latchkey/test/rig"
)

const (
	brokerName   = "broker.test" // what devices connect to, and the name of the linked hub
	sharedSecret = "a-shared-secret-for-the-test"
	adminUser    = "latchkey"
	adminPass    = "the-password-of-latchkey-at-the-broker"
	appUser      = "backend"
	appPass      = "the-password-of-the-application"

	startLimit = 2 * time.Minute
)

// rabbit is a running RabbitMQ.
type rabbit struct {
	dir              string
	mqtt, management string // addresses
	ca               *x509.CertPool
	epmd, node       *rig.Background
}

// rabbitProgram is where Debian has the server's script; the one on the PATH changes to another user.
const rabbitProgram = "/usr/lib/rabbitmq/bin/rabbitmq-server"

// startRabbit starts RabbitMQ with the files of docs/hubs/rabbitmq, and does not wait for it: ready does. Latchkey will answer its questions at the port
// of the name that its certificate has.
func startRabbit(dir, latchkeyHost, latchkeyPort string) (*rabbit, error) {
	if _, err := os.Stat(rabbitProgram); err != nil {
		return nil, errors.New("RabbitMQ is needed and not installed: run scripts/setup.sh test")
	}
	ports, err := freePorts(5)
	if err != nil {
		return nil, err
	}
	at := func(i int) string { return fmt.Sprintf("127.0.0.1:%d", ports[i]) }
	r := &rabbit{dir: dir, mqtt: at(0), management: at(1)}
	if err := errors.Join(r.certify(), r.configure(latchkeyHost, latchkeyPort, ports)); err != nil {
		return nil, err
	}
	if r.epmd, err = rig.StartBackground(rig.Command{Path: "epmd", Args: []string{"-port", fmt.Sprint(ports[4]), "-address", "127.0.0.1"}}); err != nil {
		return nil, err
	}
	r.node, err = rig.StartBackground(rig.Command{Path: rabbitProgram, Dir: dir, Env: []string{
		"HOME=" + dir,
		"RUNNING_UNDER_SYSTEMD=true", // the script is replaced by the server, which then dies with us
		"ERL_EPMD_PORT=" + fmt.Sprint(ports[4]), "ERL_EPMD_ADDRESS=127.0.0.1",
		"RABBITMQ_NODENAME=latchkey-test@localhost", "RABBITMQ_DIST_PORT=" + fmt.Sprint(ports[3]),
		"RABBITMQ_CONFIG_FILE=" + r.file("rabbitmq.conf"), "RABBITMQ_ADVANCED_CONFIG_FILE=" + r.file("advanced.config"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + r.file("enabled_plugins"),
		"RABBITMQ_CONF_ENV_FILE=" + r.file("none"), "RABBITMQ_MNESIA_BASE=" + r.file("mnesia"), "RABBITMQ_LOG_BASE=" + r.file("log"), "RABBITMQ_LOGS=-",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inetrc \"" + r.file("inetrc") + "\"",
	}})
	if err != nil {
		return nil, errors.Join(err, r.epmd.Stop())
	}
	return r, nil
}

// trust lays down the authorities that Latchkey is judged by. RabbitMQ reads them when it asks.
func (r *rabbit) trust(latchkeyCA string) error {
	authorities, err := os.ReadFile(latchkeyCA)
	if err != nil {
		return err
	}
	return r.write("latchkey-ca.pem", authorities)
}

func (r *rabbit) file(name string) string { return filepath.Join(r.dir, name) }

// stop kills the server: an orderly end takes it seconds, and nobody needs what it keeps.
func (r *rabbit) stop() error {
	process, err := os.FindProcess(r.node.PID())
	if err == nil {
		err = process.Kill()
	}
	<-r.node.Done()
	return errors.Join(err, r.epmd.Stop())
}

// certify makes a certificate for the broker's name, which is its own authority.
func (r *rabbit) certify() error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: brokerName}, DNSNames: []string{brokerName, "localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	chain := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	r.ca = x509.NewCertPool()
	r.ca.AppendCertsFromPEM(chain)
	return errors.Join(r.write("chain.pem", chain), r.write("key.pem", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})))
}

func (r *rabbit) write(name string, content []byte) error {
	return os.WriteFile(r.file(name), content, 0o600)
}

// configure takes the files of the documentation. What is replaced must be there, or the documentation says something else than what is tested.
func (r *rabbit) configure(latchkeyHost, latchkeyPort string, ports []int) error {
	source, err := rig.Source()
	if err != nil {
		return err
	}
	for name, replacements := range map[string][]string{
		"enabled_plugins": nil,
		"advanced.config": {"/etc/rabbitmq/tls/", r.dir + "/"},
		"rabbitmq.conf": {
			"/etc/rabbitmq/tls/", r.dir + "/", "SHARED-SECRET", sharedSecret, "@latchkey.example/", "@" + latchkeyHost + ":" + latchkeyPort + "/",
			"/broker/broker.example/", "/broker/" + brokerName + "/", "mqtt.listeners.ssl.default = 8883", "mqtt.listeners.ssl.default = " + r.mqtt,
			"collect_statistics_interval = 5000", "collect_statistics_interval = 300",
			"127.0.0.1:5672", fmt.Sprintf("127.0.0.1:%d", ports[2]), "management.ssl.port = 15671", fmt.Sprintf("management.ssl.ip = 127.0.0.1\nmanagement.ssl.port = %d", ports[1]),
		},
	} {
		content, err := os.ReadFile(filepath.Join(source, "docs", "hubs", "rabbitmq", name))
		if err != nil {
			return err
		}
		text := string(content)
		for i := 0; i < len(replacements); i += 2 {
			if !strings.Contains(text, replacements[i]) {
				return fmt.Errorf("docs/hubs/rabbitmq/%s has no %q", name, replacements[i])
			}
			text = strings.ReplaceAll(text, replacements[i], replacements[i+1])
		}
		if name == "rabbitmq.conf" { // users of the first start, in place of rabbitmqctl's
			text += "\ndefault_user = " + adminUser + "\ndefault_pass = " + adminPass + "\ndefault_user_tags.administrator = true\n" +
				"default_permissions.configure = ^mqtt-\ndefault_permissions.read = ^$\ndefault_permissions.write = ^$\nlog.console.level = info\n"
		}
		if err := r.write(name, []byte(text)); err != nil {
			return err
		}
	}
	return r.write("inetrc", []byte(fmt.Sprintf("{host, {127,0,0,1}, [%q]}.\n{lookup, [file, native]}.\n", latchkeyHost)))
}

// ready waits until devices can connect, and makes the user of the application.
func (r *rabbit) ready() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	_, err := rig.Poll(ctx, func() (struct{}, bool, error) {
		select {
		case <-r.node.Done():
			return struct{}{}, false, errors.New("RabbitMQ has ended")
		default:
		}
		connection, err := net.Dial("tcp", r.mqtt)
		if err == nil {
			connection.Close()
		}
		return struct{}{}, err == nil && r.api(http.MethodGet, "/api/whoami", nil, nil) == nil, nil
	})
	if err != nil {
		return fmt.Errorf("%w; RabbitMQ said:\n%s", err, r.node.Output())
	}
	return errors.Join(r.api(http.MethodPut, "/api/users/"+appUser, map[string]string{"password": appPass, "tags": ""}, nil),
		r.api(http.MethodPut, "/api/permissions/%2F/"+appUser, map[string]string{"configure": ".*", "write": ".*", "read": ".*"}, nil))
}

// api asks the management API.
func (r *rabbit) api(method, path string, send, into any) error {
	var body io.Reader
	if send != nil {
		text, err := json.Marshal(send)
		if err != nil {
			return err
		}
		body = strings.NewReader(string(text))
	}
	request, err := http.NewRequest(method, "https://"+r.management+path, body)
	if err != nil {
		return err
	}
	request.SetBasicAuth(adminUser, adminPass)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: r.ca, ServerName: brokerName}}}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil || answer.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s %w", method, path, answer.Status, text, err)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(text, into)
}

// queue says whether the broker keeps a session of the device.
func (r *rabbit) queue(deviceID string) bool {
	return r.api(http.MethodGet, "/api/queues/%2F/"+url.PathEscape("mqtt-subscription-"+deviceID+"qos1"), nil, nil) == nil
}

// freePorts finds ports that nobody has; they are only held until all are found.
func freePorts(n int) (ports []int, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports, nil
}
