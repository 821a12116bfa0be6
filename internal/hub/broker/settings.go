package broker

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
)

// Product is which broker it is: it decides in which words the broker asks and what its management API is. The set is closed.
type Product string

// The products. Generic is any broker that asks in the words of EMQX; it has no management API that Latchkey knows.
const (
	RabbitMQ  Product = "rabbitmq"
	EMQX      Product = "emqx"
	VerneMQ   Product = "vernemq"
	NanoMQ    Product = "nanomq"
	Mosquitto Product = "mosquitto"
	Generic   Product = "generic"
)

// Products lists them all.
var Products = []Product{RabbitMQ, EMQX, VerneMQ, NanoMQ, Mosquitto, Generic}

// managed are the products whose management API can end a connection.
func (p Product) managed() bool { return p == RabbitMQ || p == EMQX || p == VerneMQ }

// sendsCertificates: the broker can tell what certificate a client has shown it.
func (p Product) sendsCertificates() bool { return p == EMQX || p == Generic }

// Settings are what a linked hub of the broker kind keeps in the clear, as JSON.
type Settings struct {
	Product Product `json:"product"`
	// ManagementURL is the root of the broker's management API, such as https://broker.example:15671. Empty only for products without one.
	ManagementURL  string `json:"managementUrl,omitempty"`
	ManagementUser string `json:"managementUser,omitempty"` // EMQX: the API key; VerneMQ: not used
	// PlainManagement allows a management URL of http to another machine; to this one http is always allowed.
	PlainManagement bool `json:"plainManagement,omitempty"`
	// CACertificates are what the management API's certificate is judged by beside the machine's own authorities, in PEM.
	CACertificates string `json:"ca,omitempty"`
	// VirtualHost is RabbitMQ's, by default "/", and VerneMQ's mountpoint, by default empty.
	VirtualHost string `json:"virtualHost,omitempty"`
	// Publish and Subscribe are topic templates: what a device may publish to, and what a filter that it subscribes to must lie within.
	// {deviceId} stands for the device id as a whole segment; + and # are those of MQTT. Null: those of an IoT Hub's events and device-bound
	// messages. An empty list: nothing.
	Publish   []string `json:"publish"`
	Subscribe []string `json:"subscribe"`
	// CheckEvery is how often all connections are looked at, for those that should not be any more: 5s to 1h, by default 1m.
	CheckEvery Duration `json:"checkEvery,omitempty"`
	// ListDelay is how long a new connection may be at the broker before its management API shows it: 1s to 2m, by default 7s with RabbitMQ,
	// whose statistics are 5 seconds old, and 3s with others.
	ListDelay Duration `json:"listDelay,omitempty"`
}

// Secret is what a linked hub of the broker kind keeps sealed, as JSON.
type Secret struct {
	ManagementPassword string `json:"managementPassword,omitempty"` // VerneMQ: the API key
	// SharedSecret is how the broker shows that it is the one that asks: 16 to 128 letters, digits, "-" and "_".
	SharedSecret string `json:"sharedSecret"`
}

// String hides the secrets.
func (Secret) String() string { return "[secret]" }

// GoString hides the secrets.
func (Secret) GoString() string { return "[secret]" }

// Duration is a time.Duration that JSON spells as 1m30s.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := time.ParseDuration(string(text))
	*d = Duration(parsed)
	return err
}

// What an IoT Hub lets a device do, for devices that are built for one.
var (
	defaultPublish   = []string{"devices/{deviceId}/messages/events/#"}
	defaultSubscribe = []string{"devices/{deviceId}/messages/devicebound/#"}
)

const (
	maxSettings  = 64 << 10
	maxTemplates = 64

	minSharedSecret, maxSharedSecret = 16, 128
)

// ParseSettings reads settings with all defaults filled in. The error is a sentence for whoever links the hub.
func ParseSettings(text []byte) (Settings, error) {
	var s Settings
	if len(text) == 0 {
		return s, errors.New(`a broker needs settings, such as {"product": "rabbitmq", …}: docs/hubs/brokers.md says what they hold`)
	}
	if err := decode(text, &s); err != nil {
		return Settings{}, fmt.Errorf("the settings of the broker cannot be read: %w", err)
	}
	s.setDefaults()
	return s, s.Check()
}

// ParseSecret reads the sealed part. The error holds nothing of it.
func ParseSecret(text []byte, product Product) (Secret, error) {
	var s Secret
	if err := decode(text, &s); err != nil {
		return Secret{}, errors.New("the secrets of the broker cannot be read: they are an object with sharedSecret and managementPassword")
	}
	return s, s.Check(product)
}

// decode takes one JSON value with known members alone.
func decode(text []byte, into any) error {
	if len(text) > maxSettings {
		return fmt.Errorf("they are larger than %d bytes", maxSettings)
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(into); err != nil {
		return err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the object")
	}
	return nil
}

func (s *Settings) setDefaults() {
	if s.Publish == nil {
		s.Publish = slices.Clone(defaultPublish)
	}
	if s.Subscribe == nil {
		s.Subscribe = slices.Clone(defaultSubscribe)
	}
	if s.VirtualHost == "" && s.Product == RabbitMQ {
		s.VirtualHost = "/"
	}
	if s.CheckEvery == 0 {
		s.CheckEvery = Duration(time.Minute)
	}
	if s.ListDelay == 0 {
		s.ListDelay = Duration(3 * time.Second)
		if s.Product == RabbitMQ {
			s.ListDelay = Duration(7 * time.Second)
		}
	}
}

// Check says in one sentence what is wrong with settings and what would be right.
func (s Settings) Check() error {
	if !slices.Contains(Products, s.Product) {
		return fmt.Errorf("product %q is none of the brokers that Latchkey knows: give one of %s", clip(string(s.Product)), productList())
	}
	if err := s.checkManagement(); err != nil {
		return err
	}
	if every := time.Duration(s.CheckEvery); every < 5*time.Second || every > time.Hour {
		return errors.New("checkEvery must be from 5s to 1h")
	}
	if delay := time.Duration(s.ListDelay); delay < time.Second || delay > 2*time.Minute {
		return errors.New("listDelay must be from 1s to 2m")
	}
	if len(s.VirtualHost) > 255 || s.VirtualHost != "" && s.Product != RabbitMQ && s.Product != VerneMQ {
		return errors.New("virtualHost is for RabbitMQ and, as mountpoint, for VerneMQ, and has at most 255 bytes")
	}
	if _, err := compileAll("publish", s.Publish, s.Product); err != nil {
		return err
	}
	_, err := compileAll("subscribe", s.Subscribe, s.Product)
	return err
}

func (s Settings) checkManagement() error {
	switch {
	case !s.Product.managed() && (s.ManagementURL != "" || s.ManagementUser != ""):
		return fmt.Errorf("%s has no management API that ends connections: leave managementUrl and managementUser out", s.Product)
	case !s.Product.managed():
		return nil
	case s.ManagementURL == "":
		return fmt.Errorf("managementUrl is missing: without it the connections of a device that is shut out would stay; give the root of the management API of %s, such as %s", s.Product, exampleURL[s.Product])
	case s.ManagementUser == "" && s.Product != VerneMQ:
		return errors.New("managementUser is missing: it is who may list and close connections at the management API")
	case strings.ContainsRune(s.ManagementUser, ':'):
		return errors.New("managementUser holds a colon, which no user name of HTTP can")
	}
	if s.CACertificates != "" && !x509.NewCertPool().AppendCertsFromPEM([]byte(s.CACertificates)) {
		return errors.New("ca holds no certificate in PEM")
	}
	return checkURL(s.ManagementURL, s.PlainManagement)
}

var exampleURL = map[Product]string{
	RabbitMQ: "https://broker.example:15671", EMQX: "https://broker.example:18084", VerneMQ: "https://broker.example:8888",
}

func checkURL(text string, plain bool) error {
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Host == "" || u.Opaque != "":
		return errors.New("managementUrl is not a URL such as https://broker.example:15671")
	case u.User != nil:
		return errors.New("managementUrl holds a user name or password: they belong into managementUser and the secret")
	case u.RawQuery != "" || u.Fragment != "":
		return errors.New("managementUrl ends with its path: take away what follows ? or #")
	case u.Scheme == "https", u.Scheme == "http" && (plain || loopback(u.Hostname())):
		return nil
	case u.Scheme == "http":
		return errors.New("managementUrl would send the management password over a network in the clear: use https, or set plainManagement if that network is trusted")
	}
	return errors.New("managementUrl must begin with https://")
}

func loopback(host string) bool {
	address, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && address.IsLoopback()
}

func productList() string {
	names := make([]string, len(Products))
	for i, p := range Products {
		names[i] = string(p)
	}
	return strings.Join(names, ", ")
}

// Check says what is wrong with the secrets, without repeating any.
func (s Secret) Check(product Product) error {
	if len(s.SharedSecret) < minSharedSecret || len(s.SharedSecret) > maxSharedSecret || strings.Trim(s.SharedSecret, secretLetters) != "" {
		return fmt.Errorf("sharedSecret must have %d to %d letters, digits, \"-\" and \"_\": it stands in the broker's configuration and shows that it is the broker who asks",
			minSharedSecret, maxSharedSecret)
	}
	if product.managed() && s.ManagementPassword == "" {
		return errors.New("managementPassword is missing: it is the password, or the API key's secret, for the management API")
	}
	if len(s.ManagementPassword) > 1024 {
		return errors.New("managementPassword has more than 1024 bytes")
	}
	return nil
}

const secretLetters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

func clip(s string) string {
	if len(s) > 100 {
		return s[:100] + "…"
	}
	return s
}
