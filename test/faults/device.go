package faults

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"latchkey.example/latchkey/attest"
	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/softtpm"
)

// Device is a chip with its enrollment, and what it was told so far. One goroutine at a time registers it.
type Device struct {
	ID     string
	chip   *softtpm.TPM
	ek     []byte // TPM2B_PUBLIC
	srk    []byte // likewise, of the present owner
	rival  bool   // another device's enrollment has the same device id: the first to register has it, and the other is refused
	terse  bool   // it sends its keys with the first request and not with its proof, as some SDKs do
	proofs []*Proof
}

// Proof is one token that a device sent, and what it was told about it.
type Proof struct {
	token     string
	Owner     []byte    // TPM2B_PUBLIC of the storage root key
	Operation string    // of the 202; empty: it never came
	Told      time.Time // when it came
	Refused   bool      // it was refused, which spent it too
	Assigned  bool      // a poll said so, and told what follows
	Hub       string
	DeviceID  string
	Key       []byte // the hub key, as the chip opened it
}

// Operator runs the operator's commands, as the services of package rig do.
type Operator interface {
	LatchkeyReading(ctx context.Context, in io.Reader, arguments ...string) (rig.Result, error)
}

// Enroll makes devices, from a chip number on, and enrolls them in bulk with the operator's own command. Of each ten, two are rivals for one device
// id and one is terse.
func Enroll(ctx context.Context, o Operator, firstChip, count int) ([]*Device, error) {
	devices := make([]*Device, count)
	var lines strings.Builder
	for i := range devices {
		chip := softtpm.New(softtpm.ECC, firstChip+i)
		ek := chip.EK.Bytes()
		d := &Device{ID: attest.RegistrationID(ek), chip: chip, ek: ek, srk: chip.SRK.Bytes(), terse: i%10 == 9}
		name := ""
		if i%10 < 2 && i|1 < count {
			d.rival, name = true, fmt.Sprint("contested-", (firstChip+i)/2)
		}
		devices[i] = d
		fmt.Fprintf(&lines, `{"endorsementKey":"%s","deviceId":"%s"}`+"\n", base64.StdEncoding.EncodeToString(ek), name)
	}
	_, err := o.LatchkeyReading(ctx, strings.NewReader(lines.String()), "enroll", "import", "-")
	return devices, err
}

// forget takes a proof back that was turned away as if it had never been sent.
func (d *Device) forget(p *Proof) {
	d.proofs = slices.DeleteFunc(d.proofs, func(other *Proof) bool { return other == p })
}

// clear gives the chip a new owner.
func (d *Device) clear() {
	d.chip.Clear()
	d.srk = d.chip.SRK.Bytes()
}

// begin notes a proof before it is sent.
func (d *Device) begin(token string) *Proof {
	p := &Proof{token: token, Owner: d.srk}
	d.proofs = append(d.proofs, p)
	return p
}

// last is the newest proof that was acknowledged, nil if none was.
func (d *Device) last() *Proof {
	for i := len(d.proofs) - 1; i >= 0; i-- {
		if d.proofs[i].Operation != "" {
			return d.proofs[i]
		}
	}
	return nil
}

// count says how many proofs were acknowledged, how many refused, and of how many it is not known what became of them.
func (d *Device) count() (acknowledged, refused, unknown int) {
	for _, p := range d.proofs {
		switch {
		case p.Operation != "":
			acknowledged++
		case p.Refused:
			refused++
		default:
			unknown++
		}
	}
	return acknowledged, refused, unknown
}

// assigned holds what a poll told against what the device was told before: the same owner keeps the hub key, a new one gets another.
func (d *Device) assigned(now *Proof) string {
	for _, before := range d.proofs {
		if before == now || !before.Assigned {
			continue
		}
		same := bytes.Equal(before.Key, now.Key)
		switch {
		case bytes.Equal(before.Owner, now.Owner) && !same:
			return "its hub key changed, and its owner did not"
		case !bytes.Equal(before.Owner, now.Owner) && same:
			return "its new owner got the old owner's hub key"
		case before.Hub != now.Hub || before.DeviceID != now.DeviceID:
			return fmt.Sprintf("it was %s at %s and is %s at %s now", before.DeviceID, before.Hub, now.DeviceID, now.Hub)
		}
	}
	return ""
}
