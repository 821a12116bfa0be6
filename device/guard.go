package device

import (
	"bytes"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// guard gives commands their sessions, so that whoever listens between this
// process and the TPM learns neither an authorisation value nor a secret. What
// it has begun stays open for the next command; whoever uses it calls end when
// the work is done, successful or not.
//
// Not safe for several goroutines: an Identity holds its mutex.
type guard struct {
	tpm      transport.TPM
	salts    []*primary // keys to salt with, the best one first; those not loaded are passed over
	strict   bool       // the first of them alone, and no key that is made for it
	sessions []*session

	exposed exposure // for tests only
}

// exposure is what tests leave off, to see that they would find it.
type exposure struct {
	parameters bool // first parameters are not encrypted
	passwords  bool // authorisation values are sent
}

// how a command uses its session.
type how func(*use)

func secretIn(u *use)  { u.in = true }   // the command's first parameter is secret
func secretOut(u *use) { u.out = true }  // the response's first parameter is secret
func finally(u *use)   { u.last = true } // no command will follow

// renewing says that the command replaces the authorisation value that it is
// authorised with: the TPM authenticates its response with the new one.
func renewing(value []byte) how { return func(u *use) { u.answerAuth = trimmed(value) } }

// trimmed is a value as the TPM keeps it: without zeros at its end (TPM 2.0
// Part 1, 19.6.4.3).
func trimmed(auth []byte) []byte { return bytes.TrimRight(auth, "\x00") }

// prove authorises a command. An empty value is no secret: without anything
// else to protect it goes as the empty password, which costs no session.
func (g *guard) prove(auth []byte, opts ...how) tpm2.Session {
	auth = trimmed(auth)
	u := g.shaped(&use{auth: auth, answerAuth: auth, begin: func(u *use) error {
		return g.provide(u, func(s *session) bool { return s.kind == tpm2.TPMSEHMAC })
	}}, opts)
	if g.exposed.passwords || (len(auth) == 0 && len(u.answerAuth) == 0 && !u.in && !u.out) {
		return tpm2.PasswordAuth(auth)
	}
	return u
}

// cover protects a command that is authorised otherwise, or not at all: its
// secrets, and its response against changes.
func (g *guard) cover(opts ...how) []tpm2.Session {
	u := g.shaped(&use{begin: func(u *use) error { return g.provide(u, func(*session) bool { return true }) }}, opts)
	if !u.in && !u.out { // the TPM takes no session beside, then
		return nil
	}
	return []tpm2.Session{u}
}

// satisfy authorises a command with the policy session that policy has begun.
func (g *guard) satisfy(policy *session, opts ...how) tpm2.Session {
	return g.shaped(&use{session: policy, begin: func(*use) error { return nil }}, opts)
}

func (g *guard) shaped(u *use, opts []how) *use {
	for _, opt := range opts {
		opt(u)
	}
	if g.exposed.parameters {
		u.in, u.out = false, false
	}
	return u
}

// provide gives a use the session that is open and fits, or a new one.
func (g *guard) provide(u *use, fits func(*session) bool) error {
	if u.session != nil {
		return nil
	}
	for _, s := range g.sessions {
		if !s.ended() && fits(s) {
			u.session = s
			return nil
		}
	}
	s, err := g.start(tpm2.TPMSEHMAC, tpm2.TPMAlgSHA256)
	u.session = s
	return err
}

// policy begins a policy session.
func (g *guard) policy(hash tpm2.TPMIAlgHash) (*session, error) {
	return g.start(tpm2.TPMSEPolicy, hash)
}

func (g *guard) start(kind tpm2.TPMSE, hash tpm2.TPMIAlgHash) (s *session, err error) {
	salt, found := g.loadedSalt()
	if !found && g.strict {
		return nil, ErrNoTrustedSalt
	}
	if !found {
		var release func() error
		if salt, release, err = createSaltKey(g.tpm); err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, release()) }()
	}
	s, err = startSession(g.tpm, kind, hash, salt)
	if err != nil {
		return nil, err
	}
	g.sessions = append(g.sessions, s)
	return s, nil
}

func (g *guard) loadedSalt() (salt saltKey, found bool) {
	for i, p := range g.salts {
		if p.aside == nil && (i == 0 || !g.strict) {
			return saltKey{p.handle, p.area}, true
		}
	}
	return saltKey{}, false
}

// busy tells whether a session is open.
func (g *guard) busy() bool {
	return slices.ContainsFunc(g.sessions, func(s *session) bool { return !s.ended() })
}

// end flushes all sessions that were begun.
func (g *guard) end() error {
	var errs []error
	for _, s := range g.sessions {
		errs = append(errs, s.end(g.tpm))
	}
	g.sessions = nil
	return errors.Join(errs...)
}

// createSaltKey makes a key to salt with where there is none yet: in the NULL
// hierarchy, which takes no authorisation and forgets its keys at each restart.
// It is needed while a session begins, and not after that. An ECC key is made
// in a moment; an RSA key may take seconds, but some TPMs have nothing else.
func createSaltKey(tpm transport.TPM) (key saltKey, release func() error, err error) {
	for _, algorithm := range []Algorithm{ECCP256, RSA2048} {
		var answer *tpm2.CreatePrimaryResponse
		answer, err = tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull,
			InPublic: tpm2.New2B(srkTemplate(algorithm))}.Execute(tpm)
		if err != nil {
			err = tpmError("TPM2_CreatePrimary", err)
			if lacksAlgorithm(err) {
				continue
			}
			return saltKey{}, nil, err
		}
		release = func() error { return flush(tpm, answer.ObjectHandle) }
		area, err := answer.OutPublic.Contents()
		if err != nil {
			return saltKey{}, nil, errors.Join(err, release())
		}
		return saltKey{answer.ObjectHandle, area}, release, nil
	}
	return saltKey{}, nil, err
}

// lacksAlgorithm tells whether the TPM does not know a template's algorithms.
func lacksAlgorithm(err error) bool {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCCurve, tpm2.TPMRCType, tpm2.TPMRCValue,
		tpm2.TPMRCAsymmetric, tpm2.TPMRCKDF, tpm2.TPMRCScheme} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}
