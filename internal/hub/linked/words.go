package linked

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"

	"latchkey.example/latchkey/internal/registration"
)

// maxWords bounds what is told, in bytes.
const maxWords = 300

// words tells of an error of a hub what an operator may see: why it does not work. Failures of the network, which hold addresses, are told in words of
// our own, everything else in those of the driver.
func words(err error) string {
	var said *registration.HubError
	var refused *registration.RefusedError
	switch {
	case errors.As(err, &said):
		return said.Message
	case errors.As(err, &refused) && refused.Err != nil: // the message is for devices
		return plain(refused.Err.Error())
	case errors.As(err, &refused):
		return plain(refused.Message)
	case errors.Is(err, registration.ErrCircuitOpen):
		return "it did not answer before and is left alone for a while"
	case errors.Is(err, registration.ErrElsewhere):
		return "another process serves it"
	}
	if text := certificateWords(err); text != "" {
		return text
	}
	if text := networkWords(err); text != "" {
		return text
	}
	return plain(err.Error())
}

// plain is a text that a terminal shows as it stands, of bounded length, without the full stop at its end.
func plain(text string) string {
	text = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > maxWords {
		text = strings.ToValidUTF8(text[:maxWords], "") + "…"
	}
	return strings.TrimSuffix(strings.TrimSpace(text), ".")
}

func certificateWords(err error) string {
	var unknown x509.UnknownAuthorityError
	var name x509.HostnameError
	var invalid x509.CertificateInvalidError
	var other *tls.CertificateVerificationError
	switch {
	case errors.As(err, &unknown):
		return "its certificate is not trusted: it comes from an authority that this machine does not know"
	case errors.As(err, &name):
		return "its certificate is not trusted: it is for another name"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return "its certificate is not trusted: it has ended or not begun"
	case errors.As(err, &invalid), errors.As(err, &other):
		return "its certificate is not trusted"
	}
	return ""
}

func networkWords(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var record tls.RecordHeaderError
	var timeout interface{ Timeout() bool }
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return "its name does not resolve"
	case errors.As(err, &dns):
		return "its name cannot be resolved now"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "it does not answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "it refuses connections"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH):
		return "no way leads to it"
	case errors.As(err, &record):
		return "it does not speak TLS there"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "it closes the connection"
	case errors.As(err, &op):
		return "it cannot be reached"
	}
	return ""
}
