// An application that works with devices by the service side of their hub.
'use strict';

const https = require('https');
const { ConnectionString, SharedAccessSignature } = require('azure-iot-common');

// service makes one call of the hub's REST interface.
exports.service = function service(hub, method, path, body, headers = {}) {
  const policy = ConnectionString.parse(process.env.LATCHKEY_CONNECTION_STRING);
  const expiry = Math.floor(Date.now() / 1000) + 300;
  const authorization = SharedAccessSignature.create(hub, policy.SharedAccessKeyName, policy.SharedAccessKey, expiry).toString();
  return new Promise((done, fail) => {
    const request = https.request({
      host: hub, port: 443, method, path: path + '?api-version=2021-04-12',
      headers: Object.assign({ authorization, 'content-type': 'application/json' }, headers),
    }, (response) => {
      let text = '';
      response.on('data', (data) => { text += data; });
      response.on('end', () => {
        if (response.statusCode >= 300) {
          fail(new Error(method + ' ' + path + ': ' + response.statusCode + ' ' + text));
        } else {
          done(text ? JSON.parse(text) : null);
        }
      });
    });
    request.on('error', fail);
    request.end(body);
  });
};
