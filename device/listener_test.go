package device_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// listener is a TPM whose bus somebody listens at. It keeps every byte, and
// reads sessions as far as a listener can: it knows the key of one that is
// neither salted nor bound, and decrypts what that hides.
type listener struct {
	transport.TPM

	mu       sync.Mutex
	heard    []exchange
	sessions map[uint32]*heardSession
}

// exchange is a command with its response.
type exchange struct {
	code              tpm2.TPMCC
	command, response []byte
	sessions          []heardUse
	decrypted         [][]byte // parameters that unsalted sessions hid
}

type heardSession struct {
	hash             tpm2.TPMIAlgHash
	salted           bool
	nonceTPM, caller []byte
}

// heardUse is one entry of a command's authorisation area.
type heardUse struct {
	handle     uint32
	attributes byte
	auth       []byte
	nonce      []byte
}

const (
	tagSessions = 0x8002
	passwordUse = 0x40000009 // TPM_RS_PW
	nullHandle  = 0x40000007 // TPM_RH_NULL
	bitIn       = 1 << 5     // decrypt
	bitOut      = 1 << 6     // encrypt
)

// handlesOf counts the handles before the authorisation area, of commands and
// of responses (TPM 2.0 Part 3).
var handlesOf = map[tpm2.TPMCC]struct{ in, out int }{
	tpm2.TPMCCCreatePrimary:             {1, 1},
	tpm2.TPMCCEvictControl:              {2, 0},
	tpm2.TPMCCStartAuthSession:          {2, 1},
	tpm2.TPMCCPolicySecret:              {2, 0},
	tpm2.TPMCCActivateCredential:        {2, 0},
	tpm2.TPMCCImport:                    {1, 0},
	tpm2.TPMCCLoad:                      {1, 1},
	tpm2.TPMCCHMAC:                      {1, 0},
	tpm2.TPMCCHMACStart:                 {1, 1},
	tpm2.TPMCCSequenceUpdate:            {1, 0},
	tpm2.TPMCCSequenceComplete:          {1, 0},
	tpm2.TPMCCReadPublic:                {1, 0},
	tpm2.TPMCCFlushContext:              {0, 0},
	tpm2.TPMCCGetCapability:             {0, 0},
	tpm2.TPMCCGetRandom:                 {0, 0},
	tpm2.TPMCCClear:                     {1, 0},
	tpm2.TPMCCHierarchyChanegAuth:       {1, 0},
	tpm2.TPMCCDictionaryAttackLockReset: {1, 0},
	tpm2.TPMCCContextSave:               {1, 0},
	tpm2.TPMCCContextLoad:               {0, 1},
	tpm2.TPMCCNVReadPublic:              {1, 0},
	tpm2.TPMCCNVRead:                    {2, 0},
}

// Send listens to one command.
func (l *listener) Send(command []byte) ([]byte, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sent := bytes.Clone(command) // the simulator decrypts parameters where they are
	response, err := l.TPM.Send(command)
	if err == nil {
		l.heard = append(l.heard, l.read(sent, bytes.Clone(response)))
	}
	return response, err
}

func (l *listener) read(command, response []byte) exchange {
	e := exchange{code: tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])), command: command, response: response}
	handles, known := handlesOf[e.code]
	if !known {
		panic(fmt.Sprintf("the listener does not know command 0x%x", uint32(e.code)))
	}
	if e.code == tpm2.TPMCCStartAuthSession {
		l.begin(command, response)
	}
	if binary.BigEndian.Uint16(command) != tagSessions {
		return e
	}
	at := 10 + 4*handles.in
	size := int(binary.BigEndian.Uint32(command[at:]))
	e.sessions = uses(command[at+4 : at+4+size])
	if binary.BigEndian.Uint32(response[6:]) == 0 {
		e.decrypted = l.decrypt(e, command[at+4+size:], response[10+4*handles.out:])
	}
	return e
}

func uses(area []byte) (all []heardUse) {
	for len(area) > 0 {
		var u heardUse
		u.handle, area = binary.BigEndian.Uint32(area), area[4:]
		u.nonce, area = sized(area)
		u.attributes, area = area[0], area[1:]
		u.auth, area = sized(area)
		all = append(all, u)
	}
	return all
}

func sized(b []byte) (field, rest []byte) {
	size := int(binary.BigEndian.Uint16(b))
	return b[2 : 2+size], b[2+size:]
}

// begin notes a session: its handle, nonces, and whether a listener knows its
// key.
func (l *listener) begin(command, response []byte) {
	if binary.BigEndian.Uint32(response[6:]) != 0 {
		return
	}
	s := &heardSession{salted: binary.BigEndian.Uint32(command[10:]) != nullHandle,
		hash: tpm2.TPMIAlgHash(binary.BigEndian.Uint16(command[len(command)-2:]))}
	s.caller, _ = sized(command[18:])
	s.nonceTPM, _ = sized(response[14:])
	if l.sessions == nil {
		l.sessions = make(map[uint32]*heardSession)
	}
	l.sessions[binary.BigEndian.Uint32(response[10:])] = s
}

// decrypt reads the first parameters that sessions without salt hide.
func (l *listener) decrypt(e exchange, parameters, response []byte) (plain [][]byte) {
	size := int(binary.BigEndian.Uint32(response))
	answers := response[4+size:]
	for _, u := range e.sessions {
		var nonce []byte
		nonce, answers = sized(answers)
		_, answers = sized(answers[1:])
		s := l.sessions[u.handle]
		if s == nil || s.salted {
			continue
		}
		if u.attributes&bitIn != 0 {
			hidden, _ := sized(parameters)
			plain = append(plain, openCFB(s.hash, u.nonce, s.nonceTPM, hidden))
		}
		if s.nonceTPM = nonce; u.attributes&bitOut != 0 {
			hidden, _ := sized(response[4:])
			plain = append(plain, openCFB(s.hash, s.nonceTPM, u.nonce, hidden))
		}
	}
	return plain
}

// openCFB decrypts with what everybody knows, if the session's key is empty
// (TPM 2.0 Part 1, 21.3).
func openCFB(hash tpm2.TPMIAlgHash, newer, older, hidden []byte) []byte {
	digest, err := hash.Hash()
	if err != nil {
		panic(err)
	}
	both := tpm2.KDFa(digest, nil, "CFB", newer, older, 8*32)
	block, err := aes.NewCipher(both[:16])
	if err != nil {
		panic(err)
	}
	plain := make([]byte, len(hidden))
	//lint:ignore SA1019 the TPM's mode
	cipher.NewCFBDecrypter(block, both[16:]).XORKeyStream(plain, hidden)
	return plain
}

// finds tells in which commands a listener reads a secret.
func (l *listener) finds(secret []byte) (commands []tpm2.TPMCC) {
	for _, e := range l.heard {
		found := bytes.Contains(e.command, secret) || bytes.Contains(e.response, secret)
		for _, plain := range e.decrypted {
			found = found || bytes.Contains(plain, secret)
		}
		if found {
			commands = append(commands, e.code)
		}
	}
	return commands
}

// faults tells what of the rules a conversation breaks, whatever its secrets
// are: no password, no session without salt, and the commands whose parameters
// are always secret hide them.
func (l *listener) faults() (faults []string) {
	hides := map[tpm2.TPMCC]byte{tpm2.TPMCCActivateCredential: bitOut, tpm2.TPMCCImport: bitIn,
		tpm2.TPMCCHMAC: bitOut, tpm2.TPMCCSequenceComplete: bitOut, tpm2.TPMCCHierarchyChanegAuth: bitIn}
	for _, e := range l.heard {
		if e.code == tpm2.TPMCCStartAuthSession && binary.BigEndian.Uint32(e.command[10:]) == nullHandle {
			faults = append(faults, "a session without salt")
		}
		var seen byte
		for _, u := range e.sessions {
			if u.handle == passwordUse && len(u.auth) > 0 {
				faults = append(faults, fmt.Sprintf("a password with command 0x%x", uint32(e.code)))
			}
			seen |= u.attributes
		}
		if want := hides[e.code]; seen&want != want {
			faults = append(faults, fmt.Sprintf("command 0x%x hides nothing", uint32(e.code)))
		}
	}
	return faults
}
