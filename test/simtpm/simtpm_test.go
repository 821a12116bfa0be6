package simtpm_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/tcp"

	"latchkey.example/latchkey/test/simtpm"
)

// Every TPM of the rig, for tests of what they promise alike.
var rigs = map[string]func(testing.TB) simtpm.TPM{
	"simulator": func(tb testing.TB) simtpm.TPM { return simtpm.NewSimulator(tb) },
	"swtpm":     func(tb testing.TB) simtpm.TPM { return simtpm.NewSwtpm(tb) },
	"swtpm-tcp": func(tb testing.TB) simtpm.TPM { return simtpm.NewSwtpmTCP(tb) },
}

func TestPowerCycleKeepsSeedsAndPersistentKeysOnly(t *testing.T) {
	for name, open := range rigs {
		t.Run(name, func(t *testing.T) {
			tpm := open(t)
			before := createPrimary(t, tpm, tpm2.TPMRHEndorsement)
			persist(t, tpm, before, 0x81010005)
			if open := openHandles(t, tpm); len(open) != 1 {
				t.Fatalf("open handles %x, want the one object", open)
			}
			if err := tpm.PowerCycle(); err != nil {
				t.Fatal(err)
			}
			if open := openHandles(t, tpm); len(open) != 0 {
				t.Errorf("handles %x outlived the power", open)
			}
			kept, err := tpm2.ReadPublic{ObjectHandle: tpm2.TPMHandle(0x81010005)}.Execute(tpm)
			if err != nil {
				t.Fatalf("the persistent key is gone: %v", err)
			}
			again := createPrimary(t, tpm, tpm2.TPMRHEndorsement)
			if !bytes.Equal(again.Name.Buffer, before.Name.Buffer) || !bytes.Equal(kept.Name.Buffer, before.Name.Buffer) {
				t.Error("the seed changed with the power")
			}
		})
	}
}

func TestClearChangesTheOwnersKeysOnly(t *testing.T) {
	for name, open := range rigs {
		t.Run(name, func(t *testing.T) {
			tpm := open(t)
			ek, srk := primaryNames(t, tpm)
			if err := simtpm.Clear(tpm); err != nil {
				t.Fatal(err)
			}
			ek2, srk2 := primaryNames(t, tpm)
			if !bytes.Equal(ek, ek2) {
				t.Error("clear changed the EK")
			}
			if bytes.Equal(srk, srk2) {
				t.Error("clear kept the SRK")
			}
		})
	}
}

func TestSecondSimulatorIsRefused(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	if _, err := simtpm.OpenSimulator(); !errors.Is(err, simtpm.ErrSimulatorBusy) {
		t.Fatalf("got %v, want ErrSimulatorBusy", err)
	}
	if err := sim.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := simtpm.OpenSimulator()
	if err != nil {
		t.Fatalf("after Close: %v", err)
	}
	again.Close()
}

func TestManufactureResetMakesAnotherTPM(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	before := createPrimary(t, sim, tpm2.TPMRHEndorsement)
	if err := sim.ManufactureReset(); err != nil {
		t.Fatal(err)
	}
	if after := createPrimary(t, sim, tpm2.TPMRHEndorsement); bytes.Equal(before.Name.Buffer, after.Name.Buffer) {
		t.Error("same EK after a new manufacture")
	}
}

func TestFixedSeedGivesTheSameEK(t *testing.T) {
	name := func(seed int64) []byte {
		sim, err := simtpm.OpenSimulatorSeed(seed)
		if err != nil {
			t.Fatal(err)
		}
		defer sim.Close()
		if err := sim.PowerCycle(); err == nil {
			t.Error("PowerCycle would forget the seeds, but was allowed")
		}
		return createPrimary(t, sim, tpm2.TPMRHEndorsement).Name.Buffer
	}
	first, second, other := name(7), name(7), name(8)
	if !bytes.Equal(first, second) || bytes.Equal(first, other) {
		t.Errorf("EK names %x %x %x", first, second, other)
	}
}

func TestSwtpmStateDirectoryIsTheTPM(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	name := func() []byte {
		s, err := simtpm.StartSwtpm(simtpm.SwtpmConfig{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		return createPrimary(t, s, tpm2.TPMRHEndorsement).Name.Buffer
	}
	if !bytes.Equal(name(), name()) {
		t.Error("another EK from the same state")
	}
}

func TestMissingSwtpmNamesThePackage(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	_, err := simtpm.StartSwtpm(simtpm.SwtpmConfig{})
	if !errors.Is(err, simtpm.ErrNoSwtpm) || !strings.Contains(err.Error(), "apt-get install swtpm") {
		t.Fatalf("got %v", err)
	}
}

func TestSwtpmThatCannotStartSaysWhy(t *testing.T) {
	file := filepath.Join(t.TempDir(), "swtpm-state")
	if err := os.Mkdir(file, 0o700); err != nil {
		t.Fatal(err)
	}
	// A directory where the state file belongs: swtpm cannot write it.
	if err := os.Mkdir(filepath.Join(file, "tpm2-00.permall"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := simtpm.StartSwtpm(simtpm.SwtpmConfig{Dir: file})
	if err == nil || !strings.Contains(err.Error(), "it said") {
		t.Fatalf("got %v", err)
	}
}

func TestFrontServesManyConnections(t *testing.T) {
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	var clients sync.WaitGroup
	for range 8 {
		client := openTCP(t, front)
		clients.Go(func() {
			for range 20 {
				if _, err := (tpm2.GetRandom{BytesRequested: 16}).Execute(client); err != nil {
					t.Error(err)
				}
			}
		})
	}
	clients.Wait()
}

func TestFrontSwitchesThePower(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	front := simtpm.NewFront(t, sim)
	client := openTCP(t, front)
	createPrimary(t, client, tpm2.TPMRHOwner)
	if err := client.PowerOff(); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.GetRandom{BytesRequested: 16}).Execute(client); !errors.Is(err, tcp.ErrEmptyResponse) {
		t.Errorf("without power: %v", err)
	}
	if err := client.PowerOn(); err != nil {
		t.Fatal(err)
	}
	if open := openHandles(t, client); len(open) != 0 {
		t.Errorf("handles %x outlived the power", open)
	}
	createPrimary(t, client, tpm2.TPMRHOwner)
	if err := client.Reset(); err != nil {
		t.Fatal(err)
	}
	if open := openHandles(t, sim); len(open) != 0 {
		t.Errorf("handles %x outlived the reset", open)
	}
}

// The bytes that tss.js sends on connecting: handshake, power on, NV on.
func TestFrontShakesHands(t *testing.T) {
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	command := dial(t, front.CommandAddr())
	exchange(t, command, []uint32{15, 1}, []uint32{1, 13, 0})
	_, port, err := net.SplitHostPort(front.CommandAddr())
	if err != nil {
		t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	platform := dial(t, net.JoinHostPort("127.0.0.1", strconv.Itoa(number+1)))
	exchange(t, platform, []uint32{1}, []uint32{0})
	exchange(t, platform, []uint32{11}, []uint32{0})
}

func TestFrontDropsBadFraming(t *testing.T) {
	front := simtpm.NewFront(t, simtpm.NewSimulator(t))
	for name, sent := range map[string][]byte{
		"unknown code": {0, 0, 0, 99},
		"huge command": {0, 0, 0, 8, 0, 0xff, 0xff, 0xff, 0xff},
	} {
		t.Run(name, func(t *testing.T) {
			conn := dial(t, front.CommandAddr())
			if _, err := conn.Write(sent); err != nil {
				t.Fatal(err)
			}
			if n, err := conn.Read(make([]byte, 1)); err == nil {
				t.Errorf("read %d bytes, want the end of the connection", n)
			}
		})
	}
}

func TestFrontCloseEndsConnections(t *testing.T) {
	sim := simtpm.NewSimulator(t)
	front, err := simtpm.ServeFront("127.0.0.1:0", sim, sim.PowerCycle)
	if err != nil {
		t.Fatal(err)
	}
	conn := dial(t, front.CommandAddr())
	exchange(t, conn, []uint32{15, 1}, []uint32{1, 13, 0})
	if err := front.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Read(make([]byte, 1)); err == nil {
		t.Error("connection outlived the front")
	}
	if open := openHandles(t, sim); len(open) != 0 {
		t.Errorf("handles: %x", open) // and the TPM still answers
	}
}

func createPrimary(t *testing.T, tpm transport.TPM, hierarchy tpm2.TPMHandle) *tpm2.CreatePrimaryResponse {
	t.Helper()
	answer, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func primaryNames(t *testing.T, tpm transport.TPM) (endorsement, owner []byte) {
	t.Helper()
	e := createPrimary(t, tpm, tpm2.TPMRHEndorsement)
	o := createPrimary(t, tpm, tpm2.TPMRHOwner)
	for _, handle := range []tpm2.TPMHandle{e.ObjectHandle, o.ObjectHandle} {
		if _, err := (tpm2.FlushContext{FlushHandle: handle}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
	return e.Name.Buffer, o.Name.Buffer
}

func persist(t *testing.T, tpm transport.TPM, key *tpm2.CreatePrimaryResponse, at tpm2.TPMHandle) {
	t.Helper()
	_, err := tpm2.EvictControl{Auth: tpm2.TPMRHOwner, PersistentHandle: at,
		ObjectHandle: &tpm2.NamedHandle{Handle: key.ObjectHandle, Name: key.Name}}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
}

func openHandles(t *testing.T, tpm transport.TPM) []tpm2.TPMHandle {
	t.Helper()
	open, err := simtpm.OpenHandles(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return open
}

func openTCP(t *testing.T, front *simtpm.Front) *tcp.TPM {
	t.Helper()
	client, err := tcp.Open(tcp.Config{CommandAddress: front.CommandAddr(), PlatformAddress: front.PlatformAddr()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func dial(t *testing.T, address string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return conn
}

func exchange(t *testing.T, conn net.Conn, send, want []uint32) {
	t.Helper()
	if err := binary.Write(conn, binary.BigEndian, send); err != nil {
		t.Fatal(err)
	}
	got := make([]uint32, len(want))
	if err := binary.Read(conn, binary.BigEndian, got); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("answer %v, want %v", got, want)
		}
	}
}
