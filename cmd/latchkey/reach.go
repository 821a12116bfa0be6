package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
)

// flag is a flag of this client with the variable that stands in for it.
func (c *client) flag(name string) string {
	name = c.prefix + name
	return "--" + name + " or LATCHKEY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
}

// unreached is why no answer came, and what can be done about it.
func (c *client) unreached(err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err // without the URL, which says nothing more
	}
	var authority x509.UnknownAuthorityError
	var dialing *net.OpError
	switch {
	case errors.As(err, &authority):
		err = fmt.Errorf("%w; name the file of the CA that issued it with %s (of a private CA: tls/ca.crt of the service's data directory)", err, c.flag("ca-file"))
	case errors.As(err, &dialing) && dialing.Op == "dial" && c.connect != "":
		err = fmt.Errorf("%w; %s (or the profile) says to connect to %s", err, c.flag("connect"), c.connect)
	case errors.As(err, &dialing) && dialing.Op == "dial":
		err = fmt.Errorf("%w; the connection string names the host %s, and %s can name another address to connect to", err, c.connection.HostName, c.flag("connect"))
	}
	return fmt.Errorf("reaching the service: %w", err)
}
