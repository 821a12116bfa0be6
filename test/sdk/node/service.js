// An operator's program on Microsoft's service SDK. It checks every answer and
// ends with an error at the first that is not as Azure's service gives it.
//
//   node service.js enroll REGISTRATION_ID ENDORSEMENT_KEY
//       creates the enrollment, reads it, updates it by its etag, and tries what
//       must be refused: to create it again, and to update it by the old etag
//   node service.js retire REGISTRATION_ID ASSIGNED_HUB
//       of a device that has registered: reads the registration's state, deletes
//       the registration, then the enrollment
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

const [task, ...parameters] = process.argv.slice(2);

({ enroll, retire })[task](...parameters).catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
