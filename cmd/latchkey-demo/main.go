// Command latchkey-demo tells the main job of Latchkey as a story, with the real programs: it starts the service with an empty store, plays a
// device with a simulated TPM against it over TLS, and then tries three ways to get in that must fail. It exits 0 only if every step
// held.
//
// The TPMs are simulated (the reference code, compiled in with cgo); nothing else is. The clone's TPM is a second process of this program,
// since the reference code allows one TPM a process.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"latchkey.example/latchkey/test/rig"
	"latchkey.example/latchkey/test/simtpm"
)

// tpmArgument makes this program serve a simulated TPM instead of telling the story.
const tpmArgument = "serve-simulated-tpm"

// storyTime bounds the whole story; it takes a few seconds.
const storyTime = 2 * time.Minute

const usage = `latchkey-demo takes no arguments. It starts the service beside it with an empty store, plays a device with a simulated TPM against it,
and shows three attacks that fail. It exits 0 only if every step held.
`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == tpmArgument {
		if err := serveTPM(ctx, os.Stdout, os.Stdin); err != nil {
			fmt.Fprintln(os.Stderr, "latchkey-demo: the clone's TPM:", err)
			os.Exit(1)
		}
		return
	}
	if len(os.Args) > 1 {
		fmt.Fprint(os.Stderr, usage)
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(ctx, storyTime)
	defer cancel()
	if err := tell(ctx, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "\nlatchkey-demo:", err)
		os.Exit(1)
	}
}

// tell sets the stage, runs the acts and clears the stage.
func tell(ctx context.Context, w io.Writer) (err error) {
	s := newStory(w)
	s.say("Latchkey: a device with a TPM 2.0 walks out of its box, proves who it is, and is handed to its hub.")
	service, err := startService(s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	tpm, err := simtpm.OpenSimulator()
	if err != nil {
		return err
	}
	defer tpm.Close()
	clone, err := startClone(ctx)
	if err != nil {
		return err
	}
	defer clone.stop()

	d := &drama{story: s, service: service, tpm: tpm, cloneTPM: clone.spec}
	defer d.close()
	for _, act := range []func(context.Context) error{d.firstLight, d.cloneGetsNothing, d.ownerChanges, d.replayGetsNothing} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	s.end()
	return nil
}

func startService(s *story) (service *rig.Service, err error) {
	programs, err := ownPrograms()
	if err != nil {
		return nil, err
	}
	err = s.step("Service started", func() (string, error) {
		// The ten-year token of act 3 must be a good token until the key changes, so the cap on a token's life is lifted here.
		service, err = rig.Start(rig.Config{Programs: programs, Env: []string{"LATCHKEY_HUB_MAX_TOKEN_LIFE=100000h"}})
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("latchkey init, latchkey serve: ID scope %s, HTTPS %s, MQTT %s, empty store", service.IDScope, service.HTTPS, service.MQTT), nil
	})
	return service, err
}

// ownPrograms are the built programs beside this one.
func ownPrograms() (rig.Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return rig.Programs{}, err
	}
	return rig.ProgramsIn(filepath.Dir(self))
}

// cloneProcess is the second TPM.
type cloneProcess struct {
	spec  string
	stdin io.Closer
	cmd   *exec.Cmd
}

func startClone(ctx context.Context) (*cloneProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, tpmArgument)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var spec string
	if _, err := fmt.Fscanln(stdout, &spec); err != nil {
		return nil, errors.Join(fmt.Errorf("the clone's TPM did not start: %w", err), cmd.Wait())
	}
	return &cloneProcess{strings.TrimSpace(spec), stdin, cmd}, nil
}

func (c *cloneProcess) stop() {
	c.stdin.Close() // the process ends with its standard input, also if we die
	_ = c.cmd.Wait()
}

// serveTPM serves a simulated TPM until its input ends, and prints where.
func serveTPM(ctx context.Context, out io.Writer, in io.Reader) error {
	tpm, err := simtpm.OpenSimulator()
	if err != nil {
		return err
	}
	defer tpm.Close()
	front, err := simtpm.ServeFront("127.0.0.1:0", tpm, tpm.PowerCycle)
	if err != nil {
		return err
	}
	defer front.Close()
	fmt.Fprintln(out, front.Spec())
	ended := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, in)
		close(ended)
	}()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	return nil
}
