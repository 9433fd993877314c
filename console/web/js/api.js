// Client of the API. Paths, methods and roles come from `operations.js`, which is made from the
// server's description.

import { operations as described } from "./operations.js";

/** Operations that some servers don't have. A described one counts instead. */
const optional = {
  adminWhoami: { method: "GET", path: "/v2alpha1/admin/whoami", role: "viewer" },
  adminListEvents: { method: "GET", path: "/v2alpha1/admin/events", role: "viewer" },
  adminGetStatus: { method: "GET", path: "/v2alpha1/admin/status", role: "viewer" },
  adminExplainRoute: { method: "POST", path: "/v2alpha1/admin/routes:explain", role: "viewer" },
  adminListPolicies: { method: "GET", path: "/v2alpha1/admin/policies", role: "viewer" },
};

export const operations = { ...optional, ...described };

const base = new URL(document.documentElement.dataset.base ?? "../", location.href);

/** Address of the server, as commands need it. */
export const endpoint = base.href.replace(/\/$/, "");

// Token of the caller, for servers with `auth.mode: jwt` that no gateway stands before. Only here:
// it is gone with the page.
let token = "";

export function setToken(text) {
  token = text.trim();
}

export function hasToken() {
  return token !== "";
}

/** An answer that isn't a success, or none at all. */
export class Problem extends Error {
  /** @param {number} status 0 if there was no answer */
  constructor(status, message, details = {}) {
    super(message);
    this.status = status;
    this.reason = details.reason ?? "";
    this.metadata = details.metadata ?? {};
    this.field = this.metadata.field ?? "";
    this.retryAfter = details.retryAfter ?? "";
    this.violations = details.violations ?? [];
  }

  /** Problem of a field, or "". */
  at(field) {
    const found = this.violations.find((violation) => violation.field === field || violation.field?.startsWith(`${field}.`));
    if (found) return found.description ?? "";
    return this.field === field || this.field.startsWith(`${field}.`) ? this.message : "";
  }

  /** True if the server doesn't have the operation. */
  get isUnknown() {
    return [404, 405, 501].includes(this.status) && (this.status !== 404 || /no such resource/.test(this.message));
  }
}

/** Fills in a path, and adds the query; empty values are left out. */
export function pathOf(name, parameters = {}, query = {}) {
  const operation = operations[name];
  let index = 0;
  const values = Object.values(parameters);
  const path = operation.path.replace(/\{[^}]+\}/g, () => encodeURIComponent(values[index++]));
  const pairs = Object.entries(query).filter(([, value]) => value !== undefined && value !== "" && value !== false);
  const text = new URLSearchParams(pairs).toString();
  return path + (text ? `?${text}` : "");
}

/** Calls an operation; returns its answer with `epoch` and `warning` of its headers, or throws a `Problem`. */
export async function call(name, { path = {}, query = {}, body, headers = {}, signal } = {}) {
  const operation = operations[name];
  const url = new URL(pathOf(name, path, query).slice(1), base);
  const all = { accept: "application/json", ...headers };
  if (token && !all.authorization && operation.role) all.authorization = `Bearer ${token}`;
  // No credential has other characters, and a header can't: the server would never see it.
  if (all.authorization && !/^Bearer [\x20-\x7e]*[\x21-\x7e]$/.test(all.authorization)) throw new Problem(401, "The credential isn't one of this server.");
  if (body !== undefined) all["content-type"] = "application/json";
  let response;
  try {
    response = await fetch(url, {
      method: operation.method,
      headers: all,
      body: body === undefined ? undefined : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "manual",
      referrerPolicy: "no-referrer",
      signal,
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "The server can't be reached.");
  }
  // A gateway leads to its sign-in page; the API redirects nobody.
  if (response.type === "opaqueredirect") throw new Problem(401, "The gateway in front wants you to sign in again.");
  const text = await response.text();
  let answer = {};
  try {
    answer = text ? JSON.parse(text) : {};
  } catch {
    throw new Problem(response.ok ? 0 : response.status, `The answer isn't JSON (status ${response.status}).`);
  }
  if (response.ok) return answer;
  const error = answer.error ?? {};
  const details = error.details ?? [];
  const info = details.find((detail) => detail.reason) ?? {};
  const violations = details.flatMap((detail) => detail.fieldViolations ?? detail.field_violations ?? detail.violations ?? []);
  const retryAfter = response.headers.get("retry-after") ?? "";
  throw new Problem(response.status, error.message ?? `The server answered ${response.status}.`, { ...info, retryAfter, violations });
}

/** Reads all pages of a listing, up to a number of items. */
export async function callAll(name, { query = {}, member, most = 1000, ...options }) {
  const items = [];
  let pageToken = "";
  do {
    const page = await call(name, { ...options, query: { page_size: Math.min(1000, most), ...query, page_token: pageToken } });
    items.push(...(page[member] ?? []));
    pageToken = page.next_page_token ?? "";
  } while (pageToken && items.length < most);
  return { items, hasMore: pageToken !== "" };
}

/** Advice for a person who has a problem. */
export function remedy(problem) {
  if (!(problem instanceof Problem)) return "Reload the page. If it happens again, please report it.";
  if (problem.isUnknown) return "This server doesn't have this operation; a newer version does.";
  switch (problem.status) {
    case 0:
      return "Check that the server runs and that your port-forward or VPN is up. Nothing was changed unless the Activity says so.";
    case 400:
      return problem.field && problem.violations.length < 2 ? `Change ${problem.field} and send it again.` : "Change the request and send it again.";
    case 401:
      return "Reload the page to sign in at the gateway in front of this console, or to give a token.";
    case 403:
      return "Ask somebody with that role, or have serve.http.auth.roles give it to you.";
    case 404:
      return "It may have been deleted, or belong to another network.";
    case 409:
      return "Reload: somebody else has changed it meanwhile.";
    case 410:
      return "Start again with what the log still has. The file that audit.file names has the rest.";
    case 412:
      return "Reload the page, look at what has changed, and try again.";
    case 429:
      return problem.retryAfter ? `Try again in ${problem.retryAfter} s.` : "Wait a minute, then try again.";
    case 503:
    case 504:
      return "The database doesn't answer. Look at Instances; keys that are known keep working meanwhile.";
    default:
      return "Try again. The server's log has the request id.";
  }
}
