// The TPM that a client program is given: Microsoft's tss.js, over a software
// TPM of the test.
//
//   mssim:HOST:PORT   the framing of Microsoft's simulator, which tss.js speaks
//   swtpm:HOST:PORT   swtpm's socket, which takes bare TPM commands
'use strict';

const net = require('net');
const tss = require('tss.js');

const headerSize = 10; // tag, size, code: TPM 2.0 Part 1, 18

exports.open = function open(spec) {
  const [kind, host, port] = spec.split(':');
  if (kind !== 'mssim' && kind !== 'swtpm') {
    throw new Error('not a TPM that these programs know: ' + spec);
  }
  const tpm = new tss.Tpm(true, host, Number(port));
  if (kind === 'swtpm') {
    tpm.device = new SwtpmDevice(host, Number(port));
  }
  return tpm;
};

// SwtpmDevice is what tss.js calls a device: connect, dispatchCommand, close.
class SwtpmDevice {
  constructor(host, port) {
    this.address = { host, port };
    this.received = Buffer.alloc(0);
  }

  connect(done) {
    this.socket = net.connect(this.address);
    this.socket.once('connect', () => done(null));
    this.socket.on('data', (data) => this.take(data));
    this.socket.on('error', (err) => { throw err; });
    return null;
  }

  dispatchCommand(command, done) {
    this.done = done;
    this.socket.write(command);
  }

  take(data) {
    this.received = Buffer.concat([this.received, data]);
    if (this.received.length < headerSize || this.received.length < this.received.readUInt32BE(2)) {
      return;
    }
    const response = this.received;
    this.received = Buffer.alloc(0);
    setImmediate(this.done, null, response);
  }

  close() {
    this.socket.destroy();
  }
}
