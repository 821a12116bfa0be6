// An application's program on Microsoft's IoT Hub service SDK, over REST. It checks
// every answer and ends with an error at the first that is not as an IoT Hub
// gives it.
//
//   node hubservice.js registry
//       creates, reads, updates, lists and deletes device identities, one by one
//       and in bulk; there must be no other device
//   node hubservice.js calls
//       changes the twin of a device that is connected (with the device SDK, over
//       MQTT), calls its direct method, and queries what it reported
//
// The connection string is in LATCHKEY_CONNECTION_STRING.
'use strict';

const assert = require('assert').strict;
const { Registry, Client: ServiceClient } = require('azure-iothub');
const { Client } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

const connectionString = process.env.LATCHKEY_CONNECTION_STRING;
const host = /HostName=([^;]+)/.exec(connectionString)[1];
const registry = Registry.fromConnectionString(connectionString);

const body = async (promise) => (await promise).responseBody;

// refused waits for a promise that must fail, with this status and error of a hub.
async function refused(what, promise, status, name, type) {
  const err = await promise.then(() => assert.fail(what + ' was not refused'), (err) => err);
  if (!err.response) throw err;
  assert.equal(err.response.statusCode, status, what);
  assert.equal(err.response.headers['iothub-errorcode'], name, what);
  assert(JSON.parse(err.responseBody).Message.startsWith('ErrorCode:' + name + ';'), what);
  if (type) assert.equal(err.name, type, what);
}

async function oneByOne() {
  const made = await body(registry.create({ deviceId: 'press-1', status: 'enabled' }));
  assert.equal(made.deviceId, 'press-1');
  assert.equal(made.status, 'enabled');
  assert.equal(made.authentication.type, 'sas');
  assert.equal(Buffer.from(made.authentication.symmetricKey.primaryKey, 'base64').length, 32);
  assert.notEqual(made.authentication.symmetricKey.primaryKey, made.authentication.symmetricKey.secondaryKey);
  await refused('to create it again', registry.create({ deviceId: 'press-1' }), 409, 'DeviceAlreadyExists', 'DeviceAlreadyExistsError');

  assert.deepEqual(await body(registry.get('press-1')), made);
  await refused('to read nobody', registry.get('nobody'), 404, 'DeviceNotFound', 'DeviceNotFoundError');

  const off = await body(registry.update({ ...made, status: 'disabled', statusReason: 'repair' }));
  assert.equal(off.status, 'disabled');
  assert.equal(off.statusReason, 'repair');
  assert.notEqual(off.etag, made.etag);
  assert.deepEqual(off.authentication, made.authentication, 'the keys were changed');
  await refused('to update nobody', registry.update({ deviceId: 'nobody' }), 404, 'DeviceNotFound');

  const own = { primaryKey: Buffer.alloc(32, 1).toString('base64'), secondaryKey: Buffer.alloc(32, 2).toString('base64') };
  const keyed = await body(registry.create({ deviceId: 'press-2', authentication: { symmetricKey: own } }));
  assert.deepEqual({ ...keyed.authentication.symmetricKey }, own);
  const certified = await body(registry.create({ deviceId: 'press 2'.replace(' ', '(x)'), authentication: { x509Thumbprint: { primaryThumbprint: 'AB'.repeat(32) } } }));
  assert.equal(certified.authentication.type, 'selfSigned');
  assert.equal(certified.authentication.x509Thumbprint.primaryThumbprint, 'AB'.repeat(32));

  assert.deepEqual((await body(registry.list())).map((d) => d.deviceId), ['press(x)2', 'press-1', 'press-2']);
  const statistics = await body(registry.getRegistryStatistics());
  assert.deepEqual(statistics, { totalDeviceCount: 3, enabledDeviceCount: 2, disabledDeviceCount: 1 });
  for (const id of ['press(x)2', 'press-1', 'press-2']) await registry.delete(id);
  await refused('to delete nobody', registry.delete('press-1'), 404, 'DeviceNotFound', 'DeviceNotFoundError');
}

async function inBulk() {
  const names = ['line-1', 'line-2', 'line-3'];
  const result = await body(registry.addDevices(names.map((deviceId) => ({ deviceId }))));
  assert.equal(result.isSuccessful, true);
  assert.deepEqual(result.errors, []);
  const err = await registry.addDevices([{ deviceId: 'line-3' }, { deviceId: 'line-4' }]).then(() => assert.fail('a failure was not told'), (e) => e);
  const failed = JSON.parse(err.responseBody);
  assert.deepEqual([failed.isSuccessful, failed.errors.map((e) => [e.deviceId, e.errorCode])], [false, [['line-3', 'DeviceAlreadyExists']]]);

  const list = await body(registry.list());
  assert.equal(list.length, 4);
  const updated = await body(registry.updateDevices(list.map((d) => ({ ...d, status: 'disabled' })), false));
  assert.equal(updated.isSuccessful, true);
  const stale = await registry.updateDevices([list[0]], false).then(() => assert.fail('an old etag was taken'), (e) => e);
  assert.equal(JSON.parse(stale.responseBody).errors[0].errorCode, 'PreconditionFailed');
  assert.deepEqual((await body(registry.list())).map((d) => d.status), Array(4).fill('disabled'));
  await registry.removeDevices(list, true);
  assert.deepEqual(await body(registry.list()), []);
}

async function all() {
  await oneByOne();
  await inBulk();
  for (const [what, promise] of [
    ['a job', () => registry.listJobs()], ['a configuration', () => registry.getConfigurations()], ['a module', () => registry.getModulesOnDevice('nobody')],
  ]) {
    await refused(what, promise(), 501, 'NotImplemented');
  }
}

// connected is a device on the device SDK, and what it was told of desired properties.
async function connected(deviceId, key) {
  const device = Client.fromConnectionString(`HostName=${host};DeviceId=${deviceId};SharedAccessKey=${key}`, Mqtt);
  await device.open();
  const twin = await device.getTwin();
  const desired = [];
  twin.on('properties.desired', (delta) => desired.push({ ...delta }));
  device.onDeviceMethod('reboot', (request, response) => response.send(202, { in: request.payload.seconds }, (err) => assert.ifError(err)));
  await new Promise((resolve) => setImmediate(resolve));
  return { device, twin, desired };
}

// until asks again and again, as other programs' work takes its time; a test's deadline ends it.
async function until(what, ask) {
  for (;;) {
    const found = await ask();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

async function pages(sql, size) {
  const query = registry.createQuery(sql, size);
  const read = [];
  while (query.hasMoreResults) {
    assert(read.length < 10, 'the query does not end');
    const { result } = await query.nextAsTwin(query.continuationToken);
    read.push(result.map((twin) => twin.deviceId));
  }
  return read;
}

async function calls() {
  const made = await body(registry.create({ deviceId: 'press-7' }));
  const service = ServiceClient.fromConnectionString(connectionString);
  const method = { methodName: 'reboot', payload: { seconds: 5 }, responseTimeoutInSeconds: 10 };
  await refused('a method of a device that is not there', service.invokeDeviceMethod('press-7', method), 404, 'DeviceNotOnline');

  const { device, twin, desired } = await connected('press-7', made.authentication.symmetricKey.primaryKey);
  assert.equal((await body(registry.get('press-7'))).connectionState, 'Connected');
  const { result } = await until('the method', () => service.invokeDeviceMethod('press-7', method).catch((err) => (err.response && err.response.statusCode === 404 ? null : Promise.reject(err))));
  assert.deepEqual(result, { status: 202, payload: { in: 5 } });

  const before = await body(registry.getTwin('press-7'));
  assert.equal(before.deviceId, 'press-7');
  const after = await body(registry.updateTwin('press-7', { tags: { place: 'hall 3' }, properties: { desired: { interval: 30 } } }, before.etag));
  assert.equal(after.properties.desired.interval, 30);
  assert.equal(after.tags.place, 'hall 3');
  assert.notEqual(after.etag, before.etag);
  await refused('to change it by the old etag', registry.updateTwin('press-7', { tags: { place: 'yard' } }, before.etag), 412, 'PreconditionFailed');
  await until('the device to hear of it', async () => desired.some((delta) => delta.interval === 30));
  const { result: again } = await after.update({ tags: { floor: 2 } }); // as an object that knows its etag
  assert.deepEqual({ ...again.tags }, { place: 'hall 3', floor: 2 });

  await new Promise((resolve, reject) => twin.properties.reported.update({ level: 3 }, (err) => (err ? reject(err) : resolve())));
  assert.equal((await body(registry.getTwin('press-7'))).properties.reported.level, 3);

  await body(registry.create({ deviceId: 'press-8' }));
  assert.deepEqual(await pages('SELECT * FROM devices', 1), [['press-7'], ['press-8']]);
  assert.deepEqual(await pages("SELECT * FROM devices WHERE tags.place = 'hall 3' AND properties.reported.level > 2"), [['press-7']]);
  await refused('a query that is none', registry.createQuery('SELECT * FROM elsewhere').next(), 400, 'ArgumentInvalid');

  await registry.update({ ...made, status: 'disabled' });
  assert.equal((await body(registry.get('press-7'))).connectionState, 'Disconnected', 'a device that was disabled is cut off when the answer comes');
  process.exit(); // the device's SDK would go on trying for minutes
}

const [task] = process.argv.slice(2);

({ registry: all, calls })[task]().catch((err) => {
  console.error(err);
  process.exit(1);
});
