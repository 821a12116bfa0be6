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
// Whoever listens between this process and the TPM learns no authorisation
// value, no key and no signature: they cross in sessions whose key only the TPM
// can find, encrypted, and their responses are authenticated (ErrChanged). What
// he sees: public areas, wrapped keys, the texts that are signed, when what is
// done.
//
// What it trusts: the TPM. Sessions are salted to the EK that the TPM shows, so
// whoever can change what crosses the bus may show a key of his own; with
// WithTrustedEK he cannot. In any case he may use the TPM as this process does,
// as long as he is there. An answer that is lost may leave the key or session
// that it told of in a TPM without resource manager; a late one does not. The
// service is trusted as far as TLS proves its name; a service that lies can only
// give the device a key and a hub of its own.
//
// Structures and commands are those of the TPM 2.0 Library specification 1.59,
// keys and handles those that the SDKs of Azure DPS use. Their own
// authorisations are empty; those of the hierarchies are given by WithAuth.
package device
