package outflow

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"strings"
)

// maxSecretFile bounds what is read of a file that should hold a secret.
const maxSecretFile = 64 << 10

// readSecret reads a file that its owner alone may read.
func readSecret(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 && info.Mode().Type() == fs.FileMode(0) {
		return nil, fmt.Errorf("%s holds a secret and others may read it: chmod 600 it", path)
	}
	data, err := io.ReadAll(io.LimitReader(file, maxSecretFile+1))
	if err == nil && len(data) > maxSecretFile {
		err = fmt.Errorf("%s is too large for a secret", path)
	}
	return data, err
}

// readPassword reads one line; empty for no file.
func readPassword(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	data, err := readSecret(path)
	if err != nil {
		return "", err
	}
	text := strings.TrimRight(string(data), "\r\n")
	if text == "" || strings.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("%s must hold one line, the secret", path)
	}
	return text, nil
}

// readSigningKey reads a key as receivers' libraries take it: whsec_ and base64 of 24 to 64 bytes. Empty for no file.
func readSigningKey(path string) ([]byte, error) {
	text, err := readPassword(path)
	if err != nil || text == "" {
		return nil, err
	}
	encoded, ok := strings.CutPrefix(text, "whsec_")
	key, err := base64.StdEncoding.Strict().DecodeString(encoded)
	if !ok || err != nil || len(key) < 24 || len(key) > 64 {
		return nil, fmt.Errorf("%s must hold whsec_ and the base64 of 24 to 64 random bytes, as (printf whsec_; openssl rand -base64 32) makes it", path)
	}
	return key, nil
}

// Trust says whom a broker must be, and who this side is.
type Trust struct {
	CAFile          string // PEM; empty: the system's
	CertificateFile string // PEM, with KeyFile; empty: none is shown
	KeyFile         string
}

func (t Trust) config() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CAFile != "" {
		pem, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, err
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate", t.CAFile)
		}
	}
	if (t.CertificateFile == "") != (t.KeyFile == "") {
		return nil, errors.New("certificateFile and keyFile go together")
	}
	if t.CertificateFile == "" {
		return config, nil
	}
	key, err := readSecret(t.KeyFile)
	if err != nil {
		return nil, err
	}
	chain, err := os.ReadFile(t.CertificateFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(chain, key)
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", t.CertificateFile, t.KeyFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return config, nil
}
