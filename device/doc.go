// Package device lets a device with a TPM 2.0 prove itself to a provisioning
// service and work at the hub that it is assigned to.
//
// An Identity is the device's TPM: its endorsement key (EK), its storage root
// key (SRK), and the means to open activation blobs. A Client speaks the device
// API of Azure's Device Provisioning Service over HTTPS, which Latchkey serves
// too. Client.Register does the whole registration; the steps it is made of are
// there one by one as well.
//
// What it guarantees: a hub key never exists outside the TPM, which signs SAS
// tokens with TPM2_HMAC. No transient object and no session stays behind in the
// TPM, whether a call succeeds or fails, once Key and Identity are closed. What
// a service answers costs bounded memory and, with a context that ends, bounded
// time.
//
// What it trusts: the TPM and the way to it. Commands are not protected against
// somebody who can change them between this process and the chip. The service
// is trusted as far as TLS proves its name; a service that lies can only give
// the device a key and a hub of its own.
//
// Structures and commands are those of the TPM 2.0 Library specification 1.59,
// keys and handles those that the SDKs of Azure DPS use. All authorisations are
// the empty password.
package device
