// Lists of keys: filters, order and search as the server does them; where an older server can't, a
// bounded number of keys is looked through here, and the screen says so.

import { call, callAll } from "./api.js";
import { EXPIRING_DAYS, IDLE_DAYS, endOf, isActive, isIdle, suspensionOf } from "./keystate.js";

const DAY = 86_400_000;
/** Maximum number of keys that are looked through here. */
const MAX_SCANNED = 5000;
/** Largest page of the server, and how many of them are looked through for one page here. */
const MAX_PAGE = 1000;
const MAX_SIFTED_PAGES = 20;
export const PAGE_SIZE = 50;

export const SORTS = {
  "": { label: "Newest first", order: "create_time desc" },
  created: { label: "Oldest first", order: "create_time" },
  used: { label: "Longest unused first", order: "last_used_time" },
  "-used": { label: "Last used first", order: "last_used_time desc" },
  expires: { label: "Expiring first", order: "expire_time" },
  "-expires": { label: "Expiring last first", order: "expire_time desc" },
};

/** Filters that stand in the address, with their words. */
export const STATES = {
  active: "Active",
  suspended: "Suspended",
  revoked: "Revoked",
  expired: "Expired",
};
export const CONCERNS = {
  expiring: `Expires within ${EXPIRING_DAYS} days`,
  idle: `Unused for ${IDLE_DAYS} days`,
  forever: "Never expires",
};

const MEMBERS = { issued: "issued_api_keys", imported: "imported_api_keys" };
const OPERATIONS = { issued: "adminListIssuedApiKeys", imported: "adminListImportedApiKeys" };

const quoted = (text) => `"${text.replaceAll("\\", "\\\\").replaceAll('"', '\\"')}"`;
const timeBefore = (days, now) => new Date(now - days * DAY).toISOString();

/** True if a state and a concern exclude each other: concerns are of keys that work. */
const isContradictory = ({ state, concern }) => Boolean(concern) && ["revoked", "expired"].includes(state);

/** Returns what is asked for after changes; of a state and a concern that exclude each other, the newer one stays. */
export function withChanges(asked, changes) {
  const after = { ...asked, ...changes };
  if (!isContradictory(after)) return after;
  return { ...after, [changes.concern ? "state" : "concern"]: "" };
}

/** Returns the server's filter of what is asked for. Suspension isn't part of a key's status. */
export function filterOf(asked, now = Date.now()) {
  const terms = [];
  const status = { active: "ACTIVE", suspended: "ACTIVE", revoked: "REVOKED", expired: "EXPIRED" }[asked.state];
  const concerned = status ?? (asked.concern ? "ACTIVE" : undefined);
  if (concerned) terms.push(`status = KEY_STATUS_${concerned}`);
  if (asked.actor) terms.push(`actor_id = ${quoted(asked.actor)}`);
  if (asked.scope) terms.push(`scopes:${quoted(asked.scope)}`);
  if (asked.concern === "expiring") terms.push(`expire_time > ${quoted(timeBefore(0, now))}`, `expire_time <= ${quoted(timeBefore(-EXPIRING_DAYS, now))}`);
  if (asked.concern === "idle") {
    terms.push(`last_used_time < ${quoted(timeBefore(IDLE_DAYS, now))}`, `create_time < ${quoted(timeBefore(IDLE_DAYS, now))}`);
  }
  if (asked.concern === "forever") terms.push("expire_time = never");
  return terms.join(" AND ");
}

/** The part of a filter that every server knows. */
function plainFilter(asked) {
  return filterOf({ state: asked.state, actor: asked.actor });
}

/** True if a key is what is asked for. */
export function matches(key, asked, now = Date.now()) {
  if (asked.state === "suspended" && !suspensionOf(key)) return false;
  if (asked.state === "active" && suspensionOf(key)) return false;
  if (asked.scope && !key.scopes.includes(asked.scope)) return false;
  if (asked.concern === "expiring" && !(isActive(key) && key.expire_time && endOf(key) - now <= EXPIRING_DAYS * DAY)) return false;
  if (asked.concern === "idle" && !isIdle(key, now)) return false;
  if (asked.concern === "forever" && !(isActive(key) && !key.expire_time)) return false;
  if (!asked.q) return true;
  const words = [key.name, key.actor_id, key.key_id, JSON.stringify(key.metadata ?? {}), ...key.scopes].join("\n").toLowerCase();
  return asked.q.toLowerCase().split(/\s+/).every((word) => words.includes(word));
}

const FAR = "9999-12-31";
const SORT_KEYS = {
  "": (key) => key.create_time,
  created: (key) => key.create_time,
  used: (key) => key.last_used_time ?? "",
  "-used": (key) => key.last_used_time ?? "",
  expires: (key) => key.expire_time ?? FAR,
  "-expires": (key) => key.expire_time ?? FAR,
};

function sorted(keys, sort) {
  const by = SORT_KEYS[sort] ?? SORT_KEYS[""];
  const direction = sort === "" || sort.startsWith("-") ? -1 : 1;
  return [...keys].sort((one, other) => (by(one) < by(other) ? -direction : by(one) > by(other) ? direction : 0));
}

// Set once a server refuses the newer parameters, so that it isn't asked again.
let isPlain = false;

const NOTHING = { keys: [], next: "", total: { number: 0, isEstimate: false } };

/** Returns a page of keys: `keys`, `next`, `total`, and `scanned`, the number of keys that were looked through here. */
export async function listKeys(kind, asked, pageToken, signal) {
  if (isContradictory(asked)) return NOTHING;
  // States of suspension are judged here, page by page, as the server keeps them apart.
  if (!isPlain || !isDemanding(asked)) {
    try {
      return await askServer(kind, asked, pageToken, signal);
    } catch (problem) {
      const isOlder = problem.status === 400 && !isPlain && !pageToken && ["query", "order_by", "filter", "total"].includes(problem.field);
      if (!isOlder) throw problem;
      isPlain = true;
      if (!isDemanding(asked)) return askServer(kind, asked, pageToken, signal);
    }
  }
  return filterLocally(kind, asked, pageToken, signal);
}

/** True if only newer servers can do what is asked for. */
function isDemanding(asked) {
  return Boolean(asked.q || asked.scope || asked.concern || !["", "created"].includes(asked.sort ?? ""));
}

async function askServer(kind, asked, pageToken, signal) {
  // The server's status doesn't tell suspended keys from others: larger pages are looked through.
  const isSifted = asked.state === "suspended";
  const keys = [];
  let [next, total, pages] = [pageToken, undefined, 0];
  do {
    const page = await askPage(kind, asked, next, isSifted || asked.isExport ? MAX_PAGE : PAGE_SIZE, signal);
    keys.push(...page[MEMBERS[kind]].filter((key) => !["active", "suspended"].includes(asked.state) || matches(key, { state: asked.state })));
    total ??= totalOf(page, asked);
    next = page.next_page_token;
    pages += 1;
  } while (next && keys.length === 0 && pages < MAX_SIFTED_PAGES);
  return { keys, next, total };
}

function askPage(kind, asked, pageToken, size, signal) {
  const query = {
    page_size: size,
    page_token: pageToken,
    filter: filterOf(asked),
    order_by: (SORTS[asked.sort] ?? SORTS[""]).order,
    query: asked.q,
    total: pageToken || isPlain ? "" : "true",
  };
  return call(OPERATIONS[kind], { query, signal });
}

function totalOf(page, asked) {
  if (["active", "suspended"].includes(asked.state) || page.total_size === undefined) return undefined;
  return { number: Number(page.total_size), isEstimate: page.total_size_is_estimate === true };
}

let cachedList = { name: "", keys: [], hasMore: false };

async function filterLocally(kind, asked, pageToken, signal) {
  const name = JSON.stringify([kind, plainFilter(asked)]);
  if (!pageToken || cachedList.name !== name) {
    const query = { filter: plainFilter(asked), order_by: "create_time desc" };
    const { items, hasMore } = await callAll(OPERATIONS[kind], { query, member: MEMBERS[kind], most: MAX_SCANNED, signal });
    cachedList = { name, keys: items, hasMore };
  }
  const found = sorted(cachedList.keys.filter((key) => matches(key, asked)), asked.sort ?? "");
  const start = Number(pageToken || 0);
  const end = start + (asked.isExport ? MAX_SCANNED : PAGE_SIZE);
  return {
    keys: found.slice(start, end),
    next: end < found.length ? String(end) : "",
    total: { number: found.length, isEstimate: cachedList.hasMore },
    scanned: cachedList.hasMore ? cachedList.keys.length : 0,
  };
}

/** Numbers of keys that need attention, for the overview. */
export async function attention(signal) {
  const names = Object.keys(CONCERNS);
  const pages = await Promise.all(names.map((concern) => listKeys("issued", { concern, sort: concern === "expiring" ? "expires" : "" }, "", signal)));
  return Object.fromEntries(names.map((name, index) => [name, pages[index]]));
}

/** Rows of a file of comma-separated values; what a spreadsheet would run as a formula is made text. */
export function csvOf(keys) {
  const columns = ["key_id", "name", "actor_id", "status", "scopes", "create_time", "last_used_time", "expire_time", "created_by", "metadata"];
  const cell = (value) => {
    const text = value === undefined ? "" : Array.isArray(value) ? value.join(" ") : typeof value === "object" ? JSON.stringify(value) : String(value);
    return `"${(/^[=+\-@\t\r]/.test(text) ? `'${text}` : text).replaceAll('"', '""')}"`;
  };
  return `${[columns.join(","), ...keys.map((key) => columns.map((name) => cell(key[name])).join(","))].join("\r\n")}\r\n`;
}

/** Reads all keys that match, for a file: `keys`, and `hasMore` if there are too many. */
export async function allKeys(kind, asked, most = 100_000) {
  const keys = [];
  let token = "";
  do {
    const page = await listKeys(kind, { ...asked, isExport: true }, token);
    keys.push(...page.keys);
    token = page.next;
  } while (token && keys.length < most);
  return { keys, hasMore: Boolean(token) };
}
