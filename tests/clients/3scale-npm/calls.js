// Makes calls with the npm package 3scale, one after the other: node calls.js PORT CALLS
//
// CALLS is a file with a line of JSON for each call: {"key": provider key or null, "call": method, "arguments": [...]}.
// For each a line of JSON is printed: what the client made of the answer.
'use strict';

const fs = require('fs');
const { Client } = require('3scale');

const [port, file] = process.argv.slice(2);
const options = { host: '127.0.0.1', port: Number(port) };

function told(response) {
  return {
    is_success: response.is_success(),
    status: response.status_code,
    code: response.error_code,
    message: response.error_message,
    plan: response.plan,
    usage: response.usage_reports,
  };
}

async function main() {
  for (const line of fs.readFileSync(file, 'utf8').split('\n').filter(Boolean)) {
    const { key, call, arguments: given } = JSON.parse(line);
    const client = key === null ? new Client(options) : new Client(key, options);
    const response = await new Promise((resolve) => client[call](...given, resolve));
    console.log(JSON.stringify(told(response)));
  }
}

main();
