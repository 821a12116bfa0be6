package device_test

import (
	"bytes"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"latchkey.example/latchkey/device"
	"latchkey.example/latchkey/test/simtpm"
)

// Attributes that makers give the NV indices of certificates, but for the
// platform's part in it.
var readableByAll = tpm2.TPMANV{OwnerWrite: true, OwnerRead: true, AuthRead: true, NoDA: true}

// writeNV defines an index and fills it.
func writeNV(t *testing.T, tpm transport.TPM, index uint32, attributes tpm2.TPMANV, content []byte) {
	t.Helper()
	define := tpm2.NVDefineSpace{AuthHandle: tpm2.TPMRHOwner, PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
		NVIndex: tpm2.TPMHandle(index), NameAlg: tpm2.TPMAlgSHA256, Attributes: attributes, DataSize: uint16(len(content))})}
	if _, err := define.Execute(tpm); err != nil {
		t.Fatalf("define 0x%08x: %v", index, err)
	}
	for offset := 0; offset < len(content); offset += 512 {
		public, err := tpm2.NVReadPublic{NVIndex: tpm2.TPMHandle(index)}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		piece := content[offset:min(offset+512, len(content))]
		_, err = tpm2.NVWrite{AuthHandle: tpm2.TPMRHOwner, NVIndex: tpm2.NamedHandle{Handle: tpm2.TPMHandle(index), Name: public.NVName},
			Data: tpm2.TPM2BMaxNVBuffer{Buffer: piece}, Offset: uint16(offset)}.Execute(tpm)
		if err != nil {
			t.Fatalf("write 0x%08x: %v", index, err)
		}
	}
}

// unreadWhy is why something could not be read; nil if it was or is not there.
func unreadWhy(found *device.EKs, what string) error {
	for _, u := range found.Unread {
		if u.What == what {
			return u.Err
		}
	}
	return nil
}

// An index that says nothing useful is reported, and nothing else suffers.
func TestNVThatCannotBeReadIsReported(t *testing.T) {
	onBothTPMs(t, func(t *testing.T, tpm simtpm.TPM) {
		policyOnly := tpm2.TPMANV{OwnerWrite: true, PolicyRead: true, NoDA: true}
		guarded := tpm2.TPMANV{OwnerWrite: true, AuthRead: true} // a wrong password would count towards a lockout
		writeNV(t, tpm, 0x01c00002, policyOnly, certificateFor(t, rsaKeyOf(t, tpm)))
		writeNV(t, tpm, 0x01c0000a, readableByAll, nil)
		writeNV(t, tpm, 0x01c00012, readableByAll, []byte("no certificate at all"))
		writeNV(t, tpm, 0x01c00014, readableByAll, bytes.Repeat([]byte{0xff}, 900))
		writeNV(t, tpm, 0x01c00016, readableByAll, []byte{0x30, 0x82, 0x10, 0x00, 1, 2, 3})
		writeNV(t, tpm, 0x01c00018, guarded, certificateFor(t, rsaKeyOf(t, tpm)))
		writeNV(t, tpm, 0x01c0001a, readableByAll, []byte{0x30, 0x03, 0x02, 0x01, 0x05})
		found := readEKs(t, tpm)
		for index, want := range map[string]string{
			"0x01c00002": "lets whoever satisfies its policy read",
			"0x01c0000a": "nothing was written",
			"0x01c00012": "begins with 0x6e",
			"0x01c00014": "nothing but padding",
			"0x01c00016": "says 4096 bytes, 3 are there",
			"0x01c00018": "lets whoever has its own password read",
			"0x01c0001a": "not that of a certificate",
		} {
			mustSay(t, unreadWhy(found, "EK certificate at NV index "+index), index, want)
		}
		if len(found.Certificates) != 0 || len(found.Keys) < 8 {
			t.Errorf("got %d certificates, %d keys", len(found.Certificates), len(found.Keys))
		}
		info, err := device.ReadInfo(tpm)
		if err != nil || info.Lockout.Failures != 0 {
			t.Errorf("reading cost %d failed authorisations, %v", info.Lockout.Failures, err)
		}
	})
}

func mustSay(t *testing.T, err error, about, want string) {
	t.Helper()
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte(want)) {
		t.Errorf("%s: got %v, want %q", about, err, want)
	}
}

// liar is a TPM whose answers about NV are not true.
type liar struct {
	transport.TPM
	indices []uint32 // shown as defined; nil: what is there
	size    uint16   // of each index
	piece   uint32   // TPM_PT_NV_BUFFER_MAX
	short   bool     // reads give one byte
	reads   int
	asked   []int
}

func (l *liar) Send(command []byte) ([]byte, error) {
	switch tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) {
	case tpm2.TPMCCGetCapability:
		capability, property := tpm2.TPMCap(binary.BigEndian.Uint32(command[10:])), binary.BigEndian.Uint32(command[14:])
		if capability == tpm2.TPMCapTPMProperties && property == uint32(tpm2.TPMPTNVBufferMax) && l.piece != 0 {
			b := binary.BigEndian.AppendUint32([]byte{0}, uint32(capability))
			for _, word := range []uint32{1, property, l.piece} {
				b = binary.BigEndian.AppendUint32(b, word)
			}
			return responseOf(b), nil
		}
		if capability == tpm2.TPMCapHandles && property>>24 == 1 && l.indices != nil {
			return responseOf(l.handles(property, binary.BigEndian.Uint32(command[18:]))), nil
		}
	case tpm2.TPMCCNVReadPublic:
		public := tpm2.TPMSNVPublic{NVIndex: tpm2.TPMHandle(binary.BigEndian.Uint32(command[10:])), NameAlg: tpm2.TPMAlgSHA256,
			Attributes: tpm2.TPMANV{AuthRead: true, NoDA: true, Written: true}, DataSize: l.size}
		return responseOf(append(tpm2.Marshal(tpm2.New2B(public)), tpm2.Marshal(tpm2.TPM2BName{Buffer: make([]byte, 34)})...)), nil
	case tpm2.TPMCCNVRead:
		l.reads++
		want := int(binary.BigEndian.Uint16(command[len(command)-4:]))
		l.asked = append(l.asked, want)
		if l.short {
			want = 1
		}
		data := tpm2.Marshal(tpm2.TPM2BMaxNVBuffer{Buffer: bytes.Repeat([]byte{0x30}, want)})
		body := binary.BigEndian.AppendUint32(nil, uint32(len(data)))
		body = append(append(body, data...), 0, 0, 1, 0, 0) // empty password session
		out := responseOf(body)
		binary.BigEndian.PutUint16(out, 0x8002) // TPM_ST_SESSIONS
		return out, nil
	}
	return l.TPM.Send(command)
}

func (l *liar) handles(from, most uint32) []byte {
	i, _ := slices.BinarySearch(l.indices, from)
	rest := l.indices[i:]
	more := byte(0)
	if len(rest) > int(most) {
		rest, more = rest[:most], 1
	}
	b := binary.BigEndian.AppendUint32([]byte{more}, uint32(tpm2.TPMCapHandles))
	b = binary.BigEndian.AppendUint32(b, uint32(len(rest)))
	for _, handle := range rest {
		b = binary.BigEndian.AppendUint32(b, handle)
	}
	return b
}

// responseOf is a response without sessions.
func responseOf(body []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0x80, 0x01}, uint32(10+len(body)))
	return append(append(b, 0, 0, 0, 0), body...)
}

func TestATPMThatLiesAboutNVCostsLittle(t *testing.T) {
	sim := simulator(t)
	defer mustBeEmpty(t, sim)
	var everything []uint32
	for index := uint32(0x01c00000); index < 0x01c00200; index++ {
		everything = append(everything, index)
	}
	for name, l := range map[string]*liar{
		"every index, 64 KB each": {indices: everything, size: 0xffff, piece: 0xffffffff},
		"pieces of nothing":       {indices: everything, size: 900, piece: 1},
		"short reads":             {indices: everything, size: 900, short: true},
		"all of it in one index":  {indices: []uint32{0x01c00002}, size: 0xffff},
	} {
		l.TPM = sim
		found := readEKs(t, l)
		if len(found.Certificates)+len(found.Chain) != 0 || len(found.Keys) < 8 {
			t.Errorf("%s: got %d certificates, %d keys", name, len(found.Certificates), len(found.Keys))
		}
		sum := 0
		for _, n := range l.asked {
			sum += n
		}
		if sum > 2<<20 || l.reads > 4000 || len(l.asked) > 0 && slices.Max(l.asked) > 2048 {
			t.Errorf("%s: %d bytes in %d reads", name, sum, l.reads)
		}
		if len(found.Unread) == 0 {
			t.Errorf("%s: nothing is reported", name)
		}
	}
}

// endless is a TPM with a key at every handle that one can ask for.
type endless struct {
	transport.TPM
	asked int
}

func (e *endless) Send(command []byte) ([]byte, error) {
	if tpm2.TPMCC(binary.BigEndian.Uint32(command[6:])) != tpm2.TPMCCGetCapability || tpm2.TPMCap(binary.BigEndian.Uint32(command[10:])) != tpm2.TPMCapHandles {
		return e.TPM.Send(command)
	}
	e.asked++
	body := binary.BigEndian.AppendUint32([]byte{1}, uint32(tpm2.TPMCapHandles))
	body = binary.BigEndian.AppendUint32(body, 1)
	return responseOf(binary.BigEndian.AppendUint32(body, binary.BigEndian.Uint32(command[14:]))), nil
}

func TestAListOfHandlesWithoutEndEnds(t *testing.T) {
	sim := &endless{TPM: simulator(t)}
	found := readEKs(t, sim)
	if sim.asked > 10_000 || len(found.Keys) < 8 {
		t.Errorf("asked %d times, %d keys", sim.asked, len(found.Keys))
	}
}
