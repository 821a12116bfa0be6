package device

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Info is what a TPM says of itself, for people.
type Info struct {
	Manufacturer string // 4 letters of the TCG vendor registry, such as "IFX" or "INTC"
	Model        string // the vendor's own text, may be empty
	Firmware     string // four numbers, such as "7.85.4555.0"

	OwnerAuthSet       bool // somebody set a password for the owner hierarchy
	EndorsementAuthSet bool // likewise for the endorsement hierarchy
	LockoutAuthSet     bool // likewise for lockout: without it nobody but the platform can clear the TPM
	ClearDisabled      bool // TPM2_Clear by the lockout authorisation is switched off
	OwnerDisabled      bool // the firmware has switched the owner hierarchy off, until the next boot
	EndorsementOff     bool // likewise the endorsement hierarchy
	OwnSeed            bool // the TPM made its endorsement seed itself: the maker's certificate is void

	InLockout bool // the TPM refuses authorisations for a while
	Lockout   Lockout

	// EKCertificates are the NV indices that hold certificates of EKs
	// (TCG EK Credential Profile 2.4, 2.2.1.4 and 2.2.1.5), ascending.
	EKCertificates []uint32
}

// Lockout is how the TPM guards against guessing (TPM 2.0 Part 1, 19.8). Each
// wrong authorisation of something guarded counts; at MaxFailures nothing
// guarded can be used. Keys of this package are not guarded: they go on working.
type Lockout struct {
	Active      bool
	Failures    uint32
	MaxFailures uint32
	Interval    time.Duration // after which one failure is forgotten
	Recovery    time.Duration // after which a wrong lockout authorisation is forgiven; 0: at the next boot
}

// Ends is the longest that a lockout lasts if the TPM stays switched on and
// nobody fails again; 0 if there is none.
func (l Lockout) Ends() time.Duration {
	if !l.Active || l.Failures < l.MaxFailures {
		return 0
	}
	return time.Duration(l.Failures-l.MaxFailures+1) * l.Interval
}

// String is a sentence for people.
func (l Lockout) String() string {
	if !l.Active {
		return fmt.Sprintf("no lockout, %d of %d failed authorisations", l.Failures, l.MaxFailures)
	}
	text := fmt.Sprintf("in lockout after %d failed authorisations (it bears %d and forgets one every %v)", l.Failures, l.MaxFailures, l.Interval)
	if ends := l.Ends(); ends > 0 {
		text += fmt.Sprintf("; it ends in %v at the latest, if the TPM stays on and nobody fails again", ends)
	}
	return text
}

// HasEKCertificate reports whether the TPM holds a certificate for an EK of the
// given algorithm. Whether it is for this very EK only the certificate says.
func (i *Info) HasEKCertificate(a Algorithm) bool {
	for _, index := range i.EKCertificates {
		if certificateIndices[index] == a {
			return true
		}
	}
	return false
}

var certificateIndices = map[uint32]Algorithm{
	0x01c00002: RSA2048,
	0x01c0000a: ECCP256,
	0x01c00012: RSA2048, // high range from here on
	0x01c00014: ECCP256,
	0x01c00016: "ecc-p384",
	0x01c00018: "ecc-p521",
	0x01c0001a: "sm2",
	0x01c0001c: RSA3072,
	0x01c0001e: "rsa4096",
}

// Info asks the TPM what it is.
func (id *Identity) Info() (*Info, error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.closed {
		return nil, ErrClosed
	}
	return ReadInfo(id.tpm)
}

// Variable properties of a TPM (TPM 2.0 Part 2, 6.13).
const (
	ptPermanent       tpm2.TPMPT = 0x200
	ptStartupClear    tpm2.TPMPT = 0x201
	ptLoadedFree      tpm2.TPMPT = 0x204
	ptTransientFree   tpm2.TPMPT = 0x207
	ptPersistentFree  tpm2.TPMPT = 0x209
	ptLockoutCounter  tpm2.TPMPT = 0x20e
	ptMaxAuthFail     tpm2.TPMPT = 0x20f
	ptLockoutInterval tpm2.TPMPT = 0x210
	ptLockoutRecovery tpm2.TPMPT = 0x211
	variableCount                = 0x12 // 0x200 to 0x211
)

// ReadInfo asks a TPM what it is. It needs no keys and no authorisation.
func ReadInfo(tpm transport.TPM) (*Info, error) {
	fixed, err := properties(tpm, uint32(tpm2.TPMPTManufacturer), 16)
	if err != nil {
		return nil, err
	}
	state, err := properties(tpm, uint32(ptPermanent), variableCount)
	if err != nil {
		return nil, err
	}
	certificates, err := certificateHandles(tpm)
	if err != nil {
		return nil, err
	}
	first, second := fixed[tpm2.TPMPTFirmwareVersion1], fixed[tpm2.TPMPTFirmwareVersion2]
	info := &Info{
		Manufacturer: text(fixed[tpm2.TPMPTManufacturer]),
		Model: strings.TrimSpace(text(fixed[tpm2.TPMPTVendorString1], fixed[tpm2.TPMPTVendorString2],
			fixed[tpm2.TPMPTVendorString3], fixed[tpm2.TPMPTVendorString4])),
		Firmware:       fmt.Sprintf("%d.%d.%d.%d", first>>16, first&0xffff, second>>16, second&0xffff),
		EKCertificates: certificates,
	}
	info.readOwner(state)
	return info, nil
}

// readOwner reads the bits of TPMA_PERMANENT and TPMA_STARTUP_CLEAR (TPM 2.0
// Part 2, 8.6 and 8.7). Without the latter nothing is taken for switched off.
func (i *Info) readOwner(state map[tpm2.TPMPT]uint32) {
	permanent := state[ptPermanent]
	i.OwnerAuthSet = permanent&(1<<0) != 0
	i.EndorsementAuthSet = permanent&(1<<1) != 0
	i.LockoutAuthSet = permanent&(1<<2) != 0
	i.ClearDisabled = permanent&(1<<8) != 0
	i.OwnSeed = permanent&(1<<10) != 0
	if startup, told := state[ptStartupClear]; told {
		i.OwnerDisabled = startup&(1<<1) == 0
		i.EndorsementOff = startup&(1<<2) == 0
	}
	i.Lockout = lockoutOf(state)
	i.InLockout = i.Lockout.Active
}

func lockoutOf(state map[tpm2.TPMPT]uint32) Lockout {
	return Lockout{
		Active:      state[ptPermanent]&(1<<9) != 0,
		Failures:    state[ptLockoutCounter],
		MaxFailures: state[ptMaxAuthFail],
		Interval:    time.Duration(state[ptLockoutInterval]) * time.Second,
		Recovery:    time.Duration(state[ptLockoutRecovery]) * time.Second,
	}
}

func properties(tpm transport.TPM, first, count uint32) (map[tpm2.TPMPT]uint32, error) {
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapTPMProperties, Property: first, PropertyCount: count}.Execute(tpm)
	if err != nil {
		return nil, tpmError("TPM2_GetCapability", err)
	}
	list, err := answer.CapabilityData.Data.TPMProperties()
	if err != nil {
		return nil, tpmError("TPM2_GetCapability", err)
	}
	values := make(map[tpm2.TPMPT]uint32)
	for _, p := range list.TPMProperty {
		values[p.Property] = p.Value
	}
	return values, nil
}

func certificateHandles(tpm transport.TPM) ([]uint32, error) {
	const first, atMost = 0x01c00002, 64
	answer, err := tpm2.GetCapability{Capability: tpm2.TPMCapHandles, Property: first, PropertyCount: atMost}.Execute(tpm)
	if err != nil {
		return nil, tpmError("TPM2_GetCapability", err)
	}
	list, err := answer.CapabilityData.Data.Handles()
	if err != nil {
		return nil, tpmError("TPM2_GetCapability", err)
	}
	var found []uint32
	for _, handle := range list.Handle {
		if _, known := certificateIndices[uint32(handle)]; known {
			found = append(found, uint32(handle))
		}
	}
	return found, nil
}

// text reads letters that the TPM packs into numbers, and keeps the printable.
func text(words ...uint32) string {
	var b []byte
	for _, word := range words {
		for _, c := range binary.BigEndian.AppendUint32(nil, word) {
			if c >= ' ' && c <= '~' {
				b = append(b, c)
			}
		}
	}
	return strings.TrimSpace(string(b))
}
