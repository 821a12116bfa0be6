package dps

import (
	"encoding/base64"
	"strconv"
	"strings"
	"time"
)

func decodeX509(object []byte) (*X509Attestation, error) {
	const path = "attestation.x509"
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var a X509Attestation
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "clientCertificates":
			a.Client, err = decodePair(path+".clientCertificates", value)
		case string(name) == "signingCertificates":
			a.Signing, err = decodePair(path+".signingCertificates", value)
		case string(name) == "caReferences":
			a.CAReferences, err = decodeReferences(path+".caReferences", value)
		default:
			err = misspelt(path+".", name, "clientCertificates", "signingCertificates", "caReferences")
		}
		return err
	})
	return &a, err
}

func decodePair(path string, object []byte) (*CertificatePair, error) {
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var p CertificatePair
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "primary":
			p.Primary, err = decodeCertificate(path+".primary", value)
		case string(name) == "secondary":
			p.Secondary, err = decodeCertificate(path+".secondary", value)
		default:
			err = misspelt(path+".", name, "primary", "secondary")
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case p.Primary == nil && p.Secondary == nil:
		return nil, nil
	case p.Primary == nil:
		return nil, refuse(path+".primary", "is missing")
	}
	return &p, nil
}

// decodeCertificate takes info for the certificate only where there is none: it
// is read-only otherwise.
func decodeCertificate(path string, object []byte) (*Certificate, error) {
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var certificate *Certificate
	var info []byte
	err := eachMember(object, func(name, value []byte) (err error) {
		switch {
		case isNull(value):
		case string(name) == "certificate":
			certificate, err = certificateValue(path+".certificate", value)
		case string(name) == "info":
			info = value
		default:
			err = misspelt(path+".", name, "certificate", "info")
		}
		return err
	})
	if err != nil || certificate != nil {
		return certificate, err
	}
	if info == nil {
		return nil, nil
	}
	return decodeInfo(path+".info", info)
}

func certificateValue(path string, value []byte) (*Certificate, error) {
	text, err := stringValue(path, value)
	if err != nil || strings.TrimSpace(text) == "" {
		return nil, err
	}
	certificate, err := certificateText(text)
	return certificate, under(path, err)
}

func decodeInfo(path string, object []byte) (*Certificate, error) {
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var c Certificate
	texts := map[string]*string{"subjectName": &c.Info.SubjectName, "sha1Thumbprint": &c.Info.SHA1Thumbprint,
		"sha256Thumbprint": &c.Info.SHA256Thumbprint, "issuerName": &c.Info.IssuerName, "serialNumber": &c.Info.SerialNumber}
	times := map[string]*time.Time{"notBeforeUtc": &c.Info.NotBefore, "notAfterUtc": &c.Info.NotAfter}
	err := eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case texts[n] != nil:
			if *texts[n], err = stringValue(path+"."+n, value); err == nil && len(*texts[n]) > 1024 {
				err = refuse(path+"."+n, "is longer than 1024 characters")
			}
		case times[n] != nil:
			*times[n], err = timeValue(path+"."+n, value)
		case n == "version":
			if c.Info.Version, err = strconv.Atoi(string(value)); err != nil {
				err = refuse(path+".version", "must be a whole number")
			}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	c.Info.SHA256Thumbprint, c.Info.SHA1Thumbprint = strings.ToUpper(c.Info.SHA256Thumbprint), strings.ToUpper(c.Info.SHA1Thumbprint)
	if _, ok := c.Info.Fingerprint(); !ok {
		return nil, refuse(path+".sha256Thumbprint", "must be %d hex digits, as there is no certificate", thumbprintDigits)
	}
	return &c, nil
}

func timeValue(path string, value []byte) (time.Time, error) {
	text, err := stringValue(path, value)
	if err != nil {
		return time.Time{}, err
	}
	at, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, refuse(path, "must be a time such as 2030-01-01T00:00:00Z")
	}
	return at.UTC(), nil
}

func decodeReferences(path string, object []byte) (*CAReferences, error) {
	if object[0] != '{' {
		return nil, refuse(path, "must be an object")
	}
	var r CAReferences
	err := eachMember(object, func(name, value []byte) (err error) {
		switch n := string(name); {
		case isNull(value):
		case n == "primary":
			r.Primary, err = nameValue(path+".primary", value)
		case n == "secondary":
			r.Secondary, err = nameValue(path+".secondary", value)
		default:
			err = misspelt(path+".", name, "primary", "secondary")
		}
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case r == CAReferences{}:
		return nil, nil
	case r.Primary == "":
		return nil, refuse(path+".primary", "is missing")
	}
	return &r, nil
}

// validCAName says whether a text can name a CA certificate: the rule is that of
// registration ids.
func validCAName(name string) bool { return ValidRegistrationID(name) }

func nameValue(path string, value []byte) (string, error) {
	name, err := stringValue(path, value)
	if err == nil && name != "" && !validCAName(name) {
		err = refuse(path, badRegistrationID)
	}
	return name, err
}

func (a *X509Attestation) appendTo(b []byte, show Show) []byte {
	b = append(b, '{')
	if a.Client != nil {
		b = a.Client.appendTo(appendName(b, "clientCertificates"), show)
	}
	if a.Signing != nil {
		b = a.Signing.appendTo(appendName(b, "signingCertificates"), show)
	}
	if a.CAReferences != nil {
		b = append(appendName(b, "caReferences"), '{')
		b = appendPresent(b, "primary", a.CAReferences.Primary)
		b = append(appendPresent(b, "secondary", a.CAReferences.Secondary), '}')
	}
	return append(b, '}')
}

func (p *CertificatePair) appendTo(b []byte, show Show) []byte {
	b = append(b, '{')
	if p.Primary != nil {
		b = p.Primary.appendTo(appendName(b, "primary"), show)
	}
	if p.Secondary != nil {
		b = p.Secondary.appendTo(appendName(b, "secondary"), show)
	}
	return append(b, '}')
}

func (c *Certificate) appendTo(b []byte, show Show) []byte {
	b = append(b, '{')
	if show&ShowCertificates != 0 && c.DER != nil {
		b = appendPresent(b, "certificate", base64.StdEncoding.EncodeToString(c.DER))
	}
	return append(c.Info.appendTo(appendName(b, "info")), '}')
}

// Encode is the info as JSON.
func (i *CertificateInfo) Encode() []byte { return i.appendTo(nil) }

func (i *CertificateInfo) appendTo(b []byte) []byte {
	b = append(b, '{')
	b = appendPresent(b, "subjectName", i.SubjectName)
	b = appendPresent(b, "sha1Thumbprint", i.SHA1Thumbprint)
	b = appendPresent(b, "sha256Thumbprint", i.SHA256Thumbprint)
	b = appendPresent(b, "issuerName", i.IssuerName)
	b = appendTime(b, "notBeforeUtc", i.NotBefore)
	b = appendTime(b, "notAfterUtc", i.NotAfter)
	b = appendPresent(b, "serialNumber", i.SerialNumber)
	if i.Version != 0 {
		b = strconv.AppendInt(appendName(b, "version"), int64(i.Version), 10)
	}
	return append(b, '}')
}
