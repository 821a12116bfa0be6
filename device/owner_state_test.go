package device_test

import (
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

func mustInfo(t *testing.T, tpm transport.TPM) *device.Info {
	t.Helper()
	info, err := device.ReadInfo(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

func setPassword(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	_, err := tpm2.HierarchyChangeAuth{AuthHandle: hierarchy, NewAuth: tpm2.TPM2BAuth{Buffer: []byte(password)}}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

// lockOut fails at a guarded object until the TPM has enough.
func lockOut(t *testing.T, tpm transport.TPM) {
	t.Helper()
	template := tpm2.ECCSRKTemplate
	template.ObjectAttributes.NoDA = false
	guarded, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHNull, InPublic: tpm2.New2B(template),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{UserAuth: tpm2.TPM2BAuth{Buffer: []byte("right")}}}}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	defer tpm2.FlushContext{FlushHandle: guarded.ObjectHandle}.Execute(tpm)
	for range 64 {
		tpm2.Create{ParentHandle: tpm2.AuthHandle{Handle: guarded.ObjectHandle, Name: guarded.Name, Auth: tpm2.PasswordAuth([]byte("wrong"))},
			InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
		if mustInfo(t, tpm).InLockout {
			return
		}
	}
	t.Fatal("the TPM does not go into lockout")
}

// switchOff is TPM2_HierarchyControl (TPM 2.0 Part 3, 24.2), which go-tpm does
// not have.
func switchOff(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle, password string) {
	t.Helper()
	body := binary.BigEndian.AppendUint32(nil, 0x121)
	body = binary.BigEndian.AppendUint32(body, uint32(hierarchy))
	body = binary.BigEndian.AppendUint32(body, uint32(9+len(password)))
	body = append(body, 0x40, 0, 0, 9, 0, 0, 0) // TPM_RS_PW, no nonce, no attributes
	body = append(binary.BigEndian.AppendUint16(body, uint16(len(password))), password...)
	body = append(binary.BigEndian.AppendUint32(body, uint32(hierarchy)), 0)
	command := binary.BigEndian.AppendUint32([]byte{0x80, 0x02}, uint32(6+len(body)))
	response, err := tpm.Send(append(command, body...))
	if err != nil || len(response) < 10 || binary.BigEndian.Uint32(response[6:]) != 0 {
		t.Fatalf("TPM2_HierarchyControl: %x, %v", response, err)
	}
}

func TestInfoTellsWhoOwnsTheTPM(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, _ device.Algorithm) {
		for _, c := range []struct {
			hierarchy tpm2.TPMHandle
			set       func(*device.Info) bool
		}{
			{tpm2.TPMRHOwner, func(i *device.Info) bool { return i.OwnerAuthSet }},
			{tpm2.TPMRHEndorsement, func(i *device.Info) bool { return i.EndorsementAuthSet }},
			{tpm2.TPMRHLockout, func(i *device.Info) bool { return i.LockoutAuthSet }},
		} {
			if c.set(mustInfo(t, tpm)) {
				t.Errorf("0x%08x has a password already", uint32(c.hierarchy))
			}
			setPassword(t, tpm, c.hierarchy, "secret")
			if !c.set(mustInfo(t, tpm)) {
				t.Errorf("the password of 0x%08x does not show", uint32(c.hierarchy))
			}
		}
		info := mustInfo(t, tpm)
		if info.ClearDisabled || info.OwnerDisabled || info.EndorsementOff {
			t.Errorf("got %+v", info)
		}
		switchOff(t, tpm, tpm2.TPMRHOwner, "secret")
		if info := mustInfo(t, tpm); !info.OwnerDisabled || info.EndorsementOff {
			t.Errorf("owner hierarchy switched off: %+v", info)
		}
	})
}

func TestLockoutIsToldWithItsEnd(t *testing.T) {
	onEachTPM(t, func(t *testing.T, tpm simtpm.TPM, _ device.Algorithm) {
		if l := mustInfo(t, tpm).Lockout; l.Active || l.Ends() != 0 || l.MaxFailures == 0 || !strings.Contains(l.String(), "no lockout") {
			t.Errorf("before: %+v", l)
		}
		lockOut(t, tpm)
		l := mustInfo(t, tpm).Lockout
		if !l.Active || l.Failures < l.MaxFailures || l.Interval == 0 || l.Ends() < l.Interval || !strings.Contains(l.String(), "ends in") {
			t.Errorf("in lockout: %+v, ends in %v, %s", l, l.Ends(), l)
		}
	})
	l := device.Lockout{Active: true, Failures: 34, MaxFailures: 32, Interval: 2 * time.Hour}
	if l.Ends() != 6*time.Hour {
		t.Errorf("three too many at two hours each: %v", l.Ends())
	}
}
