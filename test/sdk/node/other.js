// A device without a TPM on Microsoft's SDK: registers over HTTPS with a
// symmetric key or a client certificate, connects to the hub it was assigned to
// over MQTT with the same, sends one message and closes. It prints what it was
// assigned to.
//
//   node other.js symmetric REGISTRATION_ID BASE64_KEY PROVISIONING_HOST ID_SCOPE MESSAGE
//   node other.js x509 REGISTRATION_ID PEM_FILE PROVISIONING_HOST ID_SCOPE MESSAGE
//       the file holds the certificate, those above it, and the private key
'use strict';

const fs = require('fs');
const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { SymmetricKeySecurityClient } = require('azure-iot-security-symmetric-key');
const { X509Security } = require('azure-iot-security-x509');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');

// readPem takes the private key of a file apart from its certificates.
function readPem(file) {
  const text = fs.readFileSync(file, 'utf8');
  const begin = text.indexOf('-----BEGIN EC PRIVATE KEY-----');
  return { cert: text.slice(0, begin), key: text.slice(begin) };
}

const ways = {
  symmetric: (id, key) => ({
    security: new SymmetricKeySecurityClient(id, key),
    hub: (host, device) => Client.fromConnectionString(`HostName=${host};DeviceId=${device};SharedAccessKey=${key}`, Mqtt),
  }),
  x509: (id, file) => ({
    security: new X509Security(id, readPem(file)),
    hub: (host, device) => {
      const client = Client.fromConnectionString(`HostName=${host};DeviceId=${device};x509=true`, Mqtt);
      client.setOptions(readPem(file));
      return client;
    },
  }),
};

async function main(way, id, secret, provisioningHost, idScope, text) {
  const { security, hub } = ways[way](id, secret);
  const provisioning = ProvisioningDeviceClient.create(provisioningHost, idScope, new Http(), security);
  const result = await new Promise((resolve, reject) => {
    provisioning.register((err, answer) => (err ? reject(err) : resolve(answer)));
  });
  const { registrationId, assignedHub, deviceId, status } = result.registrationState || result;

  const client = hub(assignedHub, deviceId);
  await client.open();
  const message = new Message(text);
  message.messageId = id;
  await client.sendEvent(message);
  await client.close();
  console.log(JSON.stringify({ registrationId, assignedHub, deviceId, status }));
}

main(...process.argv.slice(2)).catch((err) => {
  console.error(err);
  process.exitCode = 1;
});
