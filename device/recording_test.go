package device_test

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// secrets are what a device must not let a listener learn, by what they are.
type secrets map[string][]byte

// addAuth adds the values as they would stand in a command.
func (s secrets) addAuth(a device.Auth) {
	s["owner authorisation"] = bytes.TrimRight(a.Owner, "\x00")
	s["endorsement authorisation"] = bytes.TrimRight(a.Endorsement, "\x00")
	s["lockout authorisation"] = a.Lockout
}

// sealKnown is seal with the inner key told.
func sealKnown(t *testing.T, id *device.Identity, key []byte) (blob, inner []byte) {
	t.Helper()
	ek, err := attest.ParseEK(id.EK())
	if err != nil {
		t.Fatal(err)
	}
	srk, err := attest.ParseSRK(id.SRK())
	if err != nil {
		t.Fatal(err)
	}
	inner = newKey()[:16] // drawn first, says Seal
	blob, err = attest.Seal(io.MultiReader(bytes.NewReader(inner), rand.Reader), ek, srk, key)
	if err != nil {
		t.Fatal(err)
	}
	return blob, inner
}

// live does all that a device does with its TPM, and gives the
// secrets that it had to do with.
func live(t *testing.T, tpm *listener, opts ...device.Option) secrets {
	t.Helper()
	known := secrets{}
	id := openIdentity(t, tpm, opts...)
	defer closeAll(t, id)
	challenge, inner := sealKnown(t, id, remember(known, "challenge key"))
	known["challenge's inner key"] = inner
	key, err := id.ActivateToSign(challenge)
	if err != nil {
		t.Fatal(err)
	}
	sign(t, known, "proof", key, []byte("scope/registrations/id\n1795550000"))
	closeAll(t, key)

	blob, inner := sealKnown(t, id, remember(known, "hub key"))
	known["hub key's inner key"] = inner
	if key, err = id.Activate(blob); err != nil {
		t.Fatal(err)
	}
	saved := key.Marshal()
	closeAll(t, key)
	if key, err = id.LoadKey(saved); err != nil {
		t.Fatal(err)
	}
	sign(t, known, "hub login", key, []byte("hub/devices/id\n1795550000"))
	sign(t, known, "second hub login", key, []byte("hub/devices/id\n1795553600"))
	sign(t, known, "signature of a long text", key, bytes.Repeat([]byte{'m'}, 3000))
	closeAll(t, key)
	return known
}

func remember(known secrets, what string) []byte {
	known[what] = newKey()
	return known[what]
}

func sign(t *testing.T, known secrets, what string, key *device.Key, message []byte) {
	t.Helper()
	mac, err := key.Sign(message)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	known[what] = mac
}

// What a listener between CPU and TPM learns of a device's whole life: nothing
// of what is secret, whoever owns the TPM and whichever keys there are.
func TestAListenerAtTheBusLearnsNoSecret(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		setAuth(t, tpm, hostileAuth)
		for _, name := range []string{"transient keys", "keys that are made", "keys that are there"} {
			opts := []device.Option{device.WithAlgorithm(a), device.WithAuth(hostileAuth)}
			if name == "transient keys" {
				opts = append(opts, device.WithTransientKeys())
			}
			bus := &listener{TPM: tpm}
			known := live(t, bus, opts...)
			known.addAuth(hostileAuth)
			mustHearNothing(t, name, bus, known)
		}
	})
}

func mustHearNothing(t *testing.T, name string, bus *listener, known secrets) {
	t.Helper()
	for what, secret := range known {
		if commands := bus.finds(secret); len(commands) > 0 {
			t.Errorf("%s: the listener reads the %s in commands %x", name, what, commands)
		}
	}
	if faults := bus.faults(); len(faults) > 0 {
		t.Errorf("%s: %v", name, faults)
	}
}

// The same for a whole registration by the client.
func TestAListenerLearnsNoSecretOfARegistration(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		setAuth(t, tpm, hostileAuth)
		bus := &listener{TPM: tpm}
		id := openIdentity(t, bus, device.WithAlgorithm(a), device.WithAuth(hostileAuth), device.WithTransientKeys())
		defer closeAll(t, id)
		s := newService(t, id)
		client, _ := s.client(s.config())
		got, err := client.Register(t.Context(), id, device.RegisterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		defer closeAll(t, got.Key)
		known := secrets{"hub key": s.hubKey, "challenge key": s.challengeKey}
		known.addAuth(hostileAuth)
		for _, r := range s.requests {
			if token := r.header.Get("Authorization"); token != "" {
				known["proof"] = signatureOf(t, token)
			}
		}
		if known["proof"] == nil {
			t.Fatal("no proof was seen")
		}
		mustHearNothing(t, "registration", bus, known)
	})
}

func signatureOf(t *testing.T, token string) []byte {
	t.Helper()
	fields, err := url.ParseQuery(strings.TrimPrefix(token, "SharedAccessSignature "))
	if err != nil {
		t.Fatal(err)
	}
	signature, err := base64.StdEncoding.DecodeString(fields.Get("sig"))
	if err != nil || len(signature) != 32 {
		t.Fatalf("signature of %s: %v", token, err)
	}
	return signature
}

// Negative control: without parameter encryption the same listener reads every
// inner key and every signature.
func TestTheListenerReadsWhatIsNotEncrypted(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		bus := &listener{TPM: tpm}
		known := live(t, bus, device.WithAlgorithm(a), device.WithTransientKeys(), device.WithBareParameters())
		for what, secret := range known {
			wrapped := what == "challenge key" || what == "hub key" // in a blob, whatever the bus
			if commands := bus.finds(secret); (len(commands) == 0) != wrapped {
				t.Errorf("the %s is found in commands %x", what, commands)
			}
		}
		for _, code := range []tpm2.TPMCC{tpm2.TPMCCActivateCredential, tpm2.TPMCCImport, tpm2.TPMCCHMAC, tpm2.TPMCCSequenceComplete} {
			if fault := fmt.Sprintf("command 0x%x hides nothing", uint32(code)); !slices.Contains(bus.faults(), fault) {
				t.Errorf("not among the faults: %s", fault)
			}
		}
	})
}

// Negative control: with passwords the same listener reads them.
func TestTheListenerReadsPasswords(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		setAuth(t, tpm, hostileAuth)
		bus := &listener{TPM: tpm}
		live(t, bus, device.WithAlgorithm(a), device.WithAuth(hostileAuth), device.WithBarePasswords())
		known := secrets{}
		known.addAuth(hostileAuth)
		for what, secret := range known {
			unused := what == "lockout authorisation"
			if commands := bus.finds(secret); (len(commands) == 0) != unused {
				t.Errorf("the %s is found in commands %x", what, commands)
			}
		}
		if !slices.ContainsFunc(bus.faults(), func(s string) bool { return strings.HasPrefix(s, "a password") }) {
			t.Errorf("faults: %v", bus.faults())
		}
	})
}

// Negative control: a session that encrypts, but is not salted, hides nothing
// from somebody who has heard its nonces.
func TestTheListenerReadsSessionsWithoutSalt(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, a device.Algorithm) {
		bus := &listener{TPM: tpm}
		id := openIdentity(t, bus, device.WithAlgorithm(a))
		defer closeAll(t, id)
		random, err := tpm2.GetRandom{BytesRequested: 16}.Execute(bus,
			tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.AESEncryption(128, tpm2.EncryptOut)))
		if err != nil {
			t.Fatal(err)
		}
		if commands := bus.finds(random.RandomBytes.Buffer); !slices.Equal(commands, []tpm2.TPMCC{tpm2.TPMCCGetRandom}) {
			t.Errorf("found in commands %x", commands)
		}
		if !slices.Equal(bus.faults(), []string{"a session without salt"}) {
			t.Errorf("faults: %v", bus.faults())
		}
	})
}

// An error that reaches a log tells no value either.
func TestErrorsTellNoAuthorisation(t *testing.T) {
	tpm := simtpm.NewSimulator(t)
	setAuth(t, tpm, hostileAuth)
	wrong := device.Auth{Owner: []byte("canary-owner"), Endorsement: []byte("canary-endorsement")}
	_, err := device.OpenTransport(tpm, device.WithAuth(wrong), device.WithAlgorithm(device.ECCP256))
	text := fmt.Sprintf("%v %+v %#v", err, err, wrong)
	if !errors.Is(err, tpm2.TPMRCBadAuth) || strings.Contains(text, "canary") ||
		strings.Contains(text, base64.StdEncoding.EncodeToString([]byte("canary"))) {
		t.Errorf("got %s", text)
	}
}
