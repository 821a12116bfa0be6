// An operator's program on Microsoft's service SDK. It checks every answer and
// ends with an error at the first that is not as Azure's service gives it.
//
//   node service.js enroll REGISTRATION_ID ENDORSEMENT_KEY
//       creates the enrollment, reads it, updates it by its etag, and tries what
//       must be refused: to create it again, and to update it by the old etag
//   node service.js retire REGISTRATION_ID ASSIGNED_HUB
//       of a device that has registered: reads the registration's state, deletes
//       the registration, then the enrollment
//   node service.js lists ENDORSEMENT_KEY
//       creates five enrollments in bulk, reads them in pages of two, updates
//       some in bulk with and without their etags, reads an attestation
//       mechanism and deletes all in bulk; there must be no other enrollment
//
// The connection string is in LATCHKEY_CONNECTION_STRING.
'use strict';

const assert = require('assert').strict;
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const client = ProvisioningServiceClient.fromConnectionString(process.env.LATCHKEY_CONNECTION_STRING);

// refused waits for a promise that must fail, with this status and errorCode.
async function refused(what, promise, status, errorCode) {
  const err = await promise.then(() => assert.fail(what + ' was not refused'), (err) => err);
  if (!err.response) throw err;
  assert.equal(err.response.statusCode, status, what);
  assert.equal(JSON.parse(err.responseBody).errorCode, errorCode, what);
}

async function enroll(registrationId, endorsementKey) {
  const wanted = {
    registrationId,
    deviceId: 'press-07',
    attestation: { type: 'tpm', tpm: { endorsementKey } },
    provisioningStatus: 'disabled',
  };
  const created = (await client.createOrUpdateIndividualEnrollment(wanted)).responseBody;
  assert.equal(created.registrationId, registrationId);
  assert.equal(created.deviceId, 'press-07');
  assert.equal(created.attestation.type, 'tpm');
  assert.equal(created.attestation.tpm.endorsementKey, endorsementKey);
  assert.equal(created.provisioningStatus, 'disabled');
  assert.equal(created.createdDateTimeUtc, created.lastUpdatedDateTimeUtc);
  assert.equal(typeof created.etag, 'string');

  await refused('to create it again', client.createOrUpdateIndividualEnrollment(wanted), 409, 409201);

  const { registrationState, ...read } = (await client.getIndividualEnrollment(registrationId)).responseBody;
  assert.deepEqual(read, created);
  assert.deepEqual(registrationState, { registrationId, status: 'unassigned' });

  const updated = (await client.createOrUpdateIndividualEnrollment({ ...read, provisioningStatus: 'enabled' })).responseBody;
  assert.equal(updated.provisioningStatus, 'enabled');
  assert.notEqual(updated.etag, created.etag);
  assert.equal(updated.createdDateTimeUtc, created.createdDateTimeUtc);

  const stale = { ...read, deviceId: 'press-08' };
  await refused('to update it by the old etag', client.createOrUpdateIndividualEnrollment(stale), 412, 412001);
  const now = (await client.getIndividualEnrollment(registrationId)).responseBody;
  assert.equal(now.deviceId, 'press-07', 'the refused update must not show');
  assert.equal(now.etag, updated.etag);

  await refused('the state of what has not registered', client.getDeviceRegistrationState(registrationId), 404, 404202);
}

async function retire(registrationId, assignedHub) {
  const state = (await client.getDeviceRegistrationState(registrationId)).responseBody;
  assert.equal(state.registrationId, registrationId);
  assert.equal(state.status, 'assigned');
  assert.equal(state.substatus, 'initialAssignment');
  assert.equal(state.assignedHub, assignedHub);
  assert.equal(state.deviceId, 'press-07');
  assert.equal(state.tpm, undefined, 'no key may leave by this door');

  const enrollment = (await client.getIndividualEnrollment(registrationId)).responseBody;
  assert.equal(enrollment.registrationState.status, 'assigned');

  await client.deleteDeviceRegistrationState(state);
  await refused('the state of a deleted registration', client.getDeviceRegistrationState(registrationId), 404, 404202);

  await refused('to delete by another etag', client.deleteIndividualEnrollment(registrationId, 'bm90IGl0'), 412, 412001);
  await client.deleteIndividualEnrollment(enrollment);
  await refused('to read a deleted enrollment', client.getIndividualEnrollment(registrationId), 404, 404201);
  await refused('to delete it again', client.deleteIndividualEnrollment(registrationId), 404, 404201);
}

// bulk runs a bulk operation. Only its callback form ends: the SDK's promise of
// this one call never settles.
function bulk(mode, enrollments) {
  return new Promise((resolve, reject) => {
    client.runBulkEnrollmentOperation({ mode, enrollments }, (err, result) => (err ? reject(err) : resolve(result)));
  });
}

// pages reads a query to its end. The SDK's promise form begins again each time
// unless it is given the continuation of the page before.
async function pages(specification, pageSize) {
  const query = client.createIndividualEnrollmentQuery(specification, pageSize);
  const read = [];
  while (query.hasMoreResults) {
    assert(read.length < 10, 'the query does not end');
    const { responseBody, httpResponse } = await query.next(query.continuationToken);
    assert.equal(httpResponse.headers['x-ms-item-type'], 'Enrollment');
    read.push(responseBody);
  }
  return read;
}

const all = { query: 'SELECT * FROM enrollments' };
const ids = (read) => read.map((page) => page.map((enrollment) => enrollment.registrationId));
const codes = (result) => result.errors.map((e) => [e.registrationId, e.errorCode]);

async function lists(endorsementKey) {
  const attestation = { type: 'tpm', tpm: { endorsementKey } };
  const names = ['press-1', 'press-2', 'press-3', 'press-4', 'press-5'];
  const wanted = names.map((registrationId) => ({ registrationId, deviceId: registrationId, attestation }));

  assert.deepEqual(ids(await pages(all, 2)), [[]]);
  assert.deepEqual(await bulk('create', wanted), { errors: [], isSuccessful: true });
  const again = await bulk('create', [wanted[0]]);
  assert.equal(again.isSuccessful, false);
  assert.deepEqual(again.errors, [{ registrationId: 'press-1', errorCode: 409201, errorStatus: 'Enrollment already exists.' }]);

  const read = await pages(all, 2);
  assert.deepEqual(ids(read), [['press-1', 'press-2'], ['press-3', 'press-4'], ['press-5']]);
  assert.deepEqual(ids(await pages({ query: '*' })), [names]);
  assert.deepEqual(ids(await pages(all, 5)), [names], 'a last page that is full is the last');
  const items = read.flat();
  for (const item of items) {
    const { registrationState, ...whole } = (await client.getIndividualEnrollment(item.registrationId)).responseBody;
    assert.deepEqual(item, whole);
    assert.equal(registrationState.status, 'unassigned');
  }

  await bulkUpdates(items);

  const mechanism = (await client.getIndividualEnrollmentAttestationMechanism('press-1')).responseBody;
  assert.deepEqual(mechanism, attestation);
  await refused('the attestation of nobody', client.getIndividualEnrollmentAttestationMechanism('nobody'), 404, 404201);
  await refused('a query of something else', pages({ query: 'SELECT * FROM devices' }, 2), 400, 400004);
  await assert.rejects(bulk('create', [wanted[0], wanted[0]]), (err) => err.response.statusCode === 400);

  const gone = await bulk('delete', [...wanted, { registrationId: 'nobody', attestation }]);
  assert.deepEqual(codes(gone), [['nobody', 404201]]);
  assert.deepEqual(ids(await pages(all, 2)), [[]]);
}

// bulkUpdates: items are the enrollments as a query gave them, etags and dates
// and all, which is what an operator's program sends back.
async function bulkUpdates(items) {
  const disable = (item) => ({ ...item, provisioningStatus: 'disabled' });
  const bare = ({ etag, ...item }) => disable(item);
  assert.deepEqual(codes(await bulk('update', [disable(items[0]), bare(items[1])])), [['press-2', 409201]]);
  assert.deepEqual(codes(await bulk('updateIfMatchETag', [disable(items[0]), disable(items[2]), bare(items[3])])),
    [['press-1', 412001], ['press-4', 412001]]);
  const disabled = { query: "SELECT * FROM enrollments WHERE provisioningStatus = 'disabled'" };
  assert.deepEqual(ids(await pages(disabled, 1)), [['press-1'], ['press-3']]);
}

const [task, ...parameters] = process.argv.slice(2);

({ enroll, retire, lists })[task](...parameters).catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
