package device

import (
	"errors"
	"fmt"
	"strings"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// Limits on what one TPM can make us read. A TPM may lie about all of it.
const (
	maxNVContent = 16 << 10 // bytes of one index; certificates have one or two thousand
	maxNVPiece   = 2048     // bytes of one TPM2_NV_Read
	minNVPiece   = 64
	usualNVPiece = 512 // if the TPM does not say
)

var (
	// errUnwritten says that an NV index was defined and never written.
	errUnwritten = errors.New("the NV index is there but nothing was written to it")

	// errNoNVRight says that none of the ways to read an NV index is open to us.
	errNoNVRight = errors.New("the NV index cannot be read with what is known here")

	// errOwnerReads is the same where the owner's password would do.
	errOwnerReads = fmt.Errorf("%w", errNoNVRight)
)

// handlesBetween lists the TPM's handles from first to last, ascending.
func handlesBetween(tpm transport.TPM, first, last uint32) (found []tpm2.TPMHandle, err error) {
	all, err := listHandles(tpm, first)
	if err != nil {
		return nil, err
	}
	for _, handle := range all {
		if handle >= first && handle <= last {
			found = append(found, tpm2.TPMHandle(handle))
		}
	}
	return found, nil
}

// nvReader reads NV indices with the rights that each index gives.
type nvReader struct {
	tpm   transport.TPM
	piece int // bytes of one read

	// owner authorises one command by the owner hierarchy. It is nil if that
	// hierarchy has a password that we do not have.
	owner func() tpm2.Session
}

// pieceSize is what the TPM gives at once (TPM_PT_NV_BUFFER_MAX), within reason.
func pieceSize(tpm transport.TPM) int {
	values, err := properties(tpm, uint32(tpm2.TPMPTNVBufferMax), 1)
	if err != nil {
		return usualNVPiece
	}
	size, told := values[tpm2.TPMPTNVBufferMax]
	if !told {
		return usualNVPiece
	}
	return int(min(max(size, minNVPiece), maxNVPiece))
}

// read gives the content of an index, or its first maxNVContent bytes.
func (r *nvReader) read(handle tpm2.TPMHandle) ([]byte, error) {
	answer, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(r.tpm)
	if err != nil {
		return nil, tpmError("TPM2_NV_ReadPublic", err)
	}
	public, err := answer.NVPublic.Contents()
	if err != nil {
		return nil, tpmError("TPM2_NV_ReadPublic", err)
	}
	switch {
	case public.NVIndex != handle:
		return nil, fmt.Errorf("TPM2_NV_ReadPublic: the answer is about 0x%08x", uint32(public.NVIndex))
	case !public.Attributes.Written:
		return nil, errUnwritten
	case public.Attributes.NT != tpm2.TPMNTOrdinary:
		return nil, fmt.Errorf("the NV index is no ordinary one but of type %d", public.Attributes.NT)
	}
	index := tpm2.NamedHandle{Handle: handle, Name: answer.NVName}
	ways := r.ways(index, public.Attributes)
	closed := errNoNVRight
	if public.Attributes.OwnerRead {
		closed = errOwnerReads
	}
	failures := []error{fmt.Errorf("%w: it lets %s read", closed, readers(public.Attributes))}
	for _, way := range ways {
		content, err := r.content(way, index, min(int(public.DataSize), maxNVContent))
		if err == nil {
			return content, nil
		}
		if !refused(err) {
			return nil, err
		}
		failures = append(failures, err)
	}
	return nil, errors.Join(failures...)
}

// refused are the answers after which another way may still be open.
func refused(err error) bool {
	for _, code := range []tpm2.TPMRC{tpm2.TPMRCBadAuth, tpm2.TPMRCAuthFail, tpm2.TPMRCAuthType, tpm2.TPMRCAuthUnavailable,
		tpm2.TPMRCNVAuthorization, tpm2.TPMRCHierarchy, tpm2.TPMRCLockout} {
		if errors.Is(err, code) {
			return true
		}
	}
	return false
}

// nvWay is one way to authorise a read: a fresh handle for each command, since
// an authorisation is good for one.
type nvWay func() tpm2.AuthHandle

// ways lists those that the index's attributes open (TPM 2.0 Part 2, 13.4), the
// harmless first: hierarchies are not guarded against guessing. The index's own
// password is tried empty, as the TCG has it, and only if a wrong one does not
// count towards a lockout.
func (r *nvReader) ways(index tpm2.NamedHandle, a tpm2.TPMANV) (ways []nvWay) {
	if a.AuthRead && a.NoDA {
		ways = append(ways, func() tpm2.AuthHandle {
			return tpm2.AuthHandle{Handle: index.Handle, Name: index.Name, Auth: tpm2.PasswordAuth(nil)}
		})
	}
	if a.OwnerRead && r.owner != nil {
		ways = append(ways, func() tpm2.AuthHandle { return tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: r.owner()} })
	}
	if a.PPRead { // open only where the firmware left the platform's password empty
		ways = append(ways, func() tpm2.AuthHandle {
			return tpm2.AuthHandle{Handle: tpm2.TPMRHPlatform, Auth: tpm2.PasswordAuth(nil)}
		})
	}
	return ways
}

// readers says in words who may read an index.
func readers(a tpm2.TPMANV) string {
	var words []string
	for _, w := range []struct {
		set  bool
		word string
	}{{a.OwnerRead, "the owner"}, {a.AuthRead, "whoever has its own password"}, {a.PolicyRead, "whoever satisfies its policy"}, {a.PPRead, "the platform's firmware"}} {
		if w.set {
			words = append(words, w.word)
		}
	}
	if len(words) == 0 {
		return "nobody"
	}
	return strings.Join(words, " and ")
}

func (r *nvReader) content(way nvWay, index tpm2.NamedHandle, size int) ([]byte, error) {
	content := make([]byte, 0, size)
	for len(content) < size {
		want := min(r.piece, size-len(content))
		answer, err := tpm2.NVRead{AuthHandle: way(), NVIndex: index, Size: uint16(want), Offset: uint16(len(content))}.Execute(r.tpm)
		if err != nil {
			return nil, tpmError("TPM2_NV_Read", err)
		}
		if got := len(answer.Data.Buffer); got != want {
			return nil, fmt.Errorf("TPM2_NV_Read: asked for %d bytes, got %d", want, got)
		}
		content = append(content, answer.Data.Buffer...)
	}
	return content, nil
}
