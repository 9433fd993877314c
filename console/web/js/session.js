// The caller: name, role and network, as the server says.

import { call, operations } from "./api.js";

const ORDER = { viewer: 1, issuer: 2, admin: 3 };

/** The server's answer about the caller; before it, what is assumed. */
export const session = { known: false, role: "", name: "", network: "", mode: "", isVerified: false, may: new Set(), networks: [] };

export async function loadSession() {
  try {
    const me = await call("adminWhoami");
    Object.assign(session, {
      known: true,
      role: me.role ?? "",
      name: me.caller ?? "",
      network: me.network_id ?? "",
      mode: me.auth_mode ?? "",
      isVerified: me.is_verified === true,
      may: new Set(me.operations ?? []),
      networks: me.networks ?? [],
    });
  } catch (problem) {
    if (!problem.isUnknown) throw problem;
    // An older server doesn't say: it refuses what the caller may not do.
  }
  return session;
}

/** True if the caller may do it, or if the role isn't known: then the server says so. */
export function may(name) {
  const needed = operations[name]?.role;
  // A server that lists its operations has no others: this page may be newer than it.
  if (session.may.size > 0) return session.may.has(name);
  return !session.known || !needed || (ORDER[session.role] ?? 0) >= ORDER[needed];
}
