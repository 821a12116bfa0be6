package attest

// Attributes is a TPMA_OBJECT (TPM 2.0 Part 2, 8.3).
type Attributes uint32

// Attribute bits.
const (
	FixedTPM             Attributes = 1 << 1
	STClear              Attributes = 1 << 2
	FixedParent          Attributes = 1 << 4
	SensitiveDataOrigin  Attributes = 1 << 5
	UserWithAuth         Attributes = 1 << 6
	AdminWithPolicy      Attributes = 1 << 7
	FirmwareLimited      Attributes = 1 << 8
	NoDA                 Attributes = 1 << 10
	EncryptedDuplication Attributes = 1 << 11
	Restricted           Attributes = 1 << 16
	Decrypt              Attributes = 1 << 17
	SignEncrypt          Attributes = 1 << 18
	X509Sign             Attributes = 1 << 19
)

// knownAttributes are the bits with a meaning. The others are reserved and a
// TPM never sets them, so a public area that does was not made by one (or by
// one from a revision whose rules this package has not been taught).
const knownAttributes = FixedTPM | STClear | FixedParent | SensitiveDataOrigin |
	UserWithAuth | AdminWithPolicy | FirmwareLimited | NoDA | EncryptedDuplication |
	Restricted | Decrypt | SignEncrypt | X509Sign

// Has tells whether all the given bits are set.
func (a Attributes) Has(bits Attributes) bool { return a&bits == bits }
