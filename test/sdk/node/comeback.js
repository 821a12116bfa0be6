// A device on Microsoft's SDK that outlives its hub: it listens, says so by telemetry, loses its connection, and comes back by itself. It prints what it heard
// then, without having asked for anything again: it counts on its session.
//
//   node comeback.js TPM PROVISIONING_HOST ID_SCOPE
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { TpmSecurityClient, TpmAuthenticationProvider } = require('azure-iot-security-tpm');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { open } = require('./tpm');
const { service } = require('./application');

const once = (emitter, event) => new Promise((done) => emitter.once(event, done));
const called = (start) => new Promise((done, fail) => start((err) => err ? fail(err) : done()));

// persistent repeats a call until the service is there again.
async function persistent(call) {
  for (const end = Date.now() + 60000; ;) {
    try {
      return await call();
    } catch (err) {
      if (Date.now() > end) { throw err; }
      await new Promise((done) => setTimeout(done, 100));
    }
  }
}

async function main(tpm, provisioningHost, idScope) {
  const security = new TpmSecurityClient(undefined, tpm);
  const { assignedHub, deviceId } = (await ProvisioningDeviceClient.create(provisioningHost, idScope, new Http(), security).register()).registrationState;
  const device = Client.fromAuthenticationProvider(TpmAuthenticationProvider.fromTpmSecurityClient(deviceId, assignedHub, security), Mqtt);
  await device.open();
  const twin = await device.getTwin();
  let told = false;
  twin.on('properties.desired', (delta) => { told = told || delta.round > 1; });
  const message = once(device, 'message');
  device.onDeviceMethod('ping', (request, response) => response.send(200, 'pong', () => {}));
  await called((done) => device._enableMethods(done));
  const patch = (round) => persistent(() => service(assignedHub, 'PATCH', '/twins/' + deviceId, JSON.stringify({ properties: { desired: { round } } })));
  await patch(1);
  const lost = once(device._transport, 'disconnect');
  await device.sendEvent(new Message('"listening"')); // the test starts the service anew now
  await lost;
  // The SDK connects twice in a row, and acknowledges and forgets what comes on the first of the two connections: its application sends again.
  let received = null;
  message.then((first) => { received = first.getData().toString(); });
  while (received === null) {
    await persistent(() => service(assignedHub, 'POST', '/devices/' + deviceId + '/messages/deviceBound', 'hello again'));
    await new Promise((done) => setTimeout(done, 100));
  }
  for (let round = 2; !told; round++) { // the SDK subscribes one thing after the other, and what is changed before that it would have to read
    await patch(round);
    await new Promise((done) => setTimeout(done, 100));
  }
  const method = await persistent(() => service(assignedHub, 'POST', '/twins/' + deviceId + '/methods', JSON.stringify({ methodName: 'ping', responseTimeoutInSeconds: 20, connectTimeoutInSeconds: 20 })));
  await device.close();
  console.log(JSON.stringify({ received, method }));
}

const [tpmSpec, ...parameters] = process.argv.slice(2);
const tpm = open(tpmSpec);

main(tpm, ...parameters)
  .catch((err) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => {
    tpm.close();
    setTimeout(() => process.exit(), 200).unref();
  });
