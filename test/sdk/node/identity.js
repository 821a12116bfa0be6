// Reads a device's identity as Microsoft's sample get_endorsement_key does and
// prints it: {"registrationId", "endorsementKey"}.
//
//   node identity.js TPM
'use strict';

const { TpmSecurityClient } = require('azure-iot-security-tpm');
const { open } = require('./tpm');

const tpm = open(process.argv[2]);
const security = new TpmSecurityClient(undefined, tpm);

security.getEndorsementKey((err, endorsementKey) => {
  if (err) throw err;
  security.getRegistrationId((err, registrationId) => {
    if (err) throw err;
    console.log(JSON.stringify({ registrationId, endorsementKey: endorsementKey.toString('base64') }));
    tpm.close();
  });
});
