// Actions as commands: what a person would type for the same.

import { endpoint, hasToken, operations, pathOf } from "./api.js";

/** Quotes a word for a POSIX shell. */
export function quote(word) {
  const text = String(word);
  return /^[\w@%+=:,./-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** Returns the call as a curl command. */
export function curl(name, { path = {}, query = {}, body, secret } = {}) {
  const operation = operations[name];
  const words = ["curl", "-sS"];
  if (operation.method !== "GET") words.push("-X", operation.method);
  words.push(quote(endpoint + pathOf(name, path, query)));
  if (hasToken()) words.push('-H "authorization: Bearer $TALOS_TOKEN"');
  if (secret) words.push(`-H "authorization: Bearer ${secret}"`);
  if (body !== undefined) words.push("-H", "'content-type: application/json'", "-d", quote(JSON.stringify(body)));
  return words.join(" ");
}

/** Joins the words of a command; `[flag, value]` is left out if the value is unset. */
function talos(...words) {
  const all = words.flatMap((word) => {
    if (!Array.isArray(word)) return [word];
    const [flag, value] = word;
    return value === undefined || value === null || value === "" || value.length === 0 ? [] : [flag, quote(value)];
  });
  const server = endpoint === "http://localhost:4420" ? [] : ["--endpoint", quote(endpoint)];
  return ["talos", ...all, ...server].join(" ");
}

const json = (value) => (value && Object.keys(value).length ? JSON.stringify(value) : undefined);

/** Flags that issuing, importing and rotating share. */
function fields(body) {
  const limit = body.rate_limit_policy;
  const refill = body.credits?.refill;
  return [
    ["--role", body.role],
    ["--scopes", body.scopes?.join(",")],
    ["--ttl", body.ttl],
    ["--visibility", body.visibility === "KEY_VISIBILITY_PUBLIC" ? "public" : undefined],
    ["--allowed-cidrs", body.ip_restriction?.allowed_cidrs?.join(",")],
    ["--rate-limit-quota", limit?.quota],
    ["--rate-limit-window", limit?.window],
    ["--credits", body.credits?.remaining],
    ["--credits-refill", refill && `${refill.amount}/${refill.every}`],
    ["--metadata", json(body.metadata)],
  ];
}

const kindOf = (id) => (/^[0-9a-f]{64}$/.test(id) ? "imported" : "issued");

export const cli = {
  issue: (body) => talos("keys", "issue", quote(body.name || "NAME"), ["--actor", body.actor_id || "ACTOR"], ...fields(body)),
  // The key itself stands in no command: it is read from stdin, or a hash stands for it.
  importKey: (body) => {
    const words = (source) => talos("keys", "imported", "import", quote(body.name || "NAME"), source, ["--actor", body.actor_id || "ACTOR"], ...fields(body));
    return body.hash ? words(["--hash", `${body.hash.algorithm}:${body.hash.value || "DIGEST"}`]) : `printf %s "$LEGACY_KEY" | ${words("--raw-key -")}`;
  },
  list: ({ kind, filter, order, query }) => talos("keys", kind, "list", ["--filter", filter], ["--order-by", order], ["--query", query]),
  get: (id) => talos("keys", kindOf(id), "get", id),
  rotate: (id, body) =>
    talos("keys", "issued", "rotate", id, ["--grace-period", body.grace_period], ["--until-unused", body.until_unused], ...fields(body)),
  finish: (id) => talos("keys", "issued", "finish", id),
  revoke: (id, reason, description) =>
    talos("keys", "revoke", id, ["--reason", reason.replace("REVOCATION_REASON_", "").toLowerCase()], ["--reason-text", description]),
  suspend: (id, body) => talos("keys", kindOf(id), "suspend", id, ["--reason", body.reason], ["--until", body.until]),
  resume: (id) => talos("keys", kindOf(id), "resume", id),
  // An empty word takes away what was there. Limits in other units than requests have no option: then there is no command.
  update: (id, { name, scopes, ip_restriction: addresses, rate_limit_policy: limit, metadata, expire_time: end }) => {
    if (limit && limit.unit !== "requests") return "";
    const set = (flag, word) => (word === undefined ? [] : [flag, quote(word)]);
    return talos("keys", kindOf(id), "update", id, ...set("--name", name), ...set("--scopes", scopes?.join(",")), ...set("--allowed-cidrs", addresses?.allowed_cidrs.join(",")),
      ...set("--rate-limit-quota", limit === null ? 0 : limit?.quota), ...set("--rate-limit-window", limit?.window), ...set("--metadata", metadata && JSON.stringify(metadata)), ...set("--expire-time", end));
  },
  updateActor: (id, { display_name: name, metadata, rate_limit_policies: limits }) => {
    const words = (limits ?? []).map((limit) => `${limit.name}=${limit.quota}/${limit.window}${limit.enforce === "ENVOY" ? ",envoy" : ""}`);
    return talos("actors", "update", quote(id), ...(name === undefined ? [] : ["--display-name", quote(name)]), ...(metadata ? ["--metadata", quote(JSON.stringify(metadata))] : []),
      ...(limits ? (words.length ? words : [""]).flatMap((word) => ["--rate-limit", quote(word)]) : []));
  },
  suspendActor: (id, body) => talos("actors", "suspend", quote(id), ["--reason", body.reason], ["--until", body.until]),
  resumeActor: (id) => talos("actors", "resume", quote(id)),
  verify: () => `printf %s "$SECRET" | ${talos("keys", "verify", "-")}`,
  explain: ({ method, host, path, client_address: client }, hasKey) => {
    const words = talos("routes", "explain", method, quote(host + path), ...(hasKey ? ["--credential", "-"] : []), ["--client-address", client]);
    return hasKey ? `printf %s "$SECRET" | ${words}` : words;
  },
  usage: (filter) => talos("usage", "report", ...filter),
  status: () => "talos status",
};
