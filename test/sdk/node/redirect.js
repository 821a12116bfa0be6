// Loaded before a client program (node --require), this leads its TLS
// connections to where the service under test listens. Only the address and the
// port of the connection change: the name in the TLS handshake, the check of
// the certificate, the Host header and the names inside SAS tokens stay what
// the client made them.
//
// LATCHKEY_REDIRECT lists "HOST:PORT=ADDRESS:PORT", comma-separated. A
// connection to anything else is refused, so that no test leaves the machine.
'use strict';

const tls = require('tls');

const targets = new Map();
for (const entry of (process.env.LATCHKEY_REDIRECT || '').split(',')) {
  const [from, to] = entry.split('=');
  const colon = (to || '').lastIndexOf(':');
  if (colon < 1) {
    throw new Error('LATCHKEY_REDIRECT has no HOST:PORT=ADDRESS:PORT in ' + JSON.stringify(entry));
  }
  targets.set(from, { host: to.slice(0, colon), port: Number(to.slice(colon + 1)) });
}

const connect = tls.connect;

tls.connect = function redirected(options, ...rest) {
  if (options === null || typeof options !== 'object' || options.socket || options.path) {
    throw new Error('redirect.js: a form of tls.connect that it does not know');
  }
  const from = options.host + ':' + options.port;
  const target = targets.get(from);
  if (!target) {
    throw new Error('redirect.js: refused to connect to ' + from);
  }
  const servername = options.servername || options.host;
  return connect.call(tls, Object.assign({}, options, target, { servername }), ...rest);
};
