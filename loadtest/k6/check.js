// Checks and admin operations by k6:
//
//   k6 run -e ADMIN=http://127.0.0.1:4420 -e AUTHZ=127.0.0.1:4423 -e RATE=2000 loadtest/k6/check.js
//
// It needs Envoy's .proto files (github.com/envoyproxy/envoy/api and its imports) in the directory that PROTOS names.
// The thresholds only require correct responses; add your own for latency.

import { check } from "k6";
import exec from "k6/execution";
import grpc from "k6/net/grpc";
import http from "k6/http";

const ADMIN = __ENV.ADMIN || "http://127.0.0.1:4420";
const AUTHZ = __ENV.AUTHZ || "127.0.0.1:4423";
const KEYS = Number(__ENV.KEYS || 200);
const METHOD = "envoy.service.auth.v3.Authorization/Check";

const client = new grpc.Client();
client.load((__ENV.PROTOS || "protos").split(","), "envoy/service/auth/v3/external_auth.proto");

const rate = Number(__ENV.RATE || 1000);
const duration = __ENV.DURATION || "30s";
export const options = {
  scenarios: {
    // Open loops: a slow response doesn't delay the next request.
    checks: { exec: "checks", executor: "constant-arrival-rate", rate, duration, preAllocatedVUs: 50, maxVUs: 500 },
    admin: { exec: "admin", executor: "constant-arrival-rate", rate: Math.ceil(rate / 50), duration, preAllocatedVUs: 10 },
  },
  thresholds: { checks: ["rate==1"] },
};

function post(path, body) {
  return http.post(`${ADMIN}/v2alpha1/${path}`, JSON.stringify(body), { headers: { "content-type": "application/json" } });
}

function issue(name) {
  return post("admin/issuedApiKeys", { name, actor_id: `user:${name}`, scopes: ["orders:read"] }).json();
}

export function setup() {
  return Array.from({ length: KEYS }, (_, n) => issue(`k6-${n}`).secret);
}

let connected = false;

export function checks(secrets) {
  if (!connected) {
    client.connect(AUTHZ, { plaintext: true });
    connected = true;
  }
  const n = exec.scenario.iterationInTest;
  const isValid = n % 50 !== 0;
  // Low numbers are more frequent than high ones.
  let secret = secrets[Math.floor(secrets.length * Math.random() ** 3)];
  if (!isValid) secret = `${secret.slice(0, -4)}2222`;
  const headers = { ":method": "GET", ":path": "/orders", ":authority": "api.example.com", authorization: `Bearer ${secret}` };
  const source = { address: { socketAddress: { address: "203.0.113.7", portValue: 50000 } } };
  const response = client.invoke(METHOD, {
    attributes: { source, request: { http: { method: "GET", path: "/orders", host: "api.example.com", headers } } },
  });
  check(response, {
    "valid keys pass, others don't": ({ message }) => (message?.status?.code ?? 0) === (isValid ? 0 : 16),
  });
}

export function admin() {
  const key = issue(`k6-admin-${exec.scenario.iterationInTest}`);
  const verified = post("admin/apiKeys:verify", { credential: key.secret });
  const derived = post("admin/apiKeys:derive", { credential: key.secret, algorithm: "TOKEN_ALGORITHM_JWT", ttl: "60s" });
  const listed = http.get(`${ADMIN}/v2alpha1/admin/issuedApiKeys?page_size=50`);
  const rotated = post(`admin/issuedApiKeys/${key.issued_api_key.key_id}:rotate`, {});
  const revoked = post("apiKeys:selfRevoke", { credential: rotated.json().secret });
  const after = post("admin/apiKeys:verify", { credential: rotated.json().secret });
  check(null, {
    "admin operations succeed": () =>
      verified.json().is_valid && derived.status === 200 && listed.status === 200 && rotated.status === 201 &&
      revoked.status === 200 && after.json().is_valid === false,
  });
}
