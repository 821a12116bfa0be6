// A device on Microsoft's SDK, put together as in its sample register_tpm:
// registers over HTTPS with its TPM, connects to the hub it was assigned to over
// MQTT with SAS tokens that the TPM signs, sends one message, waits until the hub
// has taken it, and closes. It prints what it was assigned to.
//
//   node register.js TPM PROVISIONING_HOST ID_SCOPE MESSAGE
'use strict';

const { ProvisioningDeviceClient } = require('azure-iot-provisioning-device');
const { Http } = require('azure-iot-provisioning-device-http');
const { TpmSecurityClient, TpmAuthenticationProvider } = require('azure-iot-security-tpm');
const { Client, Message } = require('azure-iot-device');
const { Mqtt } = require('azure-iot-device-mqtt');
const { open } = require('./tpm');

async function main(tpm, provisioningHost, idScope, text) {
  const security = new TpmSecurityClient(undefined, tpm);
  const provisioning = ProvisioningDeviceClient.create(provisioningHost, idScope, new Http(), security);

  const result = await provisioning.register();
  const { registrationId, assignedHub, deviceId, status, substatus } = result.registrationState;

  const authentication = TpmAuthenticationProvider.fromTpmSecurityClient(deviceId, assignedHub, security);
  const hub = Client.fromAuthenticationProvider(authentication, Mqtt);
  await hub.open();
  const message = new Message(text);
  message.messageId = 'first-light';
  message.contentType = 'application/json';
  message.contentEncoding = 'utf-8';
  message.properties.add('made-by', 'node & sdk');
  await hub.sendEvent(message);
  await hub.close();
  console.log(JSON.stringify({ registrationId, assignedHub, deviceId, status, substatus }));
}

const [tpmSpec, ...parameters] = process.argv.slice(2);
const tpm = open(tpmSpec);

main(tpm, ...parameters)
  .catch((err) => {
    console.error(err);
    process.exitCode = 1;
  })
  .finally(() => tpm.close());
