// States of keys in plain words.

import { exactTime, relativeTime, shortDate, windowWords } from "./time.js";

const DAY = 86_400_000;
/** Key without a use for this long is idle. */
export const IDLE_DAYS = 90;
/** Key that ends within this time is expiring. */
export const EXPIRING_DAYS = 7;

export const REASONS = {
  REVOCATION_REASON_UNSPECIFIED: "no reason given",
  REVOCATION_REASON_KEY_COMPROMISE: "the key was compromised",
  REVOCATION_REASON_AFFILIATION_CHANGED: "its owner's role changed",
  REVOCATION_REASON_SUPERSEDED: "replaced by another key",
  REVOCATION_REASON_PRIVILEGE_WITHDRAWN: "the right to it was withdrawn",
};

/** Words for outcomes of Checks. */
export const OUTCOMES = {
  allow: "allowed",
  insufficient_scope: "a scope was missing",
  rate_limited: "limit reached",
  expired: "expired",
  revoked: "revoked",
  suspended: "suspended",
  ip_not_allowed: "address not allowed",
  missing_credential: "no key",
  no_credential: "no key",
  malformed: "malformed key",
  unknown: "unknown key",
  publishable: "publishable key",
  unavailable: "couldn't be checked",
};

export function outcomeWords(outcome) {
  return OUTCOMES[outcome] ?? outcome.replaceAll("_", " ");
}

export const isActive = (key) => key.status === "KEY_STATUS_ACTIVE";
export const suspensionOf = (key) => key.suspension ?? key.actor_suspension;
export const isImported = (key) => /^[0-9a-f]{64}$/.test(key.key_id);

export function expiresWithin(key, days, now = Date.now()) {
  const end = endOf(key);
  return isActive(key) && end !== null && end - now <= days * DAY;
}

/** Time in milliseconds at which the key ends, or null. */
export function endOf(key) {
  const ends = [key.expire_time, key.supersede_time].filter(Boolean).map((time) => new Date(time).getTime());
  return ends.length ? Math.min(...ends) : null;
}

export function isIdle(key, now = Date.now(), days = IDLE_DAYS) {
  return isActive(key) && now - new Date(key.last_used_time ?? key.create_time).getTime() > days * DAY;
}

/** One word and its tone, for a pill. */
export function badge(key, now = Date.now()) {
  if (key.status === "KEY_STATUS_REVOKED") return { tone: "bad", word: "Revoked" };
  if (key.status === "KEY_STATUS_EXPIRED") return { tone: "idle", word: "Expired" };
  if (key.suspension) return { tone: "warn", word: "Suspended" };
  if (key.actor_suspension) return { tone: "warn", word: "Actor suspended" };
  if (key.supersede_time) return { tone: "warn", word: "Being replaced" };
  if (expiresWithin(key, EXPIRING_DAYS, now)) return { tone: "warn", word: "Expires soon" };
  return { tone: "good", word: "Active" };
}

const list = new Intl.ListFormat("en", { type: "conjunction" });

/** One sentence that says whether the key works, from where, until when, and what limits it. */
export function sentence(key, now = Date.now()) {
  const reason = REASONS[key.revocation_reason];
  if (key.status === "KEY_STATUS_REVOKED") {
    const by = key.revoked_by ? ` by ${key.revoked_by}` : "";
    const why = key.revocation_description ?? reason;
    return `Refused for good: revoked ${relativeTime(key.update_time, now)}${by}${why ? `, ${why}` : ""}.`;
  }
  if (key.status === "KEY_STATUS_EXPIRED") return `Refused: it expired ${relativeTime(key.expire_time, now)}. Prolong it by setting another end.`;
  const suspension = suspensionOf(key);
  if (suspension) {
    const whose = key.suspension ? "suspended" : `its actor ${key.actor_id} is suspended`;
    const until = suspension.until ? `, until ${shortDate(suspension.until, now)}` : ", until it is resumed";
    return `Refused at present: ${whose}${suspension.reason ? ` (${suspension.reason})` : ""}${until}.`;
  }
  const parts = [];
  const from = key.ip_restriction?.allowed_cidrs;
  parts.push(from?.length ? `Works from ${list.format(from)}` : "Works from any address");
  const limits = limitsOf(key).map((limit) => `at most ${limit.quota} per ${windowWords(limit.window)}`);
  if (limits.length) parts.push(list.format(limits));
  if (key.supersede_time) parts.push(`until ${shortDate(key.supersede_time, now)} (${relativeTime(key.supersede_time, now)}), as another key replaces it`);
  else if (key.expire_time) parts.push(`until ${shortDate(key.expire_time, now)} (${relativeTime(key.expire_time, now)})`);
  else parts.push("without an end");
  return `${parts.join(", ")}.`;
}

export function limitsOf(key) {
  const own = key.rate_limit_policies ?? (key.rate_limit_policy ? [{ name: "default", ...key.rate_limit_policy }] : []);
  return [...own, ...(key.actor_rate_limit_policies ?? [])];
}

/** A limit in words. */
export const limitWords = (limit) => `${limit.name}: ${limit.quota} per ${windowWords(limit.window)}`;

/** Events in the life of a key that its own fields tell, the newest first. */
export function timeline(key, uses = {}, now = Date.now()) {
  const events = [];
  const add = (time, tone, what, by) => time && events.push({ time, tone, what, by, ahead: new Date(time).getTime() > now });
  add(key.create_time, "good", key.replaces ? "Made by a rotation" : isImported(key) ? "Imported" : "Issued", key.created_by);
  add(uses.first_used_time, "", "First used");
  add(uses.last_used_time, "", `Last used${uses.last_used_address ? ` from ${uses.last_used_address}` : ""}`);
  if (key.suspension) add(key.suspension.suspended_at, "warn", `Suspended${key.suspension.reason ? `: ${key.suspension.reason}` : ""}`, key.suspension.suspended_by);
  if (key.suspension?.until) add(key.suspension.until, "good", "The suspension ends by itself");
  const isRevoked = key.status === "KEY_STATUS_REVOKED";
  const changed = key.update_time !== key.create_time && key.update_time !== key.suspension?.suspended_at;
  if (isRevoked) add(key.update_time, "bad", `Revoked: ${key.revocation_description ?? REASONS[key.revocation_reason] ?? "no reason given"}`, key.revoked_by);
  else if (key.replaced_by && changed) add(key.update_time, "warn", "Rotated: another key replaces it", key.updated_by);
  else if (changed) add(key.update_time, "", "Last changed", key.updated_by);
  if (!isRevoked) add(key.supersede_time, "bad", "Ends, as another key replaces it");
  if (!isRevoked) add(key.expire_time, "bad", new Date(key.expire_time).getTime() > now ? "Expires" : "Expired");
  return events.sort((one, other) => new Date(other.time) - new Date(one.time));
}

export { exactTime };
