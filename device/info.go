package device

import (
	"encoding/binary"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Info is what a TPM says of itself, for people.
type Info struct {
	Manufacturer string // 4 letters of the TCG vendor registry, such as "IFX" or "INTC"
	Model        string // the vendor's own text, may be empty
	Firmware     string // four numbers, such as "7.85.4555.0"
	InLockout    bool   // the TPM refuses authorisations for a while
	OwnerAuthSet bool   // somebody set a password for the owner hierarchy

	// EKCertificates are the NV indices that hold certificates of EKs
	// (TCG EK Credential Profile 2.4, 2.2.1.4 and 2.2.1.5), ascending.
	EKCertificates []uint32
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

// ReadInfo asks a TPM what it is. It needs no keys and no authorisation.
func ReadInfo(tpm transport.TPM) (*Info, error) {
	const permanent = 0x200 // TPM_PT_PERMANENT
	fixed, err := properties(tpm, uint32(tpm2.TPMPTManufacturer), 16)
	if err != nil {
		return nil, err
	}
	state, err := properties(tpm, permanent, 1)
	if err != nil {
		return nil, err
	}
	certificates, err := certificateHandles(tpm)
	if err != nil {
		return nil, err
	}
	first, second := fixed[tpm2.TPMPTFirmwareVersion1], fixed[tpm2.TPMPTFirmwareVersion2]
	return &Info{
		Manufacturer: text(fixed[tpm2.TPMPTManufacturer]),
		Model: strings.TrimSpace(text(fixed[tpm2.TPMPTVendorString1], fixed[tpm2.TPMPTVendorString2],
			fixed[tpm2.TPMPTVendorString3], fixed[tpm2.TPMPTVendorString4])),
		Firmware:       fmt.Sprintf("%d.%d.%d.%d", first>>16, first&0xffff, second>>16, second&0xffff),
		OwnerAuthSet:   state[permanent]&1 != 0,
		InLockout:      state[permanent]&(1<<9) != 0,
		EKCertificates: certificates,
	}, nil
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
