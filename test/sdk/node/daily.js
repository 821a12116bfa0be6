// The daily life of a device on Microsoft's SDK: it registers with its TPM, works at its hub over MQTT, on a connection of its own or over WebSocket, and an
// application works with it by the hub's service side. It prints what each of the two saw of the other.
//
//   node daily.js TPM PROVISIONING_HOST ID_SCOPE mqtt|ws
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { TpmSecurityClient, TpmAuthenticationProvider } = require('azure-iot-security-tpm');
const { Client, Message } = require('azure-iot-device');
const { Mqtt, MqttWs } = require('azure-iot-device-mqtt');
const { open } = require('./tpm');
const { service } = require('./application');

// mailbox holds what comes until it is asked for.
class Mailbox {
  constructor() { this.letters = []; this.waiting = []; }
  put(letter) {
    const next = this.waiting.shift();
    if (next) { next(letter); } else { this.letters.push(letter); }
  }
  take() {
    return this.letters.length > 0 ? Promise.resolve(this.letters.shift()) : new Promise((done) => this.waiting.push(done));
  }
}

const properties = (message) => Object.fromEntries(message.properties.propertyList.map((p) => [p.key, p.value]));

async function main(tpm, provisioningHost, idScope, transport) {
  const security = new TpmSecurityClient(undefined, tpm);
  const provisioning = ProvisioningDeviceClient.create(provisioningHost, idScope, new Http(), security);
  const { assignedHub, deviceId } = (await provisioning.register()).registrationState;
  const authentication = TpmAuthenticationProvider.fromTpmSecurityClient(deviceId, assignedHub, security);
  const device = Client.fromAuthenticationProvider(authentication, transport === 'ws' ? MqttWs : Mqtt);
  const saw = { deviceId };
  await device.open();

  // Twin.
  const twin = await device.getTwin();
  saw.firstVersions = [twin.properties.desired.$version, twin.properties.reported.$version];
  await new Promise((done, fail) => twin.properties.reported.update({ firmware: { version: '1.0', slot: 'a' } }, (err) => err ? fail(err) : done()));
  await new Promise((done, fail) => twin.properties.reported.update({ firmware: { slot: null } }, (err) => err ? fail(err) : done()));
  const deltas = new Mailbox();
  twin.on('properties.desired', (delta) => deltas.put(JSON.parse(JSON.stringify(delta))));
  await deltas.take(); // the SDK begins with what is there
  saw.refusedReport = await new Promise((done) => twin.properties.reported.update({ 'a b': 1 }, (err) => done(err && err.name)));
  const patch = (desired) => service(assignedHub, 'PATCH', '/twins/' + deviceId, JSON.stringify({ tags: { floor: 3 }, properties: { desired } }));
  await patch({ interval: 5, limits: { high: 9 } });
  saw.firstDelta = await deltas.take();
  await patch({ limits: { high: null, low: 1 } });
  saw.secondDelta = await deltas.take();
  await new Promise((done, fail) => twin.get((err) => err ? fail(err) : done()));
  saw.desired = JSON.parse(JSON.stringify(twin.properties.desired));
  const known = await service(assignedHub, 'GET', '/twins/' + deviceId);
  saw.service = { reported: known.properties.reported.firmware, tags: known.tags, state: known.connectionState };

  // Messages from the cloud.
  const inbox = new Mailbox();
  device.on('message', (message) => inbox.put(message));
  await new Promise((done) => setTimeout(done, 0));
  const send = (id, body) => service(assignedHub, 'POST', '/devices/' + deviceId + '/messages/deviceBound', body,
    { 'iothub-messageid': id, 'iothub-correlationid': 'about ' + id, 'iothub-ack': 'full', 'iothub-app-kind': 'a & b' });
  await send('m1', '{"do":1}');
  const first = await inbox.take();
  saw.message = {
    id: first.messageId, correlation: first.correlationId, to: first.to, ack: properties(first)['iothub-ack'], data: first.getData().toString(),
    kind: properties(first).kind, expires: new Date(first.expiryTimeUtc) > new Date(),
  };
  saw.settled = {};
  for (const way of ['complete', 'reject', 'abandon']) {
    try {
      saw.settled[way] = (await device[way](first)).constructor.name;
    } catch (err) {
      saw.settled[way] = err.name;
    }
  }

  // Direct methods.
  device.onDeviceMethod('reboot', (request, response) => {
    response.send(202, { after: request.payload.delay }, () => {});
  });
  await new Promise((done) => device._enableMethods((err) => done(err)));
  saw.method = await service(assignedHub, 'POST', '/twins/' + deviceId + '/methods',
    JSON.stringify({ methodName: 'reboot', payload: { delay: 7 }, responseTimeoutInSeconds: 20, connectTimeoutInSeconds: 10 }));

  // The SAS token is renewed as its timer does after 45 minutes: the SDK comes back with another one, on the same session.
  const reconnected = new Promise((done) => authentication.once('newTokenAvailable', done));
  authentication._renewToken();
  await reconnected;
  await send('m2', 'during the renewal');
  saw.afterRenewal = (await inbox.take()).messageId;

  // Telemetry.
  const event = new Message('{"t":21}');
  event.messageId = 'e1';
  event.contentType = 'application/json';
  event.contentEncoding = 'utf-8';
  event.properties.add('made by', 'node & sdk');
  saw.sent = (await device.sendEvent(event)).constructor.name;
  await device.sendEventBatch([new Message('b1'), new Message('b2')]).then(
    (result) => { saw.batch = result.constructor.name; }, (err) => { saw.batch = err.name; });
  await device.close();
  console.log(JSON.stringify(saw));
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
