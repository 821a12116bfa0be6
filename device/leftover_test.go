package device_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// failsOnce is a TPM that fails in one command, at a place of a device's life: with a
// response code, with an error before the command has reached the TPM, or with
// one after it has.
type failsOnce struct {
	transport.TPM
	at   int // the command that fails, from 0
	code tpm2.TPMRC
	err  error
	lost bool // the answer is lost, not the command

	count int
	hit   tpm2.TPMCC
}

var errLost = errors.New("no answer")

func (f *failsOnce) Send(command []byte) ([]byte, error) {
	f.count++
	if f.count-1 != f.at {
		return f.TPM.Send(command)
	}
	f.hit = tpm2.TPMCC(binary.BigEndian.Uint32(command[6:]))
	switch {
	case f.code != 0:
		return binary.BigEndian.AppendUint32([]byte{0x80, 0x01, 0, 0, 0, 10}, uint32(f.code)), nil
	case f.lost:
		f.TPM.Send(command)
	}
	return nil, f.err
}

// liveOnce opens a TPM, activates, signs, saves and loads, and closes all that
// it got, whatever fails.
func liveOnce(t *testing.T, tpm transport.TPM, opts []device.Option) error {
	t.Helper()
	id, err := device.OpenTransport(tpm, opts...)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, id.Close()) }()
	challenge, err := id.ActivateToSign(seal(t, id.EK(), id.SRK(), newKey()))
	if err != nil {
		return err
	}
	_, err = challenge.Sign([]byte("proof"))
	if err = errors.Join(err, challenge.Close()); err != nil {
		return err
	}
	key, err := id.Activate(seal(t, id.EK(), id.SRK(), newKey()))
	if err != nil {
		return err
	}
	saved := key.Marshal()
	if err = key.Close(); err != nil {
		return err
	}
	if key, err = id.LoadKey(saved); err != nil {
		return err
	}
	_, short := key.Sign([]byte("login"))
	_, long := key.Sign(make([]byte, 2500))
	return errors.Join(short, long, key.Close())
}

// handleMakers are the commands that leave something in the TPM whose handle
// only their answer tells.
var handleMakers = []tpm2.TPMCC{tpm2.TPMCCCreatePrimary, tpm2.TPMCCStartAuthSession, tpm2.TPMCCLoad,
	tpm2.TPMCCHMACStart, tpm2.TPMCCContextLoad}

// Each command of a device's life fails in each way, once; the TPM works on.
// No key and no session of ours may stay. Where the answer of a command that
// makes one is lost, nobody knows its handle: at most that one stays.
func TestNothingStaysWhateverFails(t *testing.T) {
	ways := map[string]failsOnce{"not sent": {err: errLost}, "answer lost": {err: errLost, lost: true},
		"the kernel's resource manager is full": {err: syscall.ENOMEM}}
	codes := []tpm2.TPMRC{tpm2.TPMRCObjectMemory, tpm2.TPMRCBadAuth | 0x900, tpm2.TPMRCFailure}
	if os.Getenv("LATCHKEY_LONG") != "" {
		codes = append(codes, tpm2.TPMRCSessionMemory, tpm2.TPMRCSessionHandles, tpm2.TPMRCObjectHandles, tpm2.TPMRCMemory,
			tpm2.TPMRCContextGap, tpm2.TPMRCAuthFail|0x900, tpm2.TPMRCLockout, tpm2.TPMRCIntegrity|0x40, tpm2.TPMRCValue|0x40,
			tpm2.TPMRCHandle, tpm2.TPMRCSize, tpm2.TPMRCNVUnavailable, tpm2.TPMRCNVRate, tpm2.TPMRCCanceled, tpm2.TPMRCReboot)
	}
	for _, code := range codes {
		ways[fmt.Sprintf("%v", code)] = failsOnce{code: code}
	}
	auth := device.Auth{Owner: []byte("owner"), Endorsement: []byte("endorsement")}
	tpm := simtpm.NewSimulator(t)
	setAuth(t, tpm, auth)
	opts := []device.Option{device.WithAlgorithm(device.ECCP256), device.WithAuth(auth), device.WithTransientKeys()}
	for name, way := range ways {
		for at := 0; ; at++ {
			way.TPM, way.at, way.count = tpm, at, 0
			broken := way
			err := liveOnce(t, &broken, opts)
			if broken.count <= at {
				if err != nil {
					t.Fatalf("%s: nothing failed, but %v", name, err)
				}
				break // it needed no more commands
			}
			open := openHandles(t, tpm)
			if allowed := way.lost && slices.Contains(handleMakers, broken.hit); len(open) > 1 || (len(open) == 1 && !allowed) {
				t.Errorf("%s at command %d (0x%x): left %x; %v", name, at, uint32(broken.hit), open, err)
			}
			flushAll(t, tpm, open)
		}
	}
}

func flushAll(t *testing.T, tpm transport.TPM, open []tpm2.TPMHandle) {
	t.Helper()
	for _, handle := range open {
		if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
}
