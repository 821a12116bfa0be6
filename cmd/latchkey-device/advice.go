package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/google/go-tpm/tpm2"

	"latchkey.example/latchkey/device"
)

// tpmProblem is a failure to open a TPM, with what the user called it.
type tpmProblem struct {
	spec string
	error
}

func (p tpmProblem) Unwrap() error { return p.error }

// advised puts before an error what the user can do about it, if that is known.
func advised(err error) error {
	if sentence := advice(err); sentence != "" {
		return fmt.Errorf("%s (%w)", sentence, err)
	}
	return err
}

func advice(err error) string {
	var problem tpmProblem
	if errors.As(err, &problem) {
		if sentence := transportAdvice(problem.spec, err); sentence != "" {
			return sentence
		}
	}
	if sentence := tpmAdvice(err); sentence != "" {
		return sentence
	}
	return serviceAdvice(err)
}

func transportAdvice(spec string, err error) string {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "there is no TPM at " + spec + ": check that the firmware has it switched on and the kernel its driver, or name another with --tpm"
	case errors.Is(err, fs.ErrPermission):
		return "no permission to use " + spec + ": add this user to the group tss and log in again, or run as root"
	case errors.Is(err, syscall.EBUSY):
		return spec + " is in use by another program: use /dev/tpmrm0, which programs can share"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens at " + spec + ": start the software TPM, or name another with --tpm"
	}
	return ""
}

// tpmAdvice knows the response codes that an administrator can do something
// about.
func tpmAdvice(err error) string {
	var failure *device.TPMError
	if !errors.As(err, &failure) {
		return ""
	}
	switch {
	case errors.Is(err, device.ErrOtherOwner):
		return "the TPM was cleared or replaced since the hub key was saved: register again"
	case errors.Is(err, device.ErrNotForThisTPM):
		return "the service sealed its answer for another TPM or an earlier owner of this one: compare the enrolled endorsement key with `latchkey-device ek`"
	case errors.Is(err, tpm2.TPMRCFailure): // and no foreign blob
		return "the TPM has failed and takes no commands: switch the device off and on; if it fails again, the chip is broken"
	case errors.Is(err, tpm2.TPMRCLockout):
		return "the TPM is in lockout after failed authorisations: wait until it ends, or have it reset with tpm2_dictionarylockout --clear-lockout"
	case errors.Is(err, tpm2.TPMRCBadAuth), errors.Is(err, tpm2.TPMRCAuthFail):
		return passwordAdvice(failure.Command)
	case errors.Is(err, tpm2.TPMRCNVSpace):
		return "the TPM has no room for another persistent key: remove one with tpm2_evictcontrol, or use --transient"
	case errors.Is(err, tpm2.TPMRCObjectMemory), errors.Is(err, tpm2.TPMRCSessionMemory):
		return "other programs have filled the TPM's slots: use /dev/tpmrm0, or flush them with tpm2_flushcontext"
	}
	return ""
}

func passwordAdvice(command string) string {
	switch command {
	case "TPM2_EvictControl":
		return "the TPM's owner hierarchy has a password: have its administrator remove it for the first run, or use --transient"
	case "TPM2_PolicySecret":
		return "the TPM's endorsement hierarchy has a password, which this protocol's devices leave empty: have its administrator remove it"
	}
	return "the TPM asks for a password where this protocol's devices leave it empty: have its administrator remove it"
}

func serviceAdvice(err error) string {
	const notEnrolled = 404201
	var refusal *device.APIError
	var authority x509.UnknownAuthorityError
	var host x509.HostnameError
	switch {
	case errors.As(err, &refusal) && refusal.Code == notEnrolled:
		return "the service has no enrollment with this registration id and endorsement key: enroll what `latchkey-device ek` prints"
	case errors.As(err, &authority):
		return "the service's certificate is not signed by a CA that this device trusts: name the CA's file with --ca-file"
	case errors.As(err, &host):
		return "the service's certificate is for another host: use that host as --endpoint, with --connect for where to find it"
	}
	return ""
}
