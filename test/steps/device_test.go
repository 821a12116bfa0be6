package steps

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"testing"
	"time"

	"latchkey.example/latchkey/dps"
	"latchkey.example/latchkey/internal/registration"
	"latchkey.example/latchkey/test/softtpm"
)

// device is one device as it sees itself. It proves itself by the one of chip, key and chain that it has.
type device struct {
	*stage
	id       string
	scopeID  string // empty: the stage's
	chip     *softtpm.TPM
	key      []byte
	chain    []*x509.Certificate
	held     registration.Credential // what its hub is to hold; of a TPM it is told
	omitsTPM bool                    // from requests with a token, as some clients do
	version  string                  // api-version

	// between its requests
	token, operation string
	repeats          int // requests that were sent again, since the service could not serve them
	began            int // calls that were recorded when its last request began

	redeems int     // the call that redeems its proof, when nothing comes between
	heard   told    // what it was told last
	rival   *device // that somebody else has put in its place
	refused *refusal
}

func (s *stage) name(kind string) string {
	s.made++
	return fmt.Sprintf("%s-%d", kind, s.made)
}

// chipped is a device with a TPM, another chip than all before.
func (s *stage) chipped(id string) *device {
	return &device{stage: s, id: id, chip: softtpm.New(softtpm.ECC, s.made)}
}

func chipBody(chip *softtpm.TPM, more string) string {
	return `{"attestation":{"type":"tpm","tpm":{"endorsementKey":"` + base64.StdEncoding.EncodeToString(chip.EK.Bytes()) + `"}}` + more + `}`
}

func keysBody(primary, secondary []byte, more string) string {
	encode := base64.StdEncoding.EncodeToString
	return `{"attestation":{"type":"symmetricKey","symmetricKey":{"primaryKey":"` + encode(primary) + `","secondaryKey":"` + encode(secondary) + `"}}` + more + `}`
}

// certificateBody is an entry with a certificate: of a device ("clientCertificates") or of a group's CA ("signingCertificates").
func certificateBody(member string, certificate *x509.Certificate, more string) string {
	text, err := json.Marshal(map[string]any{"type": "x509", "x509": map[string]any{
		member: map[string]any{"primary": map[string]string{"certificate": base64.StdEncoding.EncodeToString(certificate.Raw)}},
	}})
	if err != nil {
		panic(err)
	}
	return `{"attestation":` + string(text) + more + `}`
}

const disabled = `,"provisioningStatus":"disabled"`

// authority is a CA of a test.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
}

func (s *stage) newCA(name string) *authority {
	s.Helper()
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: s.clock.Now().Add(-time.Hour),
		NotAfter: s.clock.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.T, err)
	return &authority{s.sign(template, &authority{template, key}, key), key}
}

func (s *stage) sign(template *x509.Certificate, by *authority, key *ecdsa.PrivateKey) *x509.Certificate {
	s.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, by.certificate, key.Public(), by.key)
	must(s.T, err)
	certificate, err := x509.ParseCertificate(der)
	must(s.T, err)
	return certificate
}

// certified is a device with a certificate under a CA.
func (s *stage) certified(id string, ca *authority) *device {
	s.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(s.T, err)
	leaf := s.sign(&x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: id}, NotBefore: s.clock.Now().Add(-time.Hour),
		NotAfter: s.clock.Now().Add(time.Hour)}, ca, key)
	sum := sha256.Sum256(leaf.Raw)
	return &device{stage: s, id: id, chain: []*x509.Certificate{leaf}, held: registration.Credential{Certificate: sum[:]}}
}

// request is a request as a node hears it, which judges times by its own clock.
func (d *device) request(n *node, authorization string) registration.Request {
	r := registration.Request{Scope: d.scopeOf(), ID: d.id, Authorization: authorization, Address: "192.0.2.7:40000", Arrived: n.clock.Now(), APIVersion: d.version,
		Body: dps.RegisterRequest{RegistrationID: d.id}, Certificates: d.chain}
	if d.chip != nil && (authorization == "" || !d.omitsTPM) {
		r.Body.TPM = &dps.TPMKeys{EndorsementKey: d.chip.EK.Bytes(), StorageRootKey: d.chip.SRK.Bytes()}
	}
	return r
}

func (d *device) scopeOf() string {
	if d.scopeID != "" {
		return d.scopeID
	}
	return d.scope
}

func (d *device) sign(key []byte) string {
	d.Helper()
	text, err := dps.NewToken(dps.KeySigner(key), d.scopeOf()+"/registrations/"+d.id, d.clock.Now().Add(time.Hour), dps.KeyNameRegistration)
	must(d.T, err)
	return text
}

// refusal is the end of a request that no repeat changes; nil: there was an answer.
type refusal struct {
	code   dps.Code
	reason registration.Reason
}

func (r *refusal) is(codes ...dps.Code) bool {
	for _, code := range codes {
		if r != nil && r.code == code {
			return true
		}
	}
	return false
}

// ask sends a request, and again while the service says that it could not serve it: that must come with advice, and nothing else said.
func (d *device) ask(send func(n *node) (registration.Answer, error), n *node) (registration.Answer, *refusal) {
	d.Helper()
	for range 10 {
		calls, _ := n.tap.recorded()
		d.began = len(calls)
		answer, err := send(n)
		if err == nil {
			return answer, nil
		}
		fault := asFault(d.T, err)
		if fault.Code.Status() < 500 {
			return registration.Answer{}, &refusal{fault.Code, fault.Reason}
		}
		if fault.Code != dps.CodeUnavailable || fault.RetryAfter <= 0 || fault.Detail != "" {
			d.Errorf("%s: a failing store or hub gave %+v", d.id, fault)
		}
		d.repeats++
	}
	d.Fatalf("%s: the request did not get through", d.id)
	return registration.Answer{}, nil
}

func asFault(t *testing.T, err error) *registration.Fault {
	t.Helper()
	var fault *registration.Fault
	if !errors.As(err, &fault) {
		t.Fatalf("not a fault: %v", err)
	}
	return fault
}

func (d *device) put(n *node, authorization string) (registration.Answer, *refusal) {
	d.Helper()
	return d.ask(func(n *node) (registration.Answer, error) {
		ctx, cancel := n.tap.request(n.ctx)
		defer cancel()
		return n.register(ctx, d.request(n, authorization))
	}, n)
}

func (d *device) poll(n *node) (registration.Answer, *refusal) {
	d.Helper()
	return d.ask(func(n *node) (registration.Answer, error) {
		ctx, cancel := n.tap.request(n.ctx)
		defer cancel()
		r := d.request(n, d.token)
		r.Body = dps.RegisterRequest{}
		return n.poll(ctx, r, d.operation)
	}, n)
}

// lookup asks for the state of the registration.
func (d *device) lookup(n *node) (registration.Answer, *refusal) {
	d.Helper()
	if refused := d.authorize(n); refused != nil {
		return registration.Answer{}, refused
	}
	return d.ask(func(n *node) (registration.Answer, error) {
		ctx, cancel := n.tap.request(n.ctx)
		defer cancel()
		return n.lookup(ctx, d.request(n, d.token))
	}, n)
}

// authorize makes a token; a TPM asks for a challenge first.
func (d *device) authorize(n *node) *refusal {
	d.Helper()
	key := d.key
	if d.chip != nil {
		answer, refused := d.put(n, "")
		if refused != nil {
			return refused
		}
		var err error
		key, err = d.chip.Open(answer.Challenge)
		must(d.T, err)
	}
	d.token = ""
	if key != nil {
		d.token = d.sign(key)
	}
	return nil
}

// register plays a registration to its end, as a device does that does not give up: it repeats what was not served, and starts anew if it is not let
// in any more with what it has.
func (d *device) register(n *node) *refusal {
	d.Helper()
	var refused *refusal
	for range 6 {
		if refused = d.attempt(n); !refused.is(dps.CodeUnauthorized) {
			return refused
		}
	}
	return refused
}

// attempt is a registration from the first request on, without another start.
func (d *device) attempt(n *node) *refusal {
	d.Helper()
	if refused := d.authorize(n); refused != nil {
		return refused
	}
	answer, refused := d.put(n, d.token)
	if refused != nil {
		return refused
	}
	d.operation = answer.Status.OperationID
	return d.await(n)
}

// await polls the operation to its end.
func (d *device) await(n *node) *refusal {
	d.Helper()
	for range 10 {
		answer, refused := d.poll(n)
		switch {
		case refused != nil:
			return refused
		case answer.Status.Status == dps.StatusFailed: // a newer registration or an operator took its place
			return &refusal{code: dps.CodeUnauthorized}
		case answer.Status.Status == dps.StatusAssigned:
			d.hear(answer)
			return nil
		case answer.RetryAfter == 0:
			d.Errorf("%s: assigning without advice when to ask again", d.id)
		}
	}
	d.Fatalf("%s: the operation does not end", d.id)
	return nil
}

// hear takes the end of a registration as what the device was told.
func (d *device) hear(answer registration.Answer) {
	d.Helper()
	state := answer.Status.RegistrationState
	t := told{device: d.id, operation: d.operation, hub: state.AssignedHub, deviceID: state.DeviceID, credential: d.held}
	if d.chip != nil {
		var err error
		t.key, err = d.chip.Open(state.TPM.AuthenticationKey)
		must(d.T, err)
	}
	d.heard = t
	if d.scopeID == "" {
		d.tell(t)
	}
}
