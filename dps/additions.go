package dps

// DecodeCertificate reads {"certificate":"…"}: base64 of DER, base64 of PEM, or
// PEM. Errors are *FieldError.
func DecodeCertificate(body []byte) (*Certificate, error) {
	if err := checkObject(body); err != nil {
		return nil, err
	}
	var certificate *Certificate
	err := eachMember(body, func(name, value []byte) (err error) {
		switch {
		case string(name) != "certificate":
			return misspelt("", name, "certificate")
		case !isNull(value):
			certificate, err = certificateValue("certificate", value)
		}
		return err
	})
	if err == nil && certificate == nil {
		err = refuse("certificate", "is missing")
	}
	return certificate, err
}

// DecodeHosts reads {"hosts":["…"]}, host names in lower case. Errors are
// *FieldError.
func DecodeHosts(body []byte) (hosts []string, err error) {
	if err := checkObject(body); err != nil {
		return nil, err
	}
	err = eachMember(body, func(name, value []byte) (err error) {
		switch {
		case string(name) != "hosts":
			return misspelt("", name, "hosts")
		case !isNull(value):
			hosts, err = hostsValue("hosts", value)
		}
		return err
	})
	if err == nil && len(hosts) == 0 {
		err = refuse("hosts", "is missing or empty")
	}
	return hosts, err
}
