// An operator's program on Microsoft's service SDK, for what has no TPM: each
// mechanism of individual enrollments and groups is created, read, updated by
// its etag, queried in pages, changed in bulk, and deleted. It checks every
// answer and ends with an error at the first that is not as Azure's service
// gives it.
//
//   node mechanisms.js CLIENT_PEM CA_PEM OTHER_CA_PEM
'use strict';

const assert = require('assert').strict;
const fs = require('fs');
const { ProvisioningServiceClient } = require('azure-iot-provisioning-service');

const client = ProvisioningServiceClient.fromConnectionString(process.env.LATCHKEY_CONNECTION_STRING);

async function refused(what, promise, status, errorCode) {
  const err = await promise.then(() => assert.fail(what + ' was not refused'), (err) => err);
  if (!err.response) throw err;
  assert.equal(err.response.statusCode, status, what);
  assert.equal(JSON.parse(err.responseBody).errorCode, errorCode, what);
}

const body = async (promise) => (await promise).responseBody;

const kinds = {
  individual: {
    name: 'registrationId', type: 'Enrollment', taken: 409201, missing: 404201, list: 'enrollments',
    put: (o) => body(client.createOrUpdateIndividualEnrollment(o)),
    get: (id) => body(client.getIndividualEnrollment(id)),
    keys: (id) => body(client.getIndividualEnrollmentAttestationMechanism(id)),
    remove: (o) => client.deleteIndividualEnrollment(o),
    query: (q, n) => client.createIndividualEnrollmentQuery(q, n),
  },
  group: {
    name: 'enrollmentGroupId', type: 'EnrollmentGroup', taken: 409202, missing: 404202, list: 'enrollmentGroups',
    put: (o) => body(client.createOrUpdateEnrollmentGroup(o)),
    get: (id) => body(client.getEnrollmentGroup(id)),
    keys: (id) => body(client.getEnrollmentGroupAttestationMechanism(id)),
    remove: (o) => client.deleteEnrollmentGroup(o),
    query: (q, n) => client.createEnrollmentGroupQuery(q, n),
  },
};

// life is what an operator does with one entry.
async function life(kind, id, attestation, check) {
  const wanted = { [kind.name]: id, attestation, provisioningStatus: 'disabled' };
  const made = await kind.put(wanted);
  assert.equal(made[kind.name], id);
  assert.equal(made.provisioningStatus, 'disabled');
  check(made.attestation, true);
  await refused('to create it again', kind.put(wanted), 409, kind.taken);

  const { registrationState, ...read } = await kind.get(id);
  check(read.attestation, false);
  assert.equal(read.etag, made.etag);
  assert.equal(JSON.stringify(read).includes('"certificate"'), false, 'no answer shows a certificate');

  const updated = await kind.put({ ...read, provisioningStatus: 'enabled' });
  assert.equal(updated.provisioningStatus, 'enabled');
  assert.notEqual(updated.etag, made.etag);
  check(updated.attestation, true);
  const { attestation: before } = made;
  assert.deepEqual(updated.attestation, before, 'what was read and written back keeps keys and certificates');
  await refused('to update it by the old etag', kind.put({ ...read, provisioningStatus: 'disabled' }), 412, 412001);

  check(await kind.keys(id), true);
  await refused('the attestation of nobody', kind.keys('nobody'), 404, kind.missing);
  await refused('to read nobody', kind.get('nobody'), 404, kind.missing);
  return updated;
}

const base64 = /^[A-Za-z0-9+/]+=*$/;

const symmetric = (keys) => (attestation, shown) => {
  assert.equal(attestation.type, 'symmetricKey');
  if (!shown) return assert.equal(attestation.symmetricKey, undefined, 'a read must hide the keys');
  const { primaryKey, secondaryKey } = attestation.symmetricKey;
  if (keys) return assert.deepEqual({ primaryKey, secondaryKey }, keys);
  assert.match(primaryKey, base64);
  assert.notEqual(primaryKey, secondaryKey);
};

const certified = (member, subject) => (attestation) => {
  assert.equal(attestation.type, 'x509');
  const { primary, secondary } = attestation.x509[member];
  assert.equal(primary.info.subjectName, subject);
  assert.match(primary.info.sha256Thumbprint, /^[0-9A-F]{64}$/);
  assert.equal(secondary, undefined);
};

async function pages(kind, pageSize) {
  const query = kind.query({ query: 'SELECT * FROM ' + kind.list }, pageSize);
  const read = [];
  while (query.hasMoreResults) {
    assert(read.length < 10, 'the query does not end');
    const { responseBody, httpResponse } = await query.next(query.continuationToken);
    assert.equal(httpResponse.headers['x-ms-item-type'], kind.type);
    read.push(responseBody.map((item) => item[kind.name]));
    assert.equal(JSON.stringify(responseBody).includes('primaryKey'), false, 'a query must hide the keys');
  }
  return read;
}

// bulk of groups is not in the SDK's interface; its individual form ends in its
// callback form only.
function bulk(mode, enrollments) {
  return new Promise((resolve, reject) => {
    client.runBulkEnrollmentOperation({ mode, enrollments }, (err, result) => (err ? reject(err) : resolve(result)));
  });
}

async function main(clientFile, caFile, otherFile) {
  const pem = (file) => fs.readFileSync(file, 'utf8');
  const own = { primaryKey: Buffer.alloc(32, 1).toString('base64'), secondaryKey: Buffer.alloc(64, 2).toString('base64') };
  const all = [];
  for (const [kind, cases] of [
    [kinds.individual, [
      ['key-made', { type: 'symmetricKey', symmetricKey: { primaryKey: '', secondaryKey: '' } }, symmetric()],
      ['key-own', { type: 'symmetricKey', symmetricKey: own }, symmetric(own)],
      ['press-7', { type: 'x509', x509: { clientCertificates: { primary: { certificate: pem(clientFile) } } } }, certified('clientCertificates', 'CN=press-7')],
    ]],
    [kinds.group, [
      ['line-key-made', { type: 'symmetricKey', symmetricKey: { primaryKey: '', secondaryKey: '' } }, symmetric()],
      ['line-key-own', { type: 'symmetricKey', symmetricKey: own }, symmetric(own)],
      ['line-x509', { type: 'x509', x509: { signingCertificates: { primary: { certificate: Buffer.from(pem(caFile)).toString('base64') } } } }, certified('signingCertificates', 'CN=Plant CA')],
    ]],
  ]) {
    for (const [id, attestation, check] of cases) all.push([kind, await life(kind, id, attestation, check)]);
    assert.deepEqual(await pages(kind, 2), [[cases[0][0], cases[1][0]].sort(), [cases[2][0]]]);
  }

  await refused('a group of TPMs', kinds.group.put({ enrollmentGroupId: 'tpms', attestation: { type: 'tpm', tpm: { endorsementKey: 'AToA' } } }), 400, 400004);
  await refused('a CA of another group', kinds.group.put({ enrollmentGroupId: 'again', attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: pem(caFile) } } } } }), 400, 400004);

  const several = ['bulk-1', 'bulk-2'].map((registrationId) => ({ registrationId, attestation: { type: 'symmetricKey' } }));
  assert.deepEqual(await bulk('create', several), { errors: [], isSuccessful: true });
  assert.deepEqual((await bulk('update', several)).errors.map((e) => e.errorCode), [409201, 409201]);
  const now = await Promise.all(several.map(({ registrationId }) => kinds.individual.get(registrationId)));
  assert.deepEqual(await bulk('updateIfMatchETag', now.map((e) => ({ ...e, provisioningStatus: 'disabled' }))), { errors: [], isSuccessful: true });
  assert.deepEqual(await bulk('delete', several), { errors: [], isSuccessful: true });

  const registrations = client.createEnrollmentGroupDeviceRegistrationStateQuery({ query: 'SELECT * FROM deviceRegistrations' }, 'line-x509', 2);
  const { responseBody, httpResponse } = await registrations.next();
  assert.deepEqual(responseBody, []);
  assert.equal(httpResponse.headers['x-ms-item-type'], 'DeviceRegistration');

  for (const [kind, entry] of all) {
    await kind.remove(entry);
    await refused('to read what was deleted', kind.get(entry[kind.name]), 404, kind.missing);
  }
  // The CA is free again.
  const freed = await kinds.group.put({ enrollmentGroupId: 'again', attestation: { type: 'x509', x509: { signingCertificates: { primary: { certificate: pem(caFile) }, secondary: { certificate: pem(otherFile) } } } } });
  assert.equal(freed.attestation.x509.signingCertificates.secondary.info.subjectName, 'CN=Other CA');
}

main(...process.argv.slice(2)).catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
