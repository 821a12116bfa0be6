package main

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/pflag"

	"latchkey.example/latchkey/dps"
)

// keyFlags say which symmetric keys an entry is given. Own keys come in files: a command line is seen by others and kept in histories.
type keyFlags struct {
	primary, secondary       string // files, "-" for standard input
	newPrimary, newSecondary bool
}

func (f *keyFlags) addFiles(flags *pflag.FlagSet) {
	flags.StringVar(&f.primary, "primary-key-file", "", "file with an own primary key, base64; - for standard input")
	flags.StringVar(&f.secondary, "secondary-key-file", "", "file with an own secondary key, base64; - for standard input")
}

func (f *keyFlags) add(flags *pflag.FlagSet) {
	f.addFiles(flags)
	flags.BoolVar(&f.newPrimary, "new-primary-key", false, "make another primary key; 'show ID --keys' prints it")
	flags.BoolVar(&f.newSecondary, "new-secondary-key", false, "make another secondary key; 'show ID --keys' prints it")
}

func (f *keyFlags) given() bool {
	return f.newPrimary || f.newSecondary || f.primary+f.secondary != ""
}

func (f *keyFlags) check() error {
	switch {
	case f.newPrimary && f.primary != "":
		return usageError{errors.New("--primary-key-file and --new-primary-key contradict each other")}
	case f.newSecondary && f.secondary != "":
		return usageError{errors.New("--secondary-key-file and --new-secondary-key contradict each other")}
	}
	return nil
}

// keys are what the flags say, nil for a key that is left as it is.
func (f *keyFlags) keys(stdin io.Reader) (*dps.SymmetricKeys, error) {
	primary, err := symmetricKey(f.primary, f.newPrimary, stdin)
	if err != nil {
		return nil, err
	}
	secondary, err := symmetricKey(f.secondary, f.newSecondary, stdin)
	return &dps.SymmetricKeys{Primary: primary, Secondary: secondary}, err
}

// symmetricKey reads a key from a file or makes one.
func symmetricKey(file string, fresh bool, stdin io.Reader) ([]byte, error) {
	if fresh {
		key := make([]byte, dps.MaxSymmetricKey)
		_, err := rand.Read(key)
		return key, err
	}
	if file == "" {
		return nil, nil
	}
	text, err := readInput(file, stdin, 4<<10)
	if err != nil {
		return nil, err
	}
	key, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err != nil || len(key) < dps.MinSymmetricKey || len(key) > dps.MaxSymmetricKey {
		return nil, fmt.Errorf("%s: a symmetric key is base64 of %d to %d bytes", inputName(file), dps.MinSymmetricKey, dps.MaxSymmetricKey)
	}
	return key, nil
}

// readInput reads a file, or standard input for "-", of at most limit bytes.
func readInput(name string, stdin io.Reader, limit int64) ([]byte, error) {
	if name != "-" {
		return readFile(name, limit)
	}
	return readBounded(name, stdin, limit)
}

// readFile reads a file of at most limit bytes, whatever its name is.
func readFile(name string, limit int64) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readBounded(name, file, limit)
}

func readBounded(name string, in io.Reader, limit int64) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	switch {
	case err != nil:
		return nil, err
	case int64(len(data)) > limit:
		return nil, fmt.Errorf("%s is longer than %d bytes", inputName(name), limit)
	}
	return data, nil
}

func inputName(name string) string {
	if name == "-" {
		return "standard input"
	}
	return name
}

// onceStandardInput refuses a command line that reads standard input for two things.
func onceStandardInput(names ...string) error {
	count := 0
	for _, name := range names {
		if name == "-" {
			count++
		}
	}
	if count > 1 {
		return usageError{errors.New("standard input (-) can be read for one thing only")}
	}
	return nil
}

// change gives a symmetric-key entry what the flags say.
func (f *keyFlags) change(a *dps.Attestation, stdin io.Reader) error {
	if !f.given() {
		return nil
	}
	if a.Type != dps.AttestationSymmetricKey {
		return errors.New("the entry has no symmetric keys")
	}
	keys, err := f.keys(stdin)
	if err == nil {
		a.SymmetricKey = keys
	}
	return err
}
