package main

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"latchkey.example/latchkey/device"
)

// hierarchies are those whose authorisation values the agent can be told.
var hierarchies = []string{"owner", "endorsement", "lockout"}

// authFlags say where the authorisation values of the TPM's hierarchies are. A
// value is never an argument, which every user of the machine can read.
//
// In this order: the file of the flag or of its variable, the variable with the
// value itself, the credential that systemd hands over.
type authFlags struct {
	files map[string]*string // by hierarchy

	// found are values that came by the environment, which is read once: they
	// are taken out of it so that no child process has them.
	found map[string][]byte
}

func addAuthFlags(cmd *cobra.Command) *authFlags {
	f := &authFlags{files: make(map[string]*string)}
	for _, name := range hierarchies {
		f.files[name] = cmd.Flags().String(name+"-auth-file", "",
			"file with the password of the TPM's "+name+" hierarchy, readable by its owner only")
	}
	return f
}

// read gives the values. The caller wipes them.
func (f *authFlags) read() (auth device.Auth, err error) {
	f.takeEnvironment()
	for name, place := range map[string]*[]byte{"owner": &auth.Owner, "endorsement": &auth.Endorsement, "lockout": &auth.Lockout} {
		if *place, err = f.readOne(name); err != nil {
			auth.Wipe()
			return auth, err
		}
	}
	return auth, nil
}

func (f *authFlags) readOne(name string) ([]byte, error) {
	if path := *f.files[name]; path != "" {
		return readAuthFile(path, name, 0o077)
	}
	if text := f.found[name]; len(text) > 0 {
		value, err := parseAuth(text)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", authVariable(name), err)
		}
		return value, nil
	}
	return readCredential(name)
}

// takeEnvironment moves values from the environment to memory of our own. The
// kernel goes on showing the first environment of a process to its own user.
func (f *authFlags) takeEnvironment() {
	if f.found != nil {
		return
	}
	f.found = make(map[string][]byte)
	for _, name := range hierarchies {
		if value, set := os.LookupEnv(authVariable(name)); set {
			f.found[name] = []byte(value)
			os.Unsetenv(authVariable(name))
		}
	}
}

// authVariable is LATCHKEY_OWNER_AUTH for owner.
func authVariable(hierarchy string) string { return variable(hierarchy + "-auth") }

// readCredential reads what systemd put into the service's own directory
// (LoadCredential= and its like). A unit that hands over none is fine.
func readCredential(name string) ([]byte, error) {
	dir := os.Getenv("CREDENTIALS_DIRECTORY")
	if dir == "" {
		return nil, nil
	}
	// systemd lets the service's user in by an access control list, whose mask
	// shows as rights of the group.
	value, err := readAuthFile(filepath.Join(dir, "latchkey-"+name+"-auth"), name, 0o007)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return value, err
}

// maxAuthFile has room for the longest value as hex, its prefix and a newline.
const maxAuthFile = len("hex:") + 2*device.MaxAuth + len("\r\n")

// readAuthFile reads a value from a file that nobody but its owner can read.
func readAuthFile(path, hierarchy string, forbidden fs.FileMode) ([]byte, error) {
	if path == "-" {
		return nil, usageError{fmt.Errorf("--%s-auth-file takes the path of a file, not standard input", hierarchy)}
	}
	file, err := openRegular(path)
	if err != nil {
		return nil, fmt.Errorf("%s authorisation file: %w", hierarchy, err)
	}
	defer file.Close()
	info, err := file.Stat()
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s authorisation file: %w", hierarchy, err)
	case info.Mode().Perm()&forbidden != 0 && runtime.GOOS != "windows": // which has no such modes
		return nil, fmt.Errorf("the %s authorisation file %s can be read or changed by others (mode %04o): run `chmod 600 %s`, and think of the password as known",
			hierarchy, path, info.Mode().Perm(), path)
	}
	text := make([]byte, maxAuthFile+1)
	defer clear(text)
	n, err := io.ReadFull(file, text)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s authorisation file: %w", hierarchy, err)
	}
	value, err := parseAuth(text[:n])
	if err != nil {
		return nil, fmt.Errorf("%s authorisation file %s: %w", hierarchy, path, err)
	}
	return value, nil
}

// openRegular opens a file that can be read to its end at once: opening a pipe
// would wait for a writer.
func openRegular(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return os.Open(path)
}

// parseAuth reads a value as tpm2-tools spell it: hex:… for bytes, str:… for
// text that could be taken for something else, and else the text itself. One
// newline at the end, which editors leave there, does not belong to it. No error
// repeats any of it.
func parseAuth(text []byte) ([]byte, error) {
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	switch prefix, rest, _ := bytes.Cut(text, []byte(":")); string(prefix) {
	case "hex":
		value := make([]byte, hex.DecodedLen(len(rest)))
		if _, err := hex.Decode(value, rest); err != nil {
			return nil, errors.New("what follows hex: is not an even number of hexadecimal digits")
		}
		return checkedAuth(value)
	case "str":
		return checkedAuth(bytes.Clone(rest))
	case "file", "session", "pcr":
		return nil, fmt.Errorf("it begins with %s:, which is no value but a way of tpm2-tools to name one: put the value itself, with str: before it if it really begins so", prefix)
	}
	return checkedAuth(bytes.Clone(text))
}

func checkedAuth(value []byte) ([]byte, error) {
	switch {
	case len(bytes.TrimRight(value, "\x00")) == 0:
		return nil, errors.New("it holds no value: leave it out if the hierarchy has no password")
	case len(value) > device.MaxAuth:
		clear(value)
		return nil, fmt.Errorf("it holds more than the %d bytes that a TPM takes", device.MaxAuth)
	}
	return value, nil
}
