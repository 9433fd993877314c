// Issuance policies of the server: what a key that is written must be like.

import { call } from "./api.js";
import { html } from "./html.js";
import { plural } from "./time.js";
import { Tags, shown } from "./ui.js";

/** Policies and named sets of scopes; none where the server doesn't tell. */
export async function loadPolicies(signal) {
  try {
    const { issuance_policies: policies = [], roles = {} } = await call("adminListPolicies", { signal });
    return { policies, roles };
  } catch (problem) {
    if (!problem.isUnknown) throw problem;
    return { policies: [], roles: {} };
  }
}

/** True if a policy may be for the key of a request. The server knows the caller's role, and decides. */
export function isFor(policy, body) {
  const { actor_prefix: prefix, visibility, role } = policy.match ?? {};
  const isPublic = body.visibility === "KEY_VISIBILITY_PUBLIC";
  if (policy.from && new Date(policy.from) > new Date()) return false;
  if (visibility && (visibility === "public") !== isPublic) return false;
  if (role && !["issuer", "admin"].includes(role) && role !== body.role) return false;
  return !prefix || body.actor_id.startsWith(prefix);
}

/** Scopes that the policies for a request allow by name. */
export function demandedScopes(known, body) {
  return (known?.policies ?? []).filter((policy) => isFor(policy, body)).flatMap((policy) => policy.allowed_scopes ?? []);
}

/** Demands of a policy, in words. */
export function demandsOf(policy) {
  return [
    policy.max_ttl && `ends within ${policy.max_ttl}`,
    policy.require_ttl && "has an end",
    policy.allowed_scopes && `scopes among ${policy.allowed_scopes.join(", ") || "none"}`,
    policy.required_metadata?.length && `metadata with ${policy.required_metadata.join(", ")}`,
    policy.require_ip_restriction && "is restricted to addresses",
    policy.name_pattern && `a name like ${policy.name_pattern}`,
    policy.max_keys_per_actor !== undefined && `at most ${plural(policy.max_keys_per_actor, "active key")} of its actor`,
  ].filter(Boolean);
}

/** What the policies for a request demand. */
export function Demands({ of: known, body }) {
  const policies = (known?.policies ?? []).filter((policy) => isFor(policy, body));
  if (policies.length === 0) return null;
  return html`<section class="card" aria-label="Issuance policies"><header><h2>What it has to be like</h2></header><div class="card-body"><dl class="facts wide">
    ${policies.map((policy) => html`<div><dt>${shown(policy.name)}</dt><dd><${Tags} items=${demandsOf(policy)} most=${10} /></dd></div>`)}</dl></div></section>`;
}
